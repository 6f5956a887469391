"""The Trainer: asks an objective for views and terms, scales what comes back, logs it. No mathematics here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, cast

import datasets
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import BaseImageProcessor, set_seed
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import logging

from .checks import check_model, check_split_model
from .counting import StepCounts, count_rows, know_unmarked
from .data.collator import SaliencyCollator
from .data.dataset import TransformedDataset
from .data.finishing import CHANGES, Finish
from .data.preparation import Preparation
from .data.streams import StreamedDataset
from .data.unusable import PLACE, PLACES, REASON
from .embeddings import EmbeddingCapture, config_of, release_captures
from .evaluating import EvaluatingTrainer
from .forwarding import Encoder
from .freezing import FrozenLayers
from .guidance import Guide
from .heads import how_to_load
from .hub import record_run, write_model_card
from .hub.run_record import energy_of
from .objectives import Objective
from .streaming import IDLE
from .tasks import Task
from .tracked_pictures import PictureCallback
from .tracking import TermTracker
from .training_args import SageTrainingArguments
from .version import __version__

logger = logging.get_logger(__name__)


class SageTrainer(EvaluatingTrainer):
    """
    [`~transformers.Trainer`] that guides an image classifier by human saliency maps.

    The loss is that of the model's problem type for every row (cross-entropy, with one label a picture; see
    [`~sage_hf.tasks.Task`]) plus, for the rows that have a saliency map, the terms of an objective (SAGE by default).
    Both are means over the *whole* optimizer step: over accumulation steps and over processes. So
    the same rows give the same gradients however they are split, even where maps are spread unevenly.

    Takes the arguments of `Trainer`. Raw datasets (`image`, `saliency`, `label` columns) get the aligned transform of
    `processing_class` and are checked before training; datasets that already have `pixel_values`, or that carry a
    transform or type of their own, are left as they are. Evaluation reports the task's loss alone.

    A `compute_loss_func(outputs, labels, num_items_in_batch)` replaces the task's loss, not the terms. Its outputs
    hold logits alone. As in `Trainer`, it is to divide a sum over labels by `num_items_in_batch`, the labels of the
    optimizer step (as many as there are rows, with one label a picture), unless that is `None`. Its `eval_loss` is
    Trainer's, a mean over batches; that of the task is one over rows, however many batches and processes there are.

    Args:
        model (`torch.nn.Module`): an image classifier of transformers, also inside a `peft.PeftModel`; or any module
            that takes a batch of pictures first and returns logits, whose head `args.embedding_layer` names.
        args ([`SageTrainingArguments`]): the settings.
        processing_class ([`~transformers.BaseImageProcessor`], *optional*): the checkpoint's image processor; needed
            for raw datasets, saved with the model.
        objective ([`Objective`], *optional*): an objective of your own, in place of the one that `args` describe.
        model_init (`Callable`, *optional*): makes the model, in place of `model`; for hyperparameter search.
        **kwargs: as for [`~transformers.Trainer`].

    Raises:
        `ValueError`: settings or data that can't be trained with; raised before training starts.
        [`DataError`]: the same, where it is a row of the data.

    Example:

    ```python
    >>> import tempfile
    >>> from datasets import Dataset
    >>> from PIL import Image
    >>> from sage_hf import SageTrainer, SageTrainingArguments
    >>> from transformers import ViTConfig, ViTForImageClassification
    >>> from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    >>> picture, saliency = Image.new("RGB", (40, 30)), Image.new("L", (40, 30), 255)
    >>> columns = {"image": [picture] * 4, "saliency": [saliency] * 3 + [None], "label": [0, 1, 0, 1]}
    >>> size = {"image_size": 32, "patch_size": 16, "hidden_size": 16, "num_hidden_layers": 1}
    >>> folder = tempfile.TemporaryDirectory()
    >>> trainer = SageTrainer(
    ...     model=ViTForImageClassification(ViTConfig(num_attention_heads=2, **size)),
    ...     args=SageTrainingArguments(output_dir=folder.name, max_steps=1, use_cpu=True, report_to="none"),
    ...     train_dataset=Dataset.from_dict(columns),
    ...     processing_class=ViTImageProcessorPil(size={"height": 32, "width": 32}),
    ... )
    >>> trainer.train().global_step
    {'train_runtime': ...}
    1
    >>> trainer.annotated_share()
    0.75
    >>> folder.cleanup()

    ```
    """

    _name = "SAGE"
    _paper: ClassVar = {"title": "Saliency-Guided Contrastive Embeddings", "id": "2511.12744"}
    _tag_names: ClassVar = ["sage_hf", "saliency"]

    # compute_loss divides by the rows of the whole optimizer step, so training_step must not divide again. Its default
    # guesses from the model's signature, and guesses wrong for most vision models.
    loss_is_scaled_for_ga = True

    args: SageTrainingArguments
    protocol: Mapping[str, Any] = MappingProxyType({})
    """What else the `sage` key of the config is to say from the next training on, such as what was left out."""

    def __init__(
        self,
        model: nn.Module | None = None,
        args: SageTrainingArguments | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: BaseImageProcessor | None = None,
        *,
        objective: Objective | None = None,
        model_init: Callable[..., Any] | None = None,
        **kwargs: Any,
    ):
        if args is None:
            args = SageTrainingArguments(output_dir="tmp_trainer")
        if not isinstance(args, SageTrainingArguments):
            raise TypeError(f"args must be SageTrainingArguments, got {type(args).__name__}.")
        if args.n_gpu > 1:
            # DataParallel copies the model at each step, and what a copy's hook captures is lost.
            logger.warning("Using one of %d GPUs. Start with `accelerate launch` to use them all.", args.n_gpu)
            args._n_gpu = 1
        self.args = args
        self.model_init: Any = model_init
        self._first_model: nn.Module | None = None
        if model is None and model_init is not None:
            set_seed(args.seed)  # as Trainer does before it calls model_init
            model = self._first_model = super().call_model_init()
        if model is None:
            raise ValueError("SageTrainer needs a model, or a model_init that makes one.")

        self._own_objective = objective
        self.model_config = config_of(model, args.embedding_layer)
        self.preparation = Preparation(self.model_config, args, processing_class)
        self._raw: dict[str, Any] = {"train": train_dataset, "evaluation": eval_dataset}
        self._prepared: dict[str, Any]
        self._froze: bool
        self.task: Task
        self._capture: EmbeddingCapture | None = None
        self._encoder: Encoder
        self._guide: Guide | None
        self._finish: Finish | None = None
        self.compute_loss_func = kwargs.get("compute_loss_func")
        self._configure(model, check=True)
        self._rows_seen = torch.zeros(len(StepCounts._fields), dtype=torch.int64)
        self._card: dict[str, Any] = {}

        # The task smooths labels; Trainer's own smoother knows one label and models with a config alone.
        args.label_smoothing_factor = 0.0
        super().__init__(
            model=model if self._first_model is None else None,
            args=args,
            data_collator=data_collator or SaliencyCollator(),
            train_dataset=self._prepared["train"],
            eval_dataset=self._prepared["evaluation"],
            processing_class=processing_class,
            model_init=self.model_init,
            **kwargs,
        )
        args.label_smoothing_factor = self.task.label_smoothing
        self.add_callback(PictureCallback(self))
        # Some models (those with a teacher) take no labels, so Trainer finds no name for them.
        self.label_names = self.label_names or ["labels"]
        self._survive()

    # ---- Model ----

    @property
    def splits_model(self) -> bool:
        """Whether the model's weights are split over the processes, by FSDP or DeepSpeed ZeRO-3."""
        deepspeed = self.accelerator.state.deepspeed_plugin if self.is_deepspeed_enabled else None
        return self.is_fsdp_enabled or (deepspeed is not None and deepspeed.zero_stage == 3)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """As in `Trainer`: a new model for each training."""
        model, self._first_model = self._first_model, None
        return super().call_model_init(trial) if model is None else model

    def _hp_search_setup(self, trial: Any) -> None:
        # Called at the start of every training, when a trial, or the user, may have changed the arguments.
        super()._hp_search_setup(trial)
        attributes = {"train": "train_dataset", "evaluation": "eval_dataset"}
        for name, attribute in attributes.items():
            if getattr(self, attribute) is not self._prepared[name]:  # the user has put another in its place
                self._raw[name] = getattr(self, attribute)
        self._configure(cast(nn.Module, self.model))
        for name, attribute in attributes.items():
            setattr(self, attribute, self._prepared[name])
        if self.splits_model:
            check_split_model(self.guidance_objective, self._encoder.view_forward)

    def _configure(self, model: nn.Module, *, check: bool = False) -> None:
        """Set up what follows from model and arguments: task, objective, datasets, and what reads the model."""
        args, config = self.args, config_of(model, self.args.embedding_layer)
        problem_type = self.preparation.problem_type(self._raw["train"], self._raw["evaluation"])
        for name in ("id2label", "label2id", "problem_type"):
            setattr(config, name, getattr(self.model_config, name))
        self.model_config = self.preparation.config = config
        # Not `objective`: a hyperparameter search keeps a trial's score under that name.
        self.guidance_objective: Objective | None = self._own_objective or args.objective(problem_type)
        check_model(model, config, args, self.guidance_objective)
        if self._capture is not None and self._capture.model is model and args.freeze_backbone != self._froze:
            raise ValueError("freeze_backbone can't change between trainings of one model: make another SageTrainer.")
        self._froze = args.freeze_backbone
        self.preparation.guided = self.guidance_objective is not None
        self._prepared = {
            name: self.preparation.all(dataset, name, training=name == "train", check=check)
            for name, dataset in self._raw.items()
        }
        self._unmarked = self.preparation.unmarked_classes()
        self._bound_steps(self._prepared["train"])
        weights = self.preparation.class_weights(self._prepared["train"])
        scaled = self.preparation.scaled_weights(weights, self._prepared["train"])
        self.task = Task(problem_type, int(config.num_labels or 0), scaled, args.label_smoothing_factor)
        # Before accelerate wraps or compiles the model: hooks that come later are not part of a compiled graph.
        if self._capture is None or self._capture.model is not model:
            release_captures(model)
            self._capture = EmbeddingCapture(model, args.embedding_layer) if self.preparation.guided else None
        if hasattr(self, "_encoder"):
            self._encoder.release()
        self._encoder = Encoder(
            model,
            self._capture,
            view_forward=args.view_forward,
            interpolate_pos_encoding=args.interpolate_pos_encoding,
            frozen=FrozenLayers(model, args.embedding_layer, backbone=args.freeze_backbone),
        )
        own = self.guidance_objective
        self._guide = None if own is None else Guide(own, self._encoder, self.task, args)
        self._terms = TermTracker((self._loss_name, *(own.names if own is not None else ()), "annotated"))
        versions = {"sage_hf": __version__, "transformers": transformers.__version__, "torch": torch.__version__}
        weighted = {} if weights is None else {"class_weights": list(weights)}
        settings = args.sage_settings(self.guidance_objective) | weighted | dict(self.protocol)
        config.sage = settings | {"versions": versions}

    @property
    def raw_eval_dataset(self) -> Any:
        """The evaluation dataset as it was given, with its maps if it has any; a dictionary of several."""
        return self._raw["evaluation"]

    @property
    def _loss_name(self) -> str:
        return self.task.loss_name if self.compute_loss_func is None else "own_loss"

    # ---- Loss ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """
        The task's loss of a batch, and in training the weighted terms of its annotated rows.

        Args:
            model (`torch.nn.Module`): the wrapped model.
            inputs (`dict`): `pixel_values`, `labels`, and in training what [`SaliencyCollator`] says of maps.
            return_outputs (`bool`, *optional*, defaults to `False`): return [`ImageClassifierOutput`] as well.
            num_items_in_batch (`torch.Tensor`, *optional*): [`StepCounts`] of the whole optimizer step, (6,), as
                [`SageTrainer.get_batch_samples`] counts them; those of this batch if not given.
        """
        inputs = dict(inputs)
        idle = inputs.pop(IDLE, False)
        labels = inputs.pop("labels")
        saliency, mask = inputs.pop("saliency", None), inputs.pop("saliency_mask", None)
        known = inputs.pop("saliency_known", None)
        places = inputs.pop(PLACES, None)

        if idle:
            loss = 0.0 * self._encoder.idle_logits(model, inputs).sum()
            return (loss, ImageClassifierOutput(loss=loss)) if return_outputs else loss
        terms: dict[str, Tensor] = {}
        if self._guide is not None and model.training and saliency is not None and mask is not None:
            logits, terms = self._guide(model, inputs, labels, saliency, mask, self.state.global_step, known)
        else:
            logits = self._encoder.logits(model, inputs)

        counts = None
        if model.training and isinstance(num_items_in_batch, Tensor):
            # Gradients are averaged over processes, so each one's share of the rows is counted that many times.
            counts = StepCounts(*num_items_in_batch / self.accelerator.num_processes)
        outputs = ImageClassifierOutput(logits=logits)
        if self.compute_loss_func is not None:
            loss = self.compute_loss_func(outputs, labels, num_items_in_batch=None if counts is None else counts.items)
            task_loss = loss.detach() * (1 if counts is None else counts.items / labels.numel())
        else:
            total = self.task.total_loss(logits, labels, smooth=model.training)
            loss = total / (self.task.row_weights(labels).sum() if counts is None else counts.weight)
            task_loss = total.detach() / len(labels)
            if self._evaluated is not None and not model.training:
                losses = self.task.row_losses(logits, labels, smooth=False)
                self._evaluated.keep(losses.detach(), self.task.row_weights(labels), loss.detach())
        if self._guide is not None and terms:
            assert mask is not None
            loss = loss + self._guide.weighted(terms, mask.sum() if counts is None else counts.guided)
        if model.training:
            self._terms.add(**{self._loss_name: task_loss.expand(len(labels))}, **terms)
            if mask is not None:
                self._terms.add(annotated=mask)
            guiding = self.guidance_objective.weights if self.guidance_objective is not None else {}
            made_of = {self._loss_name: task_loss} | {name: terms[name] for name in terms if name in guiding}
            self._watch.add(self.state.global_step + 1, loss, made_of, places, logits)
        outputs.loss = loss
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """As in `Trainer`: forward and backward pass of a batch."""
        loss = super().training_step(*args, **kwargs)
        self._encoder.restore_running_statistics()
        return loss

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """
        The batches of one optimizer step, and their [`StepCounts`] over all processes, (6,).

        Every process takes part in the count at every step, whatever its batches hold, so none waits for another.
        """
        if self._guide is not None:
            self._guide.batches = 0
        batches = self._data_wait.fetch(epoch_iterator, num_batches)
        if self._finish is not None:
            batches = [self._finish(batch) for batch in batches]
        know_unmarked(batches, self._unmarked)
        own = count_rows(batches, self.task, device, None if self._guide is None else self._guide.guidable)
        counts = self.accelerator.reduce(own, reduction="sum")
        self._rows_seen = self._rows_seen.to(device) + counts.long()
        batches = self._set_refused_aside(batches)
        if isinstance(self.train_dataset, StreamedDataset):
            batches = self._end_together(batches, num_batches, counts[0] + counts[5])
        return batches, counts

    # ---- Data ----

    @property
    def finishes_in_batches(self) -> bool:
        """
        Whether pictures of raw data are mirrored, jittered and normalised in batches, on the device: in training,
        where the device is not the processor, and no collator of the user's own is to see pictures as they will be.
        """
        return (
            self.is_in_train and self.accelerator.device.type != "cpu" and type(self.data_collator) is SaliencyCollator
        )

    def get_train_dataloader(self) -> DataLoader:
        """
        As in `Trainer`. While it trains, rows of raw data may leave their last steps to
        [`~sage_hf.data.finishing.Finish`], before a batch gets to `training_step`.
        """
        dataset: Any = self.train_dataset
        self._finish = None
        if isinstance(dataset, (TransformedDataset, StreamedDataset)) and self.finishes_in_batches:
            self.train_dataset, self._finish = dataset.in_batches()
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset = dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        assert self._signature_columns is not None
        added = ("pixel_values", "labels", "saliency", "saliency_mask", "saliency_known", CHANGES, PLACE, REASON)
        self._signature_columns += [column for column in added if column not in self._signature_columns]

    def _remove_unused_columns(self, dataset: datasets.Dataset, description: str | None = None) -> datasets.Dataset:
        # A dataset with a transform of its own needs the columns that the transform reads.
        return dataset if dataset.format["type"] else super()._remove_unused_columns(dataset, description)

    # ---- Card ----

    def create_model_card(  # type: ignore[override]  # the card names every argument, so none is positional
        self, *, metrics: dict[str, dict[str, float]] | None = None, **kwargs: Any
    ) -> None:
        """
        Write the checkpoint's card and the run's record; what a person edited in an earlier card stays.

        What was once given is kept for the cards of later pushes, which `Trainer` asks for without any of it.

        Args:
            metrics (`dict[str, dict[str, float]]`, *optional*): measured values by split and metric.
            **kwargs: `model_name`, `dataset` (Hub id), `license`, `tags`, `finetuned_from`, as in `Trainer`;
                `template`, as for [`~sage_hf.hub.write_model_card`]; any field of [`~sage_hf.hub.RunRecord`].
        """
        self.keep_for_card(metrics=metrics, **kwargs)
        if not self.is_world_process_zero():
            return
        record = record_run(
            self.args,
            self.model_config,
            self.state,
            loading=how_to_load(self.accelerator.unwrap_model(self.model)),
            annotated=self.annotated_share(),
            skipped_rows=self.skipped_rows(),
            energy=energy_of(self.callback_handler.callbacks),
            own_tags=self._tag_names,
            given=self._card,
        )
        write_model_card(str(self.args.output_dir), record, self._card.get("template"))
