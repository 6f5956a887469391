"""The settings of a run: everything of `TrainingArguments`, and what saliency guidance adds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from transformers import TrainingArguments

from .data.row_pictures import ANNOTATORS
from .data.unusable import ON_ERROR
from .forwarding import VIEW_FORWARDS
from .objectives import GUIDANCE, Objective
from .objectives.base import describe
from .tasks import SINGLE_LABEL

UNSET: dict[str, Any] = {"guidance_one_in": 1, "substitution": 0.0, "triplet_weight": 1.0}
"""Of settings that a preset may have."""
PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "fast": {"guidance_one_in": 7, "substitution": 0.7, "triplet_weight": 3.0},
}
"""What `"fast"` keeps is measured by `training/benchmarks/fast_preset.py`."""


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


@dataclass
class SageTrainingArguments(TrainingArguments):
    r"""
    Arguments of [`SageTrainer`]: those of [`~transformers.TrainingArguments`] and the ones below.

    The defaults of the method are ours (the paper's were not available): they were chosen on the validation digits of
    `training/benchmarks/digits_sweep.py`, and `ablations.py` there changes one at a time; the results lie beside them.
    Small marks, tightly drawn, as of lesions, take other values: `degradation="background"`, `saliency_dilation=0.04`,
    `triplet_weight=0.3`, `consistency_weight=0.5`, and in `unmarked_classes` those with nothing to mark
    (`coffee_leaf.py` there).

    Args:
        guidance (`str`, *optional*, defaults to `"sage"`):
            `"sage"`, or what to compare it with, each explained where it is defined: `"augment"`
            ([`~sage_hf.objectives.AugmentObjective`]), `"cyborg"` ([`~sage_hf.objectives.CyborgObjective`]),
            `"gradient"` ([`~sage_hf.objectives.GradientObjective`]), `"harmonization"`
            ([`~sage_hf.objectives.HarmonizationObjective`]), `"attention"`
            ([`~sage_hf.objectives.AttentionObjective`]); or `"none"`: the task's plain loss through the same trainer,
            the fair baseline.
        guidance_weight (`float`, *optional*, defaults to 1.0):
            Weight of the one term of `"augment"`, `"cyborg"`, `"gradient"` (the paper's lambda), `"harmonization"`
            and `"attention"`; 0 or more.
        degradation (`str`, *optional*, defaults to `"shuffle"`):
            What replaces pixels in the views of `"sage"` and `"augment"`: `"blur"`, `"noise"`, `"mean"`, `"shuffle"`
            (other pictures of the batch) or `"background"` (the same, without what is marked in them: for evidence
            that is a small part of the picture, such as lesions).
        distance (`str`, *optional*, defaults to `"cosine"`): of embeddings: `"cosine"` or `"euclidean"`.
        margin (`float`, *optional*, defaults to 0.2): of the triplet term.
        triplet_weight (`float`, *optional*): weight of the triplet term; 1 if neither given nor part of the preset.
        consistency (`str`, *optional*, defaults to `"positive"`):
            `"both"`, `"positive"`, `"uniform"` or `"none"`; the formulas are in [`SageObjective`].
        divergence (`str`, *optional*, defaults to `"kl"`): `"jsd"`, or `"kl"` with the picture's own prediction as
            target.
        temperature (`float`, *optional*, defaults to 1.0): divides the logits in the consistency term.
        consistency_weight (`float`, *optional*, defaults to 1.0): weight of the consistency term.
        guidance_interval (`int`, *optional*, defaults to 1):
            Evaluate the guidance at every k-th optimizer step only, with its weights multiplied by k. Clipping cuts
            such steps down: with it, set `max_grad_norm` to 0.
        guidance_one_in (`int`, *optional*):
            Guide one in k annotated rows of each batch, drawn at random, with k times the weight of a row. Where k
            does not divide a batch's rows, some batches guide one row more than others, or none, so that it is one in
            k over k steps. All of them, 1, if neither given nor part of the preset.
        substitution (`float`, *optional*):
            Probability that an annotated row whose views a step does not encode (by `guidance_one_in` or
            `guidance_interval`) shows x+ in place of x to the task's loss, which costs nothing; in [0, 1]. 0 if
            neither given nor part of the preset. For `"sage"` and `"augment"`, which make views.
        preset (`str`, *optional*, defaults to `"full"`):
            Settings that go together, for those that are not given: `"full"` has none; `"fast"` is
            `guidance_one_in=7`, `substitution=0.7` and `triplet_weight=3.0`, at 1.3 times the cost of plain
            fine-tuning. Settings of `"sage"` alone are left out for other guidances.
        saliency_control (`str`, *optional*, defaults to `"none"`):
            `"inverted"`, `"shuffled"`, `"center_gaussian"` or `"random_blobs"` (of equal area) in place of the maps,
            to see whether a gain comes from where humans looked.
        saliency_dilation (`float`, *optional*, defaults to 0.0):
            Grow what is marked by this share of the picture's shorter side and soften its edge, for any guidance; in
            [0, 1). Small marks, drawn tightly, need it: 0.04 is 4 pixels of 96.
        view_forward (`str`, *optional*, defaults to `"auto"`):
            `"concatenated"`: one pass over pictures and views; `"separate"`: one for pictures, one for views;
            `"recomputed"`: views in parts whose activations are computed again in the backward pass, which needs
            hardly more memory than plain training and has the same gradients; `"auto"`: separate if the model has
            batch normalisation, concatenated if not.
        embedding_layer (`str`, *optional*):
            Name of the layer that makes the logits, or several names separated by commas; found by itself in models of
            transformers. Needed for any other module.
        freeze_backbone (`bool`, *optional*, defaults to `False`):
            Train the head alone: the backbone's weights and running statistics stay as they are.
        class_weights (`list[str]`, *optional*):
            A number above 0 for each label, or `"balanced"`, from the training labels: inversely proportional to how
            often a class occurs, as scikit-learn has it; with several labels a picture, the number of pictures without
            a label over that with it. What a weight does is said in [`~sage_hf.tasks.Task`]. With a single label the
            scale of the numbers says nothing: they are divided by their mean over the training rows.
        interpolate_pos_encoding (`bool`, *optional*, defaults to `False`):
            Let the model fit its position encodings to pictures of another size than it was pretrained on, for
            fine-tuning at high resolution. The model needs it in inference as well.
        image_column (`str`, *optional*, defaults to `"image"`): name of the picture column of raw datasets.
        saliency_column (`str`, *optional*, defaults to `"saliency"`): name of the saliency column.
        label_column (`str`, *optional*, defaults to `"label"`): name of the label column.
        annotators (`str`, *optional*, defaults to `"random"`):
            What becomes of several annotators' maps, where the saliency column holds a list of maps for a picture:
            `"random"` draws one annotator for each row and epoch, so that over the epochs every annotator counts alike
            and each map stays what a human marked; `"mean"`, `"union"` and `"intersection"` combine them. Annotators
            whose map is missing or blank did not mark the picture, and do not count.
        unmarked_classes (`list[str]`, *optional*):
            Classes in which there is nothing to mark, such as healthy ones. `degradation="background"` shows other
            pictures in the belief that what is unmarked there is no evidence: those with a map, and those of these
            classes. Other degradations don't ask.
        random_crop_scale (`float`, *optional*):
            Train on random crops that keep at least this share of a picture's area, in (0, 1]. No crops if not given.
        horizontal_flip (`float`, *optional*, defaults to 0.0): probability of mirroring a training picture.
        color_jitter (`float`, *optional*, defaults to 0.0):
            Change brightness, contrast and saturation of training pictures by up to this share, in [0, 1).
        shuffle_buffer_size (`int`, *optional*, defaults to 0):
            Shuffle a training stream (`datasets.IterableDataset`) anew in each epoch, by the seed: its shards, and its
            rows by a buffer of this many, which holds them as they are stored. 0 leaves the stream's order alone.
            Other datasets are always shuffled as a whole.
        tracked_pictures (`int`, *optional*, defaults to 4):
            Show so many evaluated pictures with their maps and views at each evaluation, in the trackers that
            `report_to` names (trackio, tensorboard, wandb), see [`PictureCallback`]; 0 for none.
        check_rows (`int`, *optional*, defaults to 2000):
            How many rows of each raw dataset, evenly spread, are decoded and checked before training: -1 for all, 0
            for none. Of a stream, the first 100 at most. Rows that are not checked still raise an error that names
            them when training meets them.
        on_error (`str`, *optional*, defaults to `"raise"`):
            What becomes of a training row that can't be read: `"raise"` stops with an error that names it; `"skip"`
            leaves it out of its batch, and counts it in the log (`skipped_rows`) and in `run.json`. Steps and all
            other rows stay as they are.

    `logging_nan_inf_filter` is off, as it waits for the device at every step to hide what [`SageTrainer`] stops at;
    and `enable_jit_checkpoint` does nothing, as a checkpoint is always saved upon SIGTERM.

    Raises:
        `ValueError`: an unknown name, a number out of its range, or a setting of another guidance than the chosen one.
            (`"none"` takes them all, so that a baseline is one flag away.)

    Example:

    ```python
    >>> from sage_hf import SageTrainingArguments
    >>> args = SageTrainingArguments(output_dir="run", guidance="sage", degradation="blur", use_cpu=True)
    >>> args.sage_settings()["degradation"]
    'blur'

    ```
    """

    guidance: str = field(
        default="sage",
        metadata={
            "help": "sage, augment, cyborg, gradient, harmonization, attention, or none: plain, the fair baseline."
        },
    )
    guidance_weight: float = field(
        default=1.0, metadata={"help": "Weight of the term of augment, cyborg, gradient, harmonization or attention."}
    )
    degradation: str = field(default="shuffle", metadata={"help": "blur, noise, mean, shuffle or background."})
    distance: str = field(default="cosine", metadata={"help": "cosine or euclidean."})
    margin: float = field(default=0.2, metadata={"help": "Margin of the triplet term."})
    triplet_weight: float | None = field(
        default=None, metadata={"help": "Weight of the triplet term; 1, if the preset has none."}
    )
    consistency: str = field(default="positive", metadata={"help": "both, positive, uniform or none."})
    divergence: str = field(default="kl", metadata={"help": "jsd, or kl with the picture's own prediction as target."})
    temperature: float = field(default=1.0, metadata={"help": "Divides the logits in the consistency term."})
    consistency_weight: float = field(default=1.0, metadata={"help": "Weight of the consistency term."})
    guidance_interval: int = field(
        default=1, metadata={"help": "Guide at every k-th optimizer step, with weights times k."}
    )
    guidance_one_in: int | None = field(
        default=None, metadata={"help": "Guide one in k annotated rows of each batch; all, if the preset has none."}
    )
    substitution: float | None = field(
        default=None,
        metadata={"help": "Probability of x+ in place of x in annotated rows that a step does not guide."},
    )
    preset: str = field(
        default="full", metadata={"help": "full, or fast: settings that go together, for little more cost."}
    )
    saliency_control: str = field(
        default="none", metadata={"help": "inverted, shuffled, center_gaussian or random_blobs in place of the maps."}
    )
    saliency_dilation: float = field(
        default=0.0, metadata={"help": "Grow what is marked by this share of the shorter side, softly."}
    )
    view_forward: str = field(
        default="auto", metadata={"help": "auto, concatenated, separate, or recomputed: the least memory."}
    )
    embedding_layer: str | None = field(default=None, metadata={"help": "Name of the layer that makes the logits."})
    freeze_backbone: bool = field(default=False, metadata={"help": "Train the head alone."})
    class_weights: list[str] | None = field(
        default=None, metadata={"help": "balanced, or a number above 0 for each label."}
    )
    interpolate_pos_encoding: bool = field(
        default=False, metadata={"help": "Fit position encodings to pictures of another size."}
    )
    image_column: str = field(default="image", metadata={"help": "Name of the picture column."})
    saliency_column: str = field(default="saliency", metadata={"help": "Name of the saliency column."})
    label_column: str = field(default="label", metadata={"help": "Name of the label column."})
    unmarked_classes: list[str] | None = field(
        default=None, metadata={"help": "Classes with nothing to mark, whose pictures may be backgrounds of others."}
    )
    annotators: str = field(
        default="random",
        metadata={
            "help": "Of several annotators' maps: random (one for each row and epoch), mean, union, intersection."
        },
    )
    random_crop_scale: float | None = field(
        default=None, metadata={"help": "Random crops that keep at least this share of the area, in (0, 1]."}
    )
    horizontal_flip: float = field(default=0.0, metadata={"help": "Probability of mirroring a training picture."})
    color_jitter: float = field(
        default=0.0, metadata={"help": "Change brightness, contrast and saturation by up to this share, in [0, 1)."}
    )
    shuffle_buffer_size: int = field(
        default=0, metadata={"help": "Rows of a training stream to shuffle at a time, 0 for its own order."}
    )
    tracked_pictures: int = field(
        default=4,
        metadata={"help": "Pictures with maps and views for trackio, tensorboard and wandb at each evaluation."},
    )
    check_rows: int = field(
        default=2000, metadata={"help": "Rows to decode and check before training: -1 for all, 0 for none."}
    )

    on_error: str = field(
        default="raise",
        metadata={"help": "raise, or skip: leave training rows that can't be read out, and count them."},
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Hide losses that are no numbers from the log; training stops at them."}
    )

    def __post_init__(self) -> None:
        self.enable_jit_checkpoint = False  # it saves amid a step; SageTrainer saves after it
        super().__post_init__()
        if not torch.accelerator.is_available():
            # There is nothing to pin memory for, and the data loader would warn in every epoch.
            self.dataloader_pin_memory = False
        if self.save_on_each_node:
            raise ValueError(
                "save_on_each_node would leave checkpoints without weights on all machines but the first, where alone "
                "transformers writes them (`PreTrainedModel.save_pretrained` of 5.23). Leave it out, and let "
                "output_dir be on a disk that all machines have."
            )
        named = {
            "guidance": ("none", *GUIDANCE),
            "view_forward": VIEW_FORWARDS,
            "preset": tuple(PRESETS),
            "annotators": ANNOTATORS,
            "on_error": ON_ERROR,
        }
        for name, choices in named.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"Unknown {name} {value!r}. Choose one of {', '.join(choices)}.")
        others = self._settings_of_others()
        preset = {name: value for name, value in PRESETS[self.preset].items() if name not in others}
        for name, value in (UNSET | preset).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if not isinstance(self.degradation, str):
            raise ValueError(
                "A degradation of your own is part of an objective, because arguments are saved as text: pass "
                "SageTrainer(objective=SageObjective(degradation=...))."
            )
        for name in ("guidance_interval", "guidance_one_in"):
            if (count := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be 1 or more, got {count}.")
        self._check_substitution()
        if self.random_crop_scale is not None and not 0 < self.random_crop_scale <= 1:
            raise ValueError(f"random_crop_scale must be above 0 and at most 1, got {self.random_crop_scale}.")
        if not 0 <= self.horizontal_flip <= 1:
            raise ValueError(f"horizontal_flip is a probability in [0, 1], got {self.horizontal_flip}.")
        if not 0 <= self.color_jitter < 1:
            raise ValueError(f"color_jitter must be at least 0 and below 1, got {self.color_jitter}.")
        if isinstance(self.class_weights, (str, int, float)):
            self.class_weights = [str(self.class_weights)]
        if self.class_weights is not None:
            self.class_weights = [
                str(weight) for weight in self.class_weights
            ]  # one type, for JSON and the command line
            if self.class_weights != ["balanced"] and not all(map(_is_positive, self.class_weights)):
                raise ValueError(
                    f"class_weights must be 'balanced' or numbers above 0, got {' '.join(self.class_weights)}."
                )
        if self.shuffle_buffer_size < 0:
            raise ValueError(f"shuffle_buffer_size must be 0 or more, got {self.shuffle_buffer_size}.")
        if self.tracked_pictures < 0:
            raise ValueError(f"tracked_pictures must be 0 or more, got {self.tracked_pictures}.")
        if self.check_rows < -1:
            raise ValueError(f"check_rows must be -1 (all), 0 (none) or a number of rows, got {self.check_rows}.")
        self._check_settings()
        self.objective()

    def _check_substitution(self) -> None:
        value = self.substitution or 0.0
        if not 0 <= value <= 1:
            raise ValueError(f"substitution is a probability in [0, 1], got {value}.")
        if value and self.guidance not in ("none", "sage", "augment"):
            raise ValueError(f"substitution={value} needs views, and guidance={self.guidance!r} makes none.")
        if value and self.guidance_interval == self.guidance_one_in == 1:
            raise ValueError(
                f"substitution={value} is for rows that a step does not guide, and all are guided: set "
                "guidance_one_in or guidance_interval above 1."
            )

    def _check_settings(self) -> None:
        """Refuse what is set for another guidance than the chosen one: it would do nothing."""
        defaults = {one.name: one.default for one in fields(self)} | UNSET
        for name, other in self._settings_of_others().items():
            if getattr(self, name) != defaults[name]:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is a setting of guidance={other!r}, and guidance="
                    f"{self.guidance!r} does not read it. Leave it out."
                )

    def _settings_of_others(self) -> dict[str, str]:
        """Settings that the chosen guidance does not read, and a guidance that does; `"none"` takes them all."""
        if self.guidance == "none":
            return {}
        own = {one.name for one in fields(GUIDANCE[self.guidance])}
        settings = {one.name for one in fields(self)} - own
        kinds = reversed(GUIDANCE.items())  # so that the first one that reads a setting names it
        return {one.name: other for other, kind in kinds for one in fields(kind) if one.name in settings}

    def objective(self, problem_type: str = SINGLE_LABEL) -> Objective | None:
        """
        The objective that the arguments describe, `None` for plain fine-tuning.

        Args:
            problem_type (`str`, *optional*, defaults to `"single_label_classification"`): of the model.

        Raises:
            `ValueError`: settings that don't fit each other or the problem.
        """
        if self.guidance == "none":
            return None
        objective: Any = GUIDANCE[self.guidance]
        settings = {setting.name: getattr(self, setting.name, None) for setting in fields(objective)}
        return objective(**settings | {"problem_type": problem_type})

    def sage_settings(self, objective: Objective | None = None) -> dict[str, Any]:
        """
        The method's settings, for the `sage` key of a checkpoint's config.json.

        Args:
            objective ([`Objective`], *optional*): what guides; what the arguments describe if not given.
        """
        objective = objective or self.objective()
        # What a model needs to be used, and to be evaluated as its run did, whatever guided it.
        needed = {name: getattr(self, name) for name in ("embedding_layer", "interpolate_pos_encoding", "annotators")}
        if objective is None:
            return {"guidance": "none"} | needed
        names: dict[type, str] = {kind: name for name, kind in GUIDANCE.items()}
        common = ("guidance_interval", "guidance_one_in", "substitution", "view_forward")
        return (
            {"guidance": names.get(type(objective), type(objective).__name__)}
            | describe(objective)
            | {name: getattr(self, name) for name in common}
            | ({"unmarked_classes": self.unmarked_classes} if self.unmarked_classes else {})
            | needed
        )
