"""What can be known to go wrong before training starts: the model and the output folder."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from .forwarding import has_batch_norm
from .objectives import Objective
from .training_args import SageTrainingArguments

RUN_FILES = ("config.json", "model.safetensors", "model.safetensors.index.json", "trainer_state.json", "checkpoint-*")
"""What a run leaves behind."""


def check_output_dir(output_dir: str | Path | None, resume_from_checkpoint: str | bool | None = None) -> None:
    """
    Refuse a folder that holds another run.

    Args:
        output_dir (`str` or `Path`, *optional*): the folder.
        resume_from_checkpoint (`str` or `bool`, *optional*): what training resumes from. A run may go on in its own
            folder, so `True` and a checkpoint in `output_dir` are fine; a checkpoint from elsewhere is another run.

    Raises:
        `FileExistsError`: the message names what was found.
    """
    if output_dir is None or resume_from_checkpoint is True:
        return
    if resume_from_checkpoint and Path(resume_from_checkpoint).resolve().parent == Path(output_dir).resolve():
        return
    found = sorted(path.name for pattern in RUN_FILES for path in Path(output_dir).glob(pattern))
    if found:
        raise FileExistsError(
            f"{output_dir} already holds a run ({', '.join(found[:4])}{', ...' if len(found) > 4 else ''}). Choose "
            "another output_dir, resume with resume_from_checkpoint=True, or move the old run away."
        )


def check_model(model: nn.Module, args: SageTrainingArguments, objective: Objective | None) -> None:
    """
    Refuse a model or a setting that would train wrongly.

    Raises:
        `ValueError`: the message says what doesn't go together.
    """
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "num_labels"):
        raise ValueError(
            f"{type(model).__name__} has no config with num_labels; pass a transformers classification model."
        )
    if config.problem_type not in (None, "single_label_classification") or config.num_labels < 2:
        raise ValueError(
            f"Only single-label classification with two or more classes can be trained, this model has problem_type="
            f"{config.problem_type!r} and {config.num_labels} labels."
        )
    if objective is None:
        return
    batch_size = args.per_device_train_batch_size
    if batch_size < max(objective.fewest_rows):
        raise ValueError(
            f"per_device_train_batch_size={batch_size} is too small: shuffling needs another row of the batch. Use 2 "
            "or more, or degradation='blur', 'noise' or 'mean'."
        )
    normalises_batches = has_batch_norm(model)
    separate = args.view_forward == "separate" or (args.view_forward == "auto" and normalises_batches)
    if args.activation_checkpointing and normalises_batches and separate:
        raise ValueError(
            f"{type(model).__name__} has batch normalisation: recomputing activations in the backward pass would let "
            "the views into the running statistics. Turn activation_checkpointing off, or use "
            "view_forward='concatenated'."
        )
