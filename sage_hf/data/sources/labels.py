"""Labels as they stand in a table, a folder's name or an annotation."""

from __future__ import annotations

import json
import math
from typing import Any

from ...problem_types import MULTI_LABEL, PROBLEM_TYPES, REGRESSION
from ..saliency import DataError
from .rows import Label
from .tables import text_of


def check_problem_type(problem_type: str) -> None:
    """
    Raises:
        `ValueError`: there is no such problem type.
    """
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"Unknown problem_type {problem_type!r}. Choose one of {', '.join(PROBLEM_TYPES)}.")


def parse_label(value: Any, problem_type: str) -> Label:
    """
    A label from a cell.

    Args:
        value: a class name; a number for a regression; several class names as a list, as a JSON list in text, or as
            text with `|` between them. No text at all is an empty list of classes.
        problem_type (`str`): single- or multi-label classification or regression.

    Returns:
        `str`, `float` or `tuple[str, ...]` (each class once, in order).

    Raises:
        [`~sage_hf.data.DataError`]: no label, or another kind of one.

    Example:

    ```python
    >>> from sage_hf.data.sources.labels import parse_label
    >>> parse_label("rust | miner", "multi_label_classification")
    ('rust', 'miner')
    >>> parse_label("0.25", "regression")
    0.25

    ```
    """
    if problem_type == MULTI_LABEL:
        names = [text_of(name) for name in _list(value)]
        if "" in names:
            raise DataError(f"one of its classes has no name: {str(value)[:80]!r}.")
        return tuple(dict.fromkeys(names))
    if isinstance(value, (list, tuple, dict)):
        raise DataError(f"{str(value)[:80]!r} is several labels: that is --problem-type {MULTI_LABEL}.")
    if problem_type != REGRESSION:
        name = text_of(value)
        if not name:
            raise DataError("it has no class.")
        return name
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError("it has no number.")
    number = number_of(value)
    if number is None:
        raise DataError(f"{str(value)[:80]!r} is no finite number.")
    return number


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return list(value)
    text = text_of(value)
    if not text.startswith("["):
        return [name.strip() for name in text.split("|")] if text else []
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"{text[:80]!r} is no JSON list of classes.") from None
    return names


def number_of(value: Any) -> float | None:
    """A finite number from a cell, or `None` if it holds something else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
