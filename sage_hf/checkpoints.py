"""A Trainer whose checkpoints are plain and whole: no other run lost, no pickled arguments, every weight loaded."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    Trainer,
)
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, SaveStrategy, TrainOutput
from transformers.utils import CONFIG_NAME
from transformers.utils.hub import PushInProgress, hf_api

from .checks import check_output_dir
from .heads import ADAPTER_CONFIG

LOCAL_PATHS = ("output_dir", "resume_from_checkpoint")
"""Arguments that say where files lie on this machine, which is nobody else's business."""

RESUMPTION_FILES = ("optimizer", "scheduler", "scaler", "rng_state", "trainer_state", "callbacks")
"""How the names of those files of a checkpoint begin that only resuming needs."""


class CheckpointTrainer(Trainer):
    """What [`SageTrainer`] does otherwise than [`~transformers.Trainer`] where files are concerned."""

    model_config: PreTrainedConfig
    """The model's config, or what stands for it."""

    _owns_output_dir = False
    """Whether what lies in the output folder is this trainer's own."""

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """
        As in `Trainer`.

        Raises:
            `FileExistsError`: the output folder holds another run, and this one doesn't resume it.
        """
        if not self._owns_output_dir:
            check_output_dir(self.args.output_dir, resume_from_checkpoint)
        self._owns_output_dir = True
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        # A saved state holds the name of the best checkpoint alone, which Trainer takes for a path and forgets.
        started = super()._init_training_state(*args, **kwargs)
        if self.state.best_model_checkpoint is None and self.state.best_global_step:
            best = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(best) if best.is_dir() else None
        return started

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
        """
        Save as `Trainer` does, but the arguments as JSON: a pickle can run code, and holds the Hub token.

        What has no config of its own gets one: a module of the user's, and an adapter, under another name, as
        transformers would take a `config.json` for that of a whole model.
        """
        folder = Path(output_dir or str(self.args.output_dir))
        card = folder / "README.md"
        text = card.read_text(encoding="utf-8") if card.is_file() else None
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            if not isinstance(self.model, PreTrainedModel):
                is_adapter = (folder / "adapter_config.json").is_file()
                self.model_config.to_json_file(folder / (ADAPTER_CONFIG if is_adapter else CONFIG_NAME))
            if text is not None:
                card.write_text(text, encoding="utf-8")  # peft writes a card of its own, over any other
            elif card.is_file():
                card.unlink()
            (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
            arguments = {name: value for name, value in self.args.to_dict().items() if name not in LOCAL_PATHS}
            (folder / "training_args.json").write_text(json.dumps(arguments, indent=2) + "\n")

    def save_state(self) -> None:
        """Save the Trainer's state as `Trainer` does, without the path of the output folder."""
        super().save_state()
        if self.args.should_save:
            _forget_folder(Path(str(self.args.output_dir)) / TRAINER_STATE_NAME)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            checkpoint = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            _forget_folder(Path(self._get_output_dir(trial)) / checkpoint / TRAINER_STATE_NAME)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """
        Push a checkpoint while training goes on, as `Trainer` does, with a fresh card.

        Not `Trainer`'s own method: it pickles the arguments, Hub token included, into what it uploads.
        """
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if busy and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        _forget_folder(Path(checkpoint_folder) / TRAINER_STATE_NAME)
        output_dir = Path(str(self.args.output_dir))
        for path in Path(checkpoint_folder).iterdir():
            if path.is_file() and not path.name.startswith(RESUMPTION_FILES):
                shutil.copy(path, output_dir / path.name)
        self.create_model_card(model_name=output_dir.resolve().name)

        by_step = self.args.save_strategy == SaveStrategy.STEPS
        progress = f"step {self.state.global_step}" if by_step else f"epoch {int(self.state.epoch or 0)}"
        upload = partial(
            hf_api().upload_folder,
            repo_id=self.hub_model_id,
            token=self.args.hub_token,
            revision=self.args.hub_revision,
            run_as_future=True,
        )
        message = f"Training in progress, {progress}"
        ignored = ["_*", f"{PREFIX_CHECKPOINT_DIR}-*"]
        jobs = [upload(folder_path=output_dir, commit_message=message, ignore_patterns=ignored)]
        if self.args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            last_only = self.args.hub_strategy == HubStrategy.CHECKPOINT
            where = "last-checkpoint" if last_only else Path(checkpoint_folder).name
            jobs.append(
                upload(folder_path=checkpoint_folder, path_in_repo=where, commit_message=f"{message}, checkpoint")
            )
        in_progress: Any = self.push_in_progress
        if busy:
            in_progress.jobs.extend(jobs)
        else:
            in_progress = PushInProgress(jobs)  # type: ignore[arg-type]  # it takes a list, as Trainer gives it
        self.push_in_progress = in_progress


def _forget_folder(state_file: Path) -> None:
    """Leave the name of the best checkpoint in a saved state, not the path of the folder that it lies in."""
    state = json.loads(state_file.read_text())
    if state.get("best_model_checkpoint"):
        state["best_model_checkpoint"] = Path(state["best_model_checkpoint"]).name
        state_file.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n")
