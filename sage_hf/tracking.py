"""Means of the terms since the last log, kept on the device: no synchronisation until they are asked for."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor


class TermTracker:
    """
    Means over rows of named values, gathered over processes when they are read.

    Example:

    ```python
    >>> import torch
    >>> from accelerate import Accelerator
    >>> from sage_hf.tracking import TermTracker
    >>> tracker = TermTracker(("triplet", "consistency"))
    >>> tracker.add(triplet=torch.tensor([1.0, 2.0]))
    >>> tracker.add(triplet=torch.tensor([6.0]))
    >>> tracker.means(Accelerator(cpu=True))
    {'triplet': 3.0}

    ```
    """

    def __init__(self, names: tuple[str, ...]):
        self.names = names
        self._sums: dict[str, Tensor] = {}

    def add(self, **values: Tensor) -> None:
        """
        Count rows of values, (rows,) each. Names that were not announced raise `KeyError`: every process must gather
        the same ones, whatever its batches held.
        """
        for name, value in values.items():
            if name not in self.names:
                raise KeyError(f"{name!r} is not one of the tracked terms {', '.join(self.names)}.")
            rows = value.detach()
            entry = torch.stack([rows.float().sum(), rows.new_tensor(rows.numel(), dtype=torch.float32)])
            self._sums[name] = self._sums[name] + entry if name in self._sums else entry

    def clear(self) -> None:
        """Forget what was counted."""
        self._sums = {}

    def sums(self, accelerator: Accelerator) -> dict[str, list[float]]:
        """Sum and number of rows of each name so far, over all processes, each of which must call it."""
        return dict(zip(self.names, self._totals(accelerator), strict=True))

    def restore(self, sums: dict[str, list[float]], device: torch.device) -> None:
        """Start from sums that `sums` gave, on one process alone; names that are not tracked are passed over."""
        known = {name: values for name, values in sums.items() if name in self.names}
        self._sums = {name: torch.tensor(values, device=device) for name, values in known.items()}

    def _totals(self, accelerator: Accelerator) -> list[list[float]]:
        nothing = torch.zeros(2, device=accelerator.device)
        sums = torch.stack([self._sums.get(name, nothing) for name in self.names])
        return accelerator.reduce(sums, reduction="sum").tolist()

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """The mean of each name that any process has rows of, and start afresh. Every process must call it."""
        totals = self._totals(accelerator)
        self.clear()
        return {name: total / count for name, (total, count) in zip(self.names, totals, strict=True) if count}
