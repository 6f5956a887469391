"""How much of training's time goes by waiting for data."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from transformers import TrainerCallback
from transformers.utils import logging

logger = logging.get_logger(__name__)

HINT_SHARE = 0.25
"""Share of waiting from which on it is told of."""

HINT_SECONDS = 30.0
"""Seconds that must have gone by waiting before it is told of: what costs less is not worth a change."""


class DataWait(TrainerCallback):
    """
    Measures the share of training's time that goes by waiting for the data loader.

    Measured are optimizer steps, from asking for their batches to their end, without logging, evaluation and saving;
    and without the first step of a training, which waits for workers to start. On an accelerator it is the share of
    the process's time: where that runs ahead of the device, the device may have been busy meanwhile, so a small share
    is good, and a large one a reason to look.

    Warns once of a large share that has cost some time, and of what helps.

    Args:
        clock (`Callable`, *optional*): gives seconds.

    Example:

    ```python
    >>> from accelerate import Accelerator
    >>> from sage_hf.data_wait import DataWait
    >>> seconds = iter([0.0, 5.0, 6.0, 10.0, 13.0, 14.0])
    >>> wait = DataWait(clock=lambda: next(seconds))
    >>> batches = iter("ab")
    >>> for step in range(2):
    ...     batch, _ = wait.fetch(batches, 1), wait.end_step()
    >>> wait.share(Accelerator(cpu=True))  # the second step: 3 of 4 seconds
    0.75

    ```
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self.start()

    def start(self) -> None:
        """Forget what was measured; the next step is a training's first one."""
        self._first, self._told = True, False
        self._asked: float | None = None
        self._waited = self._spent = self._waited_in_all = 0.0
        self._waiting = 0.0

    def fetch(self, batches: Iterator[Any], count: int) -> list[Any]:
        """The next batches, as many as there are of `count`; the time until they are there is waiting."""
        self._asked = self._clock()
        fetched = list(itertools.islice(batches, count))
        self._waiting = self._clock() - self._asked
        return fetched

    def end_step(self) -> None:
        """An optimizer step has ended; of those that fetched nothing, nothing is counted."""
        if self._asked is None:
            return
        spent = self._clock() - self._asked
        if not self._first:
            self._waited += self._waiting
            self._waited_in_all += self._waiting
            self._spent += spent
        self._first, self._asked = False, None

    def share(self, accelerator: Accelerator) -> float | None:
        """
        The share of waiting, in [0, 1], since this was last asked for, of the process that waited most: the others
        wait for that one. Every process must call it. `None` if no process has measured a step.
        """
        measured = torch.tensor(
            [self._waited / self._spent if self._spent > 0 else -1.0], dtype=torch.float32, device=accelerator.device
        )
        self._waited = self._spent = 0.0
        largest = float(accelerator.gather(measured).max())
        return largest if largest >= 0 else None

    def hint(self, share: float, workers: int) -> None:
        """Warn once of a share of waiting that is large and has cost some time."""
        if self._told or share < HINT_SHARE or self._waited_in_all < HINT_SECONDS:
            return
        self._told = True
        advice = (
            "set dataloader_num_workers to the number of processor cores that are free"
            if workers == 0
            else f"raise dataloader_num_workers (now {workers}) if processor cores are free, and set "
            "dataloader_persistent_workers"
        )
        logger.warning(
            "%.0f %% of the training time since the last log went by waiting for data (data_wait in the log). To wait "
            "less, %s, or store smaller pictures.",
            100 * share,
            advice,
        )

    # ---- Called by Trainer ----

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.end_step()
