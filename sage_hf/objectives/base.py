"""What the Trainer asks of an objective: which views to encode, and what to make of their encodings."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Encoding(NamedTuple):
    """What a model makes of a batch of pictures."""

    logits: Tensor
    """(batch, labels)."""
    embedding: Tensor
    """What enters the classification head, (batch, dimension)."""

    def select(self, rows: Tensor) -> Encoding:
        """The encoding of some rows."""
        return Encoding(self.logits[rows], self.embedding[rows])


def describe(objective: Objective) -> dict[str, Any]:
    """The settings of an objective, ready for JSON; a callable by its name. Empty if it is no dataclass."""
    if not is_dataclass(objective):
        return {}
    values = {setting.name: getattr(objective, setting.name) for setting in fields(objective)}
    return {name: _name(value) if callable(value) else value for name, value in values.items()}


def _name(value: Any) -> str:
    """Where a function is defined; of any other callable, such as a module, its type."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


class Objective(Protocol):
    """
    Terms beside the classification loss, for the rows of a batch that have a saliency map.

    An objective holds settings and no parameters; it is given tensors and returns tensors, and never sees the model.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of everything that `terms` returns."""
        ...

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term that takes part in the loss."""
        ...

    @property
    def fewest_rows(self) -> tuple[int, int]:
        """How many rows, and how many annotated rows, a batch needs to be guided."""
        ...

    def views(
        self, pixel_values: Tensor, saliency: Tensor, rows: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """Pictures to encode beside the batch itself, each (len(rows), channels, height, width)."""
        ...

    def terms(self, anchor: Encoding, *views: Encoding) -> dict[str, Tensor]:
        """Named terms and measurements, each (rows,), given the encodings of the annotated rows and of their views."""
        ...
