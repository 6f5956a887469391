"""The Trainer: asks an objective for views and terms, scales what comes back, logs it. No mathematics here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    BaseImageProcessor,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from .callbacks import BestCheckpointCallback, EpochCallback
from .checkpoints import CheckpointTrainer
from .checks import check_model
from .data.collator import SaliencyCollator
from .data.preparation import Preparation
from .embeddings import EmbeddingCapture
from .forwarding import encode
from .hub import write_model_card
from .objectives import Objective
from .objectives.base import at_least_float32
from .tracking import TermTracker
from .training_args import SageTrainingArguments
from .version import __version__

logger = logging.get_logger(__name__)

CARD_HYPERPARAMETERS = (
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "optim",
    "weight_decay",
    "label_smoothing_factor",
    "random_crop_scale",
    "horizontal_flip",
    "color_jitter",
    "seed",
)


class SageTrainer(CheckpointTrainer):
    """
    [`~transformers.Trainer`] that guides an image classifier by human saliency maps.

    The loss is the cross-entropy of every row plus, for the rows that have a saliency map, the terms of an objective
    (SAGE by default). Both are means over the *whole* optimizer step: over accumulation steps and over processes. So
    the same rows give the same gradients however they are split, even where maps are spread unevenly.

    Takes the arguments of `Trainer`. Raw datasets (`image`, `saliency`, `label` columns) get the aligned transform of
    `processing_class` and are checked before training; datasets that already have `pixel_values`, or that carry a
    transform or type of their own, are left as they are. Evaluation reports the cross-entropy alone.

    Args:
        model ([`~transformers.PreTrainedModel`]): an image-classification model with one label a picture.
        args ([`SageTrainingArguments`]): the settings.
        processing_class ([`~transformers.BaseImageProcessor`], *optional*): the checkpoint's image processor; needed
            for raw datasets, saved with the model.
        objective ([`Objective`], *optional*): an objective of your own, in place of the one that `args` describe.
        **kwargs: as for [`~transformers.Trainer`].

    Raises:
        `ValueError`: settings or data that can't be trained with; raised before training starts. [`DataError`] for
        data.

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

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: SageTrainingArguments | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: BaseImageProcessor | None = None,
        *,
        objective: Objective | None = None,
        **kwargs: Any,
    ):
        if args is None:
            args = SageTrainingArguments(output_dir="tmp_trainer")
        if not isinstance(args, SageTrainingArguments):
            raise TypeError(f"args must be SageTrainingArguments, got {type(args).__name__}.")
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError("SageTrainer computes its own loss; compute_loss_func would be ignored. Leave it out.")
        if kwargs.get("model_init") is not None or model is None:
            raise ValueError(
                "SageTrainer needs a model, not model_init: its classification head is looked up at once."
            )
        if args.n_gpu > 1:
            # DataParallel copies the model at each step, and what a copy's hook captures is lost.
            logger.warning("Using one of %d GPUs. Start with `accelerate launch` to use them all.", args.n_gpu)
            args._n_gpu = 1

        self.objective: Objective | None = objective or args.objective()
        check_model(model, args, self.objective)
        self.preparation = Preparation(model.config, args, processing_class, guided=self.objective is not None)
        # Before accelerate wraps or compiles the model: hooks that come later are not part of a compiled graph.
        self._capture = EmbeddingCapture(model, args.embedding_layer) if self.objective is not None else None
        terms = self.objective.names if self.objective is not None else ()
        self._terms = TermTracker(("cross_entropy", *terms, "annotated"))
        self._rows_seen = torch.zeros(3)
        self._card: dict[str, Any] = {}
        self._guided_batches = 0  # since the last optimizer step

        train_dataset = self.preparation(train_dataset, "train", training=True, check=True)
        if isinstance(eval_dataset, dict):
            eval_dataset = {name: self.preparation(split, name, check=True) for name, split in eval_dataset.items()}
        else:
            eval_dataset = self.preparation(eval_dataset, "evaluation", check=True)

        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator or SaliencyCollator(),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        # Some models (those with a teacher) take no labels, so Trainer finds no name for them.
        self.label_names = self.label_names or ["labels"]
        self.add_callback(EpochCallback(self.preparation.augmentation))
        self.add_callback(BestCheckpointCallback())
        settings = args.sage_settings(self.objective)
        versions = {"sage_hf": __version__, "transformers": transformers.__version__, "torch": torch.__version__}
        model.config.sage = settings | {"versions": versions}

    # ---- Loss ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """
        Cross-entropy of a batch, and in training the weighted terms of its annotated rows.

        Args:
            model (`torch.nn.Module`): the wrapped model.
            inputs (`dict`): `pixel_values`, `labels`, and in training `saliency` and `saliency_mask`.
            return_outputs (`bool`, *optional*, defaults to `False`): return [`ImageClassifierOutput`] as well.
            num_items_in_batch (`torch.Tensor`, *optional*): rows, annotated rows and guided rows of the whole
                optimizer step over all processes, (3,), as [`SageTrainer.get_batch_samples`] counts them; those of
                this batch if not given.
        """
        inputs = dict(inputs)
        labels = inputs.pop("labels")
        saliency, mask = inputs.pop("saliency", None), inputs.pop("saliency_mask", None)

        terms: dict[str, Tensor] = {}
        if model.training and self._guides_now() and saliency is not None and mask is not None:
            logits, terms = self._guide(model, inputs, saliency, mask.nonzero().squeeze(1))
        else:
            logits = self._plain(model, inputs)

        smoothing = self.args.label_smoothing_factor if model.training else 0.0
        cross_entropy = F.cross_entropy(at_least_float32(logits), labels, label_smoothing=smoothing, reduction="sum")
        if model.training and isinstance(num_items_in_batch, Tensor):
            # Gradients are averaged over processes, so each one's share of the rows is counted that many times.
            rows_in_step, _, guided_in_step = num_items_in_batch / self.accelerator.num_processes
        else:
            rows_in_step = guided_in_step = None
        loss = cross_entropy / (len(labels) if rows_in_step is None else rows_in_step)
        if terms:
            assert self.objective is not None
            for name, weight in self.objective.weights.items():
                count = len(terms[name]) if guided_in_step is None else guided_in_step
                loss = loss + self.args.guidance_interval * weight * (terms[name].sum() / count)
        if model.training:
            self._terms.add(cross_entropy=(cross_entropy / len(labels)).expand(len(labels)), **terms)
            if mask is not None:
                self._terms.add(annotated=mask)
        return (loss, ImageClassifierOutput(loss=loss, logits=logits)) if return_outputs else loss

    def _plain(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Logits of the batch alone."""
        logits = model(**inputs).logits
        if self._capture is not None:
            self._capture.clear()  # or it would keep the autograd graph alive, and the model could not be copied
        return logits

    def _guides_now(self) -> bool:
        return self.objective is not None and self.state.global_step % self.args.guidance_interval == 0

    def _guide(
        self, model: nn.Module, inputs: dict[str, Any], saliency: Tensor, rows: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of the batch, and the objective's terms for the given rows, (rows,) each."""
        assert self.objective is not None
        assert self._capture is not None
        pixel_values = inputs["pixel_values"]
        fewest, fewest_annotated = self.objective.fewest_rows
        if len(pixel_values) < fewest or len(rows) < fewest_annotated:
            return self._plain(model, inputs), {}
        anchor, *views = encode(
            model,
            self._capture,
            inputs,
            self.objective.views(pixel_values, saliency, rows, self._view_generator(pixel_values.device)),
            rows,
            view_forward=self.args.view_forward,
            unwrapped_model=self.accelerator.unwrap_model(model),
        )
        return anchor.logits, self.objective.terms(anchor.select(rows), *views)

    def _view_generator(self, device: torch.device) -> torch.Generator:
        """
        The randomness of a batch's views: a function of seed, step, batch and process.

        So views are the same after a resumption, and whatever draws from torch's global generator besides.
        """
        place = (self.args.seed, self.state.global_step, self._guided_batches, self.args.process_index)
        self._guided_batches += 1
        seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)
        return torch.Generator(device).manual_seed(seed)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """
        The batches of one optimizer step, and how many rows, annotated rows and guided rows they have over all
        processes, (3,). Annotated rows of a batch that is too small to guide are not guided.

        Every process takes part in the count at every step, whatever its batches hold, so none waits for another.
        """
        self._guided_batches = 0
        batches = list(itertools.islice(epoch_iterator, num_batches))
        counts = torch.zeros(3, device=device)
        fewest, fewest_annotated = self.objective.fewest_rows if self.objective is not None else (0, 0)
        for batch in batches:
            size = len(batch["labels"])
            counts[0] += size
            if "saliency_mask" in batch:
                annotated = batch["saliency_mask"].sum()
                counts[1] += annotated
                counts[2] += annotated * (annotated >= fewest_annotated) * (size >= fewest)
        counts = self.accelerator.reduce(counts, reduction="sum")
        self._rows_seen = self._rows_seen.to(device) + counts
        return batches, counts

    def annotated_share(self) -> float | None:
        """Share of the rows trained on so far that had a map, in [0, 1]; `None` if no maps were read."""
        if self.objective is None or not self._rows_seen[0]:
            return None
        return (self._rows_seen[1] / self._rows_seen[0]).item()

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As in `Trainer`, and see [`CheckpointTrainer`]; what an earlier call left unlogged is forgotten."""
        self._terms.clear()
        self._rows_seen.zero_()
        return super().train(*args, **kwargs)

    # ---- Logging ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the means of the terms since the last training log where the training loss is logged."""
        if "loss" in logs:
            logs |= self._terms.means(self.accelerator)
        super().log(logs, start_time)

    # ---- Data ----

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """As in `Trainer`; a raw dataset gets the aligned transform."""
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            eval_dataset = self.preparation(eval_dataset, "evaluation")
            # With persistent workers, Trainer keeps the loader of any dataset that is passed under one name.
            getattr(self, "_eval_dataloaders", {}).pop("eval", None)
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """As in `Trainer`; a raw dataset gets the aligned transform."""
        return super().get_test_dataloader(self.preparation(test_dataset, "test", labelled=False))

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        assert self._signature_columns is not None
        added = ("labels", "saliency", "saliency_mask")
        self._signature_columns += [column for column in added if column not in self._signature_columns]

    def _remove_unused_columns(self, dataset: datasets.Dataset, description: str | None = None) -> datasets.Dataset:
        # A dataset with a transform of its own needs the columns that the transform reads.
        return dataset if dataset.format["type"] else super()._remove_unused_columns(dataset, description)

    # ---- Card ----

    def create_model_card(  # type: ignore[override]  # the card names every argument, so none is positional
        self, *, metrics: dict[str, dict[str, float]] | None = None, **kwargs: Any
    ) -> None:
        """
        Write the checkpoint's card, from the run; a card that a person has made their own is left alone.

        What was once given is kept for the cards of later pushes, which `Trainer` asks for without any of it.

        Args:
            metrics (`dict[str, dict[str, float]]`, *optional*): measured values by split and metric.
            **kwargs: `model_name`, `dataset` (Hub id), `license`, `tags`, `finetuned_from`, as in `Trainer`.
        """
        self._card |= {name: value for name, value in kwargs.items() if value is not None}
        if metrics is not None:
            self._card["metrics"] = metrics
        if not self.is_world_process_zero():
            return
        config = self.accelerator.unwrap_model(self.model).config
        source = self._card.get("finetuned_from") or getattr(config, "_name_or_path", "")
        folder, arguments = Path(str(self.args.output_dir)), self.args.to_dict()
        name, tags = folder.resolve().name, self._card.get("tags") or []
        write_model_card(
            folder,
            model_name=self._card.get("model_name") or name,
            classes=[config.id2label[index] for index in range(config.num_labels)],
            sage=config.sage,
            hyperparameters={name: arguments[name] for name in CARD_HYPERPARAMETERS},
            metrics=self._card.get("metrics") or {},
            annotated=self.annotated_share(),
            # A local path says nothing to others, and may say too much.
            base_model=source if source and not Path(source).exists() else None,
            dataset=self._card.get("dataset"),
            repo_id=self.args.hub_model_id or name,
            license=self._card.get("license"),
            tags=[*self._tag_names, *([tags] if isinstance(tags, str) else tags)],
        )
