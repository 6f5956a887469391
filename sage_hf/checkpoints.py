"""A Trainer whose checkpoints are plain and whole: no other run lost, no pickled arguments, every weight loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import TrainOutput

from .checks import check_output_dir

LOCAL_PATHS = ("output_dir", "resume_from_checkpoint")
"""Arguments that say where files lie on this machine, which is nobody else's business."""


class CheckpointTrainer(Trainer):
    """What [`SageTrainer`] does otherwise than [`~transformers.Trainer`] where files are concerned."""

    _owns_output_dir = False
    """Whether what lies in the output folder is this trainer's own."""

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """
        As in `Trainer`.

        Raises:
            `FileExistsError`: the output folder holds another run, and this one doesn't resume it.
        """
        if not resume_from_checkpoint and not self._owns_output_dir:
            check_output_dir(self.args.output_dir)
        self._owns_output_dir = True
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_weights(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._load_weights(str(self.state.best_model_checkpoint))

    def _loads_whole_models(self) -> bool:
        return isinstance(self.model, PreTrainedModel) and not self.is_fsdp_enabled and not self.is_deepspeed_enabled

    def _load_weights(self, folder: str) -> None:
        """
        Load what `save_pretrained` wrote, every tensor of it.

        `Trainer` loads the file's tensors by name. Many models (ViT among them) are saved under the names of older
        versions, which only `from_pretrained` translates: all others would silently keep the weights they have
        (https://github.com/huggingface/transformers/issues/43701).
        """
        if self._loads_whole_models():
            model: Any = self.model
            model.load_state_dict(type(model).from_pretrained(folder).state_dict())

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # The names that `Trainer` did not find are loaded by `_load_weights`, which insists on all of them.
        if not self._loads_whole_models():
            super()._issue_warnings_after_load(load_result)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save as `Trainer` does, but the arguments as JSON: a pickle can run code, and holds the Hub token."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
            arguments = {name: value for name, value in self.args.to_dict().items() if name not in LOCAL_PATHS}
            (folder / "training_args.json").write_text(json.dumps(arguments, indent=2) + "\n")
