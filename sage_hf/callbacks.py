"""What the Trainer must be told as training goes along."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .data.dataset import Augmentation


class EpochCallback(TrainerCallback):
    """Tells the augmentation which epoch it is: `accelerate` tells a dataset only if no sampler asks to be told."""

    def __init__(self, augmentation: Augmentation):
        self.augmentation = augmentation
        self.epoch = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.epoch = int(state.epoch or 0)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Counted here: the state's own epoch stands still over the passes of a short stream.
        self.augmentation.set_epoch(self.epoch)
        self.epoch += 1
