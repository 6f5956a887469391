"""The loss of an evaluation: a mean over its rows, whatever batches and processes they come in."""

from __future__ import annotations

import accelerate
import torch
from torch import Tensor


class EvaluatedLoss:
    """
    Collects the losses of rows.

    Trainer averages the losses of batches, each as if it were full, and with the rows that fill up the last batch of
    several processes. With weights of classes, each of those losses is divided by the weights of its own batch alone,
    so that sorted rows lose them.
    """

    def __init__(self) -> None:
        self._batch: Tensor | None = None
        self._gathered: list[Tensor] = []

    def start(self) -> None:
        """Forget all rows."""
        self._batch = None
        self._gathered = []

    def keep(self, losses: Tensor, weights: Tensor) -> None:
        """The losses and weights of this process's batch, (rows,) each, for [`EvaluatedLoss.gather`]."""
        self._batch = torch.stack([losses, weights.to(losses)], dim=1)

    def gather(self, accelerator: accelerate.Accelerator) -> None:
        """The batches of all processes, without the rows that fill one up; nothing if none was kept."""
        if self._batch is not None:
            self._gathered.append(accelerator.gather_for_metrics(self._batch))
            self._batch = None

    def mean(self, *, finite_only: bool = False) -> float | None:
        """
        The sum of the losses over the sum of the weights; `None` without rows.

        Args:
            finite_only (`bool`, *optional*, defaults to `False`): leave out rows whose loss is infinite or NaN, unless
                all are, as Trainer does with batches where `logging_nan_inf_filter` is set.
        """
        if not self._gathered:
            return None
        losses, weights = torch.cat(self._gathered).cpu().double().unbind(dim=1)
        finite = losses.isfinite()
        if finite_only and finite.any():
            losses, weights = losses[finite], weights[finite]
        return float(losses.sum() / weights.sum())
