"""A Trainer that survives: bad rows, losses that are no numbers, SIGTERM, and being killed between two logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from .counting import StepCounts
from .data.unusable import REFUSED, RowCollator
from .data_wait import DataWait
from .loss_watch import CHECK_EVERY, LossWatch
from .preemption import SaveOnSigterm, spare_workers
from .streaming import StreamTrainer
from .tracking import TermTracker

logger = logging.get_logger(__name__)

PROGRESS = "trainer_progress.json"
"""What of a checkpoint says what was counted and not yet logged."""

TOLD = 10
"""Rows that can't be used of which a process tells as it meets them; the others are counted."""

KEPT = 100
"""Reasons that the record of a run keeps."""


class SurvivingTrainer(StreamTrainer):
    """What [`SageTrainer`] does otherwise than [`~transformers.Trainer`] where something goes wrong."""

    _terms: TermTracker
    _rows_seen: Tensor
    """[`StepCounts`] of all processes since training started, as integers: float32 ends counting at 16.7 million."""
    _watch: LossWatch
    _refused: dict[tuple[int, ...], str]
    """Training rows that were left out, by place, and why; on the first process those of all, since the last log."""
    _resumed_from: str | None = None
    _preemption: SaveOnSigterm
    _data_wait: DataWait

    def _survive(self) -> None:
        """To be called when the Trainer has been made."""
        self._refused = {}
        self._watch = LossWatch(self.accelerator, self._name_row)
        self._preemption = SaveOnSigterm(self.accelerator)
        self._data_wait = DataWait()
        self.add_callback(_Restore(self))
        self.add_callback(self._data_wait)
        self.add_callback(self._preemption)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """
        As in `Trainer`, and see [`CheckpointTrainer`]; what an earlier call left unlogged is forgotten.

        Raises:
            [`LossError`]: the loss or its gradient is no number any more.
            [`DataError`]: a row can't be used, and `on_error` is `"raise"`.
            [`~sage_hf.preemption.Preempted`]: SIGTERM came; a checkpoint is saved.
        """
        self._terms.clear()
        self._watch.clear()
        self._refused = {}
        self._rows_seen.zero_()
        self._data_wait.start()
        with self._preemption.listening():
            return super().train(*args, **kwargs)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> TrainOutput:
        self._watch.check()
        self._gather_refused()
        if self.args.push_to_hub:
            self._finish_current_push()  # Trainer removes checkpoints first, and the last one may be on its way
        return super()._finalize_training(*args, **kwargs)

    # ---- Losses that are no numbers ----

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        control = self.control
        waits = control.should_log or control.should_evaluate or control.should_save
        if waits or self.state.global_step % CHECK_EVERY == 0:
            self._watch.check()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        # In half precision with scaled losses, steps with infinite gradients are part of the method.
        if isinstance(norm, Tensor) and self.accelerator.scaler is None:
            self._watch.add_gradient(self.state.global_step + 1, norm)
        return norm

    def _name_row(self, place: list[int]) -> str:
        name_row = getattr(self.train_dataset, "name_row", None)
        return str(place) if name_row is None else str(name_row(place))

    # ---- Rows that can't be used ----

    def get_train_dataloader(self) -> DataLoader:
        """As in `Trainer`; batches know where their rows come from, and go without those that can't be used."""
        collator = self.data_collator
        self.data_collator = RowCollator(collator)
        try:
            return spare_workers(super().get_train_dataloader())
        finally:
            self.data_collator = collator

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        """As in `Trainer`; SIGTERM for all processes of a job ends no worker."""
        return spare_workers(super().get_eval_dataloader(*args, **kwargs))

    def get_test_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        """As in `Trainer`; SIGTERM for all processes of a job ends no worker."""
        return spare_workers(super().get_test_dataloader(*args, **kwargs))

    def _set_refused_aside(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """
        Batches without what can't be used; one of which nothing is left counts for nothing.

        So every process takes as many steps as it would have taken.
        """
        kept = []
        for batch in batches:
            for place, reason in batch.pop(REFUSED, ()):
                if tuple(place) in self._refused:  # in an earlier epoch
                    continue
                if len(self._refused) < TOLD:
                    logger.warning("Left out: %s", reason)
                    if len(self._refused) == TOLD - 1:
                        logger.warning("Further rows that can't be used are counted alone.")
                self._refused[tuple(place)] = reason if len(self._refused) < KEPT else ""
            kept.append(batch or self._batch_of_nothing())
        return kept

    def _gather_refused(self) -> None:
        """To be called on every process."""
        if self.args.on_error == "skip" and self.accelerator.num_processes > 1:
            for refused in gather_object([self._refused]):
                self._refused = refused | self._refused

    def skipped_rows(self) -> dict[str, Any] | None:
        """
        What was left out of training so far, as the run's record keeps it; `None` if nothing was.

        Returns:
            `dict`: `rows`, how many different ones; `times`, how often one of them had its turn, over all epochs and
            processes; `reasons`, of 100 rows at most.
        """
        times = int(StepCounts(*self._rows_seen.tolist()).refused)
        if not times:
            return None
        reasons = [self._refused[place] for place in sorted(self._refused) if self._refused[place]]
        return {"rows": len(self._refused), "times": times, "reasons": reasons[:KEPT]}

    def annotated_share(self) -> float | None:
        """Share of the rows trained on so far that had a map, in [0, 1]; `None` if no maps were read."""
        seen = StepCounts(*self._rows_seen.tolist())
        if not self.preparation.guided or not seen.rows:
            return None
        return float(seen.annotated / seen.rows)

    # ---- Logging ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """
        Log, with the means of the terms since the last training log where the training loss is logged, and the share
        of the time that went by waiting for data, see [`~sage_hf.data_wait.DataWait`].
        """
        if "loss" in logs:
            logs |= self._terms.means(self.accelerator)
            if (share := self._data_wait.share(self.accelerator)) is not None:
                logs["data_wait"] = round(share, 4)
                self._data_wait.hint(share, self.args.dataloader_num_workers)
            if self.args.on_error == "skip":
                self._gather_refused()
                logs["skipped_rows"] = int(StepCounts(*self._rows_seen.tolist()).refused)
        super().log(logs, start_time)

    # ---- Killed between two logs ----

    def _init_training_state(self, max_steps: int, updates: int, epochs: int, resume: str | None, trial: Any) -> Any:
        self._resumed_from = resume
        started = super()._init_training_state(max_steps, updates, epochs, resume, trial)
        # Trainer looks whether it is done after a step, and would take one more.
        return (epochs, 0) if self.state.global_step >= max_steps else started

    def _save_more(self, folder: Path) -> None:
        """Keep what was summed up since the last log: a resumed run logs the same as one that was not killed."""
        super()._save_more(folder)
        self._gather_refused()
        progress = {
            "loss": self.accelerator.reduce(self._tr_loss.detach().clone(), reduction="mean").item(),
            "logged_step": self._globalstep_last_logged,
            "terms": self._terms.sums(self.accelerator),
            "rows_seen": self._rows_seen.tolist(),
            "refused": [[list(place), reason] for place, reason in self._refused.items()],
        }
        if self.args.should_save:
            (folder / PROGRESS).write_text(json.dumps(progress) + "\n", encoding="utf-8")

    def _restore_progress(self) -> None:
        file = Path(self._resumed_from or "") / PROGRESS
        if self._resumed_from is None or not file.is_file():  # one of another version, or of plain Trainer
            return
        progress = json.loads(file.read_text(encoding="utf-8"))
        self._tr_loss.fill_(progress["loss"])
        # The mean loss of this call is of its own steps.
        self._total_loss_scalar = -progress["loss"]
        self._globalstep_last_logged = progress["logged_step"]
        if self.is_world_process_zero():
            self._terms.restore(progress["terms"], self.accelerator.device)
        self._rows_seen = torch.tensor(progress["rows_seen"], dtype=torch.int64, device=self.args.device)
        self._refused = {tuple(place): reason for place, reason in progress["refused"]}


class _Restore(TrainerCallback):
    """Takes up the sums of a killed run once Trainer has set its own to zero."""

    def __init__(self, trainer: SurvivingTrainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer._restore_progress()
