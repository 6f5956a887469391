"""Pictures for experiment trackers: what the objective makes of held-out pictures, at each evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from .data.saliency import DataError
from .pictured import VIEW_HEADERS, annotated_rows, draw_objective

logger = logging.get_logger(__name__)

NAME = "eval/views"
"""What trackers call the pictures; transformers calls the figures beside them `eval/...`."""

CAPTION = "Evaluated pictures, their maps, and the views that the objective makes of them."


def _to_tensorboard(tracker: Any, image: Image.Image, step: int) -> None:
    if tracker.tb_writer is not None:
        tracker.tb_writer.add_image(NAME, np.asarray(image), step, dataformats="HWC")
        tracker.tb_writer.flush()


def _to_trackio(tracker: Any, image: Image.Image, step: int) -> None:
    trackio = tracker._trackio
    trackio.log({NAME: trackio.Image(image, caption=CAPTION), "train/global_step": step})


def _to_wandb(tracker: Any, image: Image.Image, step: int) -> None:
    wandb = tracker._wandb
    wandb.log({NAME: wandb.Image(image, caption=CAPTION), "train/global_step": step})


SENDERS: dict[str, Callable[[Any, Image.Image, int], None]] = {
    "TensorBoardCallback": _to_tensorboard,
    "TrackioCallback": _to_trackio,
    "WandbCallback": _to_wandb,
}
"""By the name of transformers' callback for a tracker, which holds the open run or writer."""


class PictureCallback(TrainerCallback):
    """
    Logs a grid of evaluated pictures, their maps and their views at each evaluation, to the trackers that `report_to`
    names: trackio, tensorboard, wandb.

    [`SageTrainer`] adds it. It does nothing without one of these trackers, without guidance by views (`"sage"`,
    `"augment"`), without maps in the evaluation dataset, and with `tracked_pictures=0`. The model is not asked, and
    no random number of the training is drawn: the views follow from the seed and the step.

    Args:
        trainer ([`SageTrainer`]): whose evaluation dataset is drawn.
    """

    def __init__(self, trainer: Any):
        self._trainer = trainer
        self._rows: list[dict[str, Any]] | None = None
        self._step = -1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the rows of an earlier training: the user may have changed the dataset."""
        self._rows, self._step = None, -1

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw and send, once a step, on the main process."""
        trainer, objective = self._trainer, self._trainer.guidance_objective
        trackers = [one for one in trainer.callback_handler.callbacks if type(one).__name__ in SENDERS]
        count = trainer.args.tracked_pictures
        drawable = isinstance(objective, tuple(VIEW_HEADERS))
        if not (trackers and count and drawable and state.is_world_process_zero) or state.global_step == self._step:
            return
        self._step = state.global_step
        # Reading rows must not move what training draws from the global generators.
        numbers = np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            image = self._draw(count)
        np.random.set_state(numbers)
        if image is None:
            return
        for tracker in trackers:
            SENDERS[type(tracker).__name__](tracker, image, state.global_step)

    def _draw(self, count: int) -> Image.Image | None:
        trainer, objective = self._trainer, self._trainer.guidance_objective
        fewest = max(objective.fewest_rows)
        try:
            if self._rows is None:
                self._rows = self._read(max(count, fewest))
            if len(self._rows) < max(1, fewest):
                return None
            generator = torch.Generator().manual_seed(
                int(np.random.SeedSequence((trainer.args.seed, self._step)).generate_state(1)[0])
            )
            return draw_objective(objective, self._rows, count, trainer.processing_class, generator)[0]
        except DataError as error:
            # What only the pictures need must not end a training.
            logger.warning("tracked_pictures: no pictures for the trackers, because %s", error)
            self._rows = []
            return None

    def _read(self, count: int) -> list[dict[str, Any]]:
        """Of the first evaluation dataset that has maps."""
        evaluated = self._trainer.raw_eval_dataset
        for split in evaluated.values() if isinstance(evaluated, dict) else [evaluated]:
            rows = annotated_rows(self._trainer.preparation, split, count) if split is not None else []
            if rows:
                return rows
        logger.info("tracked_pictures: the evaluation dataset has no maps, so trackers get no pictures.")
        return []
