"""A Trainer that trains from streams: processes end together, no row is lost or doubled, and a resumption is exact."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.data_loader import prepare_data_loader
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerControl, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import seed_worker

from .checkpoints import CheckpointTrainer
from .data.preparation import Preparation
from .data.saliency import DataError
from .data.streams import SkippingCollator, StreamedDataset
from .training_args import SageTrainingArguments

IDLE = "idle"
"""Key of a batch whose rows don't count."""


class StreamTrainer(CheckpointTrainer):
    """
    What [`SageTrainer`] does otherwise than [`~transformers.Trainer`] where training data are streamed.

    An epoch is a pass over the stream: each row once, over all processes and workers. Every process, and each worker
    of it, fills its batches from its own rows, so that the last ones of a pass may be short; an optimizer step takes a
    batch (with accumulation, several) of each process. Processes with fewer rows than others end a pass by running
    batches that count for nothing, until all have come to its end.
    """

    args: SageTrainingArguments
    preparation: Preparation
    _steps_by_rows = False
    """Whether `max_steps` follows from the rows of a stream, rather than being the user's."""
    _idle_batch: dict[str, Any] | None = None

    # ---- Length ----

    def _bound_steps(self, dataset: Any) -> None:
        """
        Set `max_steps` to what `num_train_epochs` passes over a stream take, if the user has set none.

        Raises:
            [`DataError`]: how many rows the stream has isn't known.
        """
        if self._steps_by_rows:
            self.args.max_steps = -1
        self._steps_by_rows = isinstance(dataset, StreamedDataset) and self.args.max_steps <= 0
        if self._steps_by_rows:
            steps = dataset.steps(self.args.train_batch_size, self.args.gradient_accumulation_steps)
            if steps is None:
                raise DataError(f"{dataset.name}: it isn't known how many rows the stream has. Set max_steps.")
            self.args.max_steps = math.ceil(self.args.num_train_epochs * steps)

    # ---- Loader ----

    def get_train_dataloader(self) -> DataLoader:
        """As in `Trainer`; of a stream, each process decodes its own rows alone."""
        dataset, args = self.train_dataset, self.args
        if not isinstance(dataset, StreamedDataset):
            return super().get_train_dataloader()
        self._idle_batch = None
        loader: DataLoader = DataLoader(
            dataset,
            batch_size=self._train_batch_size,
            collate_fn=SkippingCollator(self.data_collator),
            drop_last=args.dataloader_drop_last,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            prefetch_factor=args.dataloader_prefetch_factor,
            in_order=args.dataloader_in_order,
            worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
        )
        # The dataset is split already: accelerate would have one process read for all, or split it a second time.
        return prepare_data_loader(
            loader,
            self.accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=self.accelerator.device_placement,
            dispatch_batches=False,
            non_blocking=self.accelerator.non_blocking,
        )

    def _end_together(self, batches: list[Any], num_batches: int, rows: Tensor) -> list[Any]:
        """
        A step's batches of a stream with idle ones to take the place of those that are missing, or none if all
        processes have come to the end of the pass.

        Args:
            batches (`list[dict]`): of this process.
            num_batches (`int`): how many a step takes.
            rows (`torch.Tensor`): of all processes in this step, ().
        """
        if len(batches) == num_batches:
            return batches
        if not rows.item():
            self.control.should_epoch_stop = True
            return []
        return batches + [self._batch_of_nothing()] * (num_batches - len(batches))

    def _batch_of_nothing(self) -> dict[str, Any]:
        if self._idle_batch is None:
            # Not a batch that was trained on: a resumed process may have none left. Two rows, which batch
            # normalisation asks for.
            dataset: Any = self.train_dataset
            self._idle_batch = self.data_collator([dataset.first_row()] * 2) | {IDLE: True}
        return self._idle_batch

    # ---- Epochs ----

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Streams are told by `accelerate`, all others only if no sampler asks to be told.
        self.preparation.augmentation.set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, num_train_epochs: int, resume: str | None, trial: Any
    ) -> tuple[int, int]:
        started = super()._init_training_state(max_steps, num_update_steps_per_epoch, num_train_epochs, resume, trial)
        if not isinstance(self.train_dataset, StreamedDataset):
            return started
        state_file = Path(resume or "") / TRAINER_STATE_NAME
        if resume is not None and state_file.is_file():
            # Trainer takes all steps for one pass, and so would skip into the first one whatever it has to.
            saved = TrainerState.load_from_json(str(state_file))
            started = _place_in_stream(saved, self.args.gradient_accumulation_steps)
            if self.args.ignore_data_skip:
                started = started[0], 0
        self.train_dataset.skip(*started, batch_size=self._train_batch_size)
        return started


def _place_in_stream(state: TrainerState, accumulation_steps: int) -> tuple[int, int]:
    """
    Passes that were completed, and batches of the pass that was begun.

    Of data without a length, Trainer saves as the epoch the number of passes, plus the batches of this pass as a share
    of all steps' batches, which is above 0, and 1 at most. That a pass has ended is for its control alone to say.
    """
    epoch = float(state.epoch or 0)
    passes = max(0, math.ceil(epoch) - 1)
    saved: Any = state.stateful_callbacks or {}  # a dict, once it is read from a file
    if saved.get(TrainerControl.__name__, {}).get("args", {}).get("should_epoch_stop"):
        return passes + 1, 0
    return passes, round((epoch - passes) * state.max_steps * accumulation_steps)
