"""A Trainer whose checkpoints are plain and whole: no other run lost, no pickled arguments, every weight loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput
from transformers.utils import CONFIG_NAME, logging

from .checks import check_checkpoint, check_output_dir
from .heads import ADAPTER_CONFIG
from .hub.resuming import fetch_checkpoint, forget_folder, on_hub
from .publishing import PublishingTrainer
from .whole_checkpoints import (
    SCRATCH,
    checkpoint_name,
    complete,
    explaining_a_full_disk,
    is_cut_off,
    remove_old_checkpoints,
    resumed_checkpoint,
)

logger = logging.get_logger(__name__)

LOCAL_PATHS = ("output_dir", "resume_from_checkpoint")
"""Arguments that say where files lie on this machine, which is nobody else's business."""


class CheckpointTrainer(PublishingTrainer):
    """What [`SageTrainer`] does otherwise than [`~transformers.Trainer`] where files are concerned."""

    model_config: PreTrainedConfig
    """The model's config, or what stands for it."""

    _owns_output_dir = False
    """Whether what lies in the output folder is this trainer's own."""

    _writing_checkpoint = False
    """Whether a checkpoint is being written, which lies elsewhere until it is whole."""

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """
        As in `Trainer`; a checkpoint may be on the Hub as well, see [`~sage_hf.hub.resuming.fetch_checkpoint`].

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*): a checkpoint's folder; `True` for the last whole one
                in the output folder; `"auto"` for that, or a start if there is none; or `OWNER/NAME`,
                `OWNER/NAME@REVISION` or `OWNER/NAME/checkpoint-N` on the Hub, unless there is a folder of that name
                here. It is put into the output folder first.
            *args: as in `Trainer`.
            **kwargs: as in `Trainer`.

        Raises:
            `FileExistsError`: the output folder holds another run, and this one doesn't resume it.
            `ValueError`: there is no such checkpoint, it is one of another model, or it was cut off.
            `OSError`: a checkpoint can't be written, the disk being full; earlier ones are left.
            [`PushError`]: the Hub could not be reached.
        """
        if (address := on_hub(resume_from_checkpoint)) is not None:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ValueError("Checkpoints of FSDP and DeepSpeed are not resumed from the Hub: download it first.")
            with self.args.main_process_first(desc="fetching the checkpoint"):
                resume_from_checkpoint = str(
                    fetch_checkpoint(
                        address,
                        Path(str(self.args.output_dir)),
                        best=self.args.load_best_model_at_end,
                        check=lambda folder: check_checkpoint(folder, self.model_config),
                        owned=self._owns_output_dir,
                        api=HfApi(token=self.args.hub_token),
                    )
                )
        resume_from_checkpoint = resumed_checkpoint(resume_from_checkpoint, str(self.args.output_dir))
        if not self._owns_output_dir:
            check_output_dir(self.args.output_dir, resume_from_checkpoint)
        self._owns_output_dir = True
        if self.args.should_save:  # what a killed run was writing or removing
            shutil.rmtree(Path(str(self.args.output_dir)) / SCRATCH, ignore_errors=True)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        # A saved state holds the name of the best checkpoint alone, which Trainer takes for a path and forgets.
        started = super()._init_training_state(*args, **kwargs)
        if self.state.best_model_checkpoint is None and self.state.best_global_step:
            best = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(best) if best.is_dir() else None
            if not best.is_dir() and self.args.load_best_model_at_end:
                logger.warning("%s is not there: the best of the steps from here on is kept.", best)
                self.state.best_metric, self.state.best_global_step = None, 0
        return started

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        check_checkpoint(Path(resume_from_checkpoint), self.model_config)
        try:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            self._load_weights(resume_from_checkpoint)
        except RuntimeError as error:
            if "state_dict" not in str(error):
                raise
            raise ValueError(f"{resume_from_checkpoint} is a checkpoint of another model. {error}") from error

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
        if self._writing_checkpoint:
            self._save_plainly(folder, state_dict)
            return
        with explaining_a_full_disk(folder / "model.safetensors"):
            try:
                self._save_plainly(folder, state_dict)
            except BaseException:
                for file in folder.glob("*.safetensors"):
                    if is_cut_off(file):
                        file.unlink()
                raise

    def _save_plainly(self, folder: Path, state_dict: dict | None) -> None:
        card = folder / "README.md"
        text = card.read_text(encoding="utf-8") if card.is_file() else None
        super()._save(str(folder), state_dict)
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
        if self.is_world_process_zero():
            forget_folder(Path(str(self.args.output_dir)) / TRAINER_STATE_NAME)

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / SCRATCH) if self._writing_checkpoint else folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """
        As in `Trainer`, but a checkpoint has its name once it is whole, and older ones go after that.

        Raises:
            `OSError`: it can't be written, the disk being full; earlier checkpoints are left.
        """
        run_folder = Path(self._get_output_dir(trial))
        written, target = (
            folder / checkpoint_name(self.state.global_step) for folder in (run_folder / SCRATCH, run_folder)
        )
        self._writing_checkpoint = True
        try:
            with explaining_a_full_disk(target):
                super()._save_checkpoint(model, trial)
                self._save_more(written)
                if self.args.should_save:
                    forget_folder(written / TRAINER_STATE_NAME)
        except BaseException:
            if self.args.should_save:
                shutil.rmtree(run_folder / SCRATCH, ignore_errors=True)
            raise
        finally:
            self._writing_checkpoint = False
        self.accelerator.wait_for_everyone()
        with explaining_a_full_disk(target):  # network disks say so when files are flushed
            if self.is_world_process_zero():
                complete(written, target)
            self.accelerator.wait_for_everyone()
            # Another machine has a part of its own, or the same disk, where nothing is left to do. The state tells, as
            # the first alone writes it; of what has gone, a network disk may show for seconds that it is there.
            if self.is_local_process_zero() and not (target / TRAINER_STATE_NAME).is_file():
                try:
                    complete(written, target)
                except FileNotFoundError:
                    if not target.is_dir():
                        raise
        self.accelerator.wait_for_everyone()
        best = run_folder / checkpoint_name(self.state.best_global_step or 0)
        if best.is_dir():
            self.state.best_model_checkpoint = str(best)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(target))
        if self.args.should_save:
            push = getattr(self, "push_in_progress", None)  # there is none before a repository is made
            uploading = self._uploaded if push is not None and not push.is_done() else None
            kept = [one for one in (self.state.best_model_checkpoint, uploading) if one is not None]
            remove_old_checkpoints(target, self.args.save_total_limit, *kept)
            shutil.rmtree(run_folder / SCRATCH, ignore_errors=True)

    def _save_more(self, folder: Path) -> None:
        """What else a checkpoint is to hold; called on every process."""

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self._writing_checkpoint:  # it would move while it is being uploaded
            super()._push_from_checkpoint(checkpoint_folder)
