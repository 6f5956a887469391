"""Training rows that can't be used: left out of their batch and named, or an error, as the user wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

ON_ERROR = ("raise", "skip")
"""What becomes of a training row that can't be read."""

PLACE, REASON = "row_place", "row_refused"
"""Keys of a training row: its place in the dataset, and why it can't be used, in the place of all its inputs."""

PLACES, REFUSED = "row_places", "rows_refused"
"""Keys of a training batch: the places of its rows, (rows, numbers a place), and (place, reason) of those left out."""


class RowCollator:
    """
    Lets a collator see the rows that can be used, without their places, which stay in the batch beside what it makes.

    A batch of rows that can't be used, all of them, has `rows_refused` alone.

    Args:
        collator (`Callable`): makes a batch of rows.

    Example:

    ```python
    >>> from sage_hf.data.unusable import PLACE, REASON, RowCollator
    >>> rows = [{"x": 1.0, PLACE: [4]}, {PLACE: [9], REASON: "row 9: the picture can't be read"}]
    >>> RowCollator(lambda rows: {"x": torch.tensor([row["x"] for row in rows])})(rows)
    {'x': tensor([1.]), 'row_places': tensor([[4]]), 'rows_refused': [([9], "row 9: the picture can't be read")]}

    ```
    """

    def __init__(self, collator: Callable[[list[dict[str, Any]]], dict[str, Any]]):
        self.collator = collator

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        if not isinstance(rows[0], dict) or PLACE not in rows[0]:
            return self.collator(rows)
        refused = [(row[PLACE], row[REASON]) for row in rows if REASON in row]
        usable = [row for row in rows if REASON not in row]
        batch: dict[str, Any] = {}
        if usable:
            batch = dict(self.collator([{key: row[key] for key in row if key != PLACE} for row in usable]))
            batch[PLACES] = torch.tensor([row[PLACE] for row in usable])
        return batch | ({REFUSED: refused} if refused else {})
