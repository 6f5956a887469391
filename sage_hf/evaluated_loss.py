"""The loss of an evaluation: a mean over its rows, whatever batches and processes they come in."""

from __future__ import annotations

import accelerate
import torch
from torch import Tensor


class EvaluatedLoss:
    """
    Collects the losses of the rows of one evaluation.

    Trainer averages the losses of batches, each as if it were full, and with the rows that fill up the last batch of
    several processes. With weights of classes, each of those losses is divided by the weights of its own batch alone,
    so that sorted rows lose them.
    """

    def __init__(self) -> None:
        self._batch: tuple[Tensor, Tensor] | None = None
        self._gathered: list[Tensor] = []
        self._others: list[Tensor] = []

    def keep(self, losses: Tensor, weights: Tensor, loss: Tensor) -> None:
        """
        The rows of this process's batch, for [`EvaluatedLoss.gather`].

        Args:
            losses (`torch.Tensor`): times the weights, (rows,).
            weights (`torch.Tensor`): (rows,).
            loss (`torch.Tensor`): the batch's, ().
        """
        self._batch = torch.stack([losses, weights.to(losses)], dim=1), loss

    def gather(self, accelerator: accelerate.Accelerator, reported: Tensor | None) -> None:
        """
        The batches of all processes, without the rows that fill one up; nothing if none was kept.

        Args:
            accelerator (`accelerate.Accelerator`): that gathers.
            reported (`torch.Tensor`): the loss of the batch that goes to Trainer, (). Where it is another one than was
                kept, since somebody has added to it, rows can't tell what the mean is.
        """
        if self._batch is not None:
            rows, loss = self._batch
            other = torch.isclose(loss if reported is None else reported.to(loss), loss, equal_nan=True).logical_not()
            self._others.append(other)
            self._gathered.append(accelerator.gather_for_metrics(rows))
            self._batch = None

    def mean(self, *, finite_only: bool = False) -> float | None:
        """
        The sum of the losses over the sum of the weights; `None` without rows, or if they can't tell.

        Args:
            finite_only (`bool`, *optional*, defaults to `False`): leave out rows whose loss is infinite or NaN, unless
                all are, as Trainer does with batches where `logging_nan_inf_filter` is set.
        """
        if not self._gathered or torch.stack(self._others).any():
            return None
        losses, weights = torch.cat(self._gathered).cpu().double().unbind(dim=1)
        finite = losses.isfinite()
        if finite_only and finite.any():
            losses, weights = losses[finite], weights[finite]
        return float(losses.sum() / weights.sum())
