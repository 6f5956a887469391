"""What is known of a row that is looked at, and which rows are the worst."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..data.labels import class_names_of, inner_feature
from ..problem_types import MULTI_LABEL, REGRESSION

VIEWS = ("anchor", "positive", "negative")
"""x, x+ and x-."""

Label = str | list[str] | float | list[float] | None
"""A class, several, a number or several, or none."""


@dataclass
class Prediction:
    """
    What a model says of a picture.

    Args:
        label (`str`, `list[str]`, `float` or `list[float]`): the class; those that it takes for present, from a
            probability of one half on; or the numbers of a regression.
        confidence (`float`, *optional*): the probability of the class, in [0, 1], where it is one.
    """

    label: Label
    confidence: float | None = None


@dataclass
class ModelRecord:
    """
    What a model makes of a row.

    Args:
        model (`str`): its name.
        predictions (`dict[str, Prediction]`): by view: `"anchor"` (x) and, of a row with a map, `"positive"` (x+) and
            `"negative"` (x-).
        probabilities (`dict[str, dict[str, float]]`): by view, of the classes that any model predicts for any view, or
            that the row is labelled with; empty for a regression.
        correct (`bool`, *optional*): whether the prediction is the label; `None` without a label, of a class that the
            model doesn't know, and for a regression.
        label_error (`float`, *optional*): one minus the probability of the label, in [0, 1], a mean over several
            labels; of a regression the mean absolute error. `None` where it can't be known.
        moved (`dict[str, float]`): by view, how much probability the view moves: half the sum of absolute differences
            to x, in [0, 1], a mean over several labels; of a regression the mean absolute difference.
        alignment (`dict[str, dict[str, float]]`): by method, the figures of
            [`~sage_hf.evaluation.SaliencyAlignment`] of where it looks against the row's map.
    """

    model: str
    predictions: dict[str, Prediction]
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    correct: bool | None = None
    label_error: float | None = None
    moved: dict[str, float] = field(default_factory=dict)
    alignment: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class RowRecord:
    """
    A row and what models make of it.

    Args:
        row (`int`): its index in the split.
        label: the names of its classes, or its numbers; `None` without.
        has_map (`bool`): whether it has a map that marks anything within the models' sight.
        models (`list[ModelRecord]`): in the order of the models.
        difference (`float`, *optional*): how much probability two models with the same outputs disagree on, as for
            `moved`.
    """

    row: int
    label: Label
    has_map: bool
    models: list[ModelRecord] = field(default_factory=list)
    difference: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, strings, lists and dictionaries."""
        return asdict(self)


def stated_label(value: Any, feature: Any, names: Sequence[str] = ()) -> Label:
    """
    The label of a row in words.

    Args:
        value: as it is stored: an index, a list of indices, or a number for each label; `None`, or -1 of a class.
        feature: the column's type in `dataset.features`.
        names (`Sequence[str]`, *optional*): what the outputs are called where the column doesn't say.

    Example:

    ```python
    >>> from datasets import ClassLabel, List
    >>> from sage_hf.viewing.records import stated_label
    >>> stated_label([2, 0], List(ClassLabel(names=["cyst", "stone", "tumour"])))
    ['cyst', 'tumour']

    ```
    """
    stored = class_names_of(feature)
    several = inner_feature(feature) is not feature
    if value is None:
        return None
    if stored is not None:
        indices = sorted(value) if several else [value]
        found = [stored[index] for index in indices if 0 <= index < len(stored)]
        return found if several else next(iter(found), None)
    numbers = [float(number) for number in value] if several else [float(value)]
    if not several:
        return numbers[0]
    if len(names) == len(numbers) and all(0 <= number <= 1 for number in numbers):
        return [name for name, number in zip(names, numbers, strict=True) if number >= 0.5]
    return numbers


def predicted(outputs: np.ndarray, classes: Sequence[str], problem_type: str) -> Prediction:
    """
    What a model's outputs for a picture say.

    Args:
        outputs (`numpy.ndarray`): probabilities, (labels,), or the numbers of a regression.
        classes (`Sequence[str]`): names of the outputs.
        problem_type (`str`): of the model.
    """
    if problem_type == REGRESSION:
        numbers = [float(number) for number in outputs]
        return Prediction(numbers[0] if len(numbers) == 1 else numbers)
    if problem_type == MULTI_LABEL:
        return Prediction([name for name, share in zip(classes, outputs, strict=True) if share >= 0.5])
    best = int(outputs.argmax())
    return Prediction(classes[best], float(outputs[best]))


def moved(before: np.ndarray, after: np.ndarray, problem_type: str) -> float:
    """How far outputs move, (labels,) each, see [`ModelRecord`]."""
    between = np.abs(np.asarray(after, dtype=float) - np.asarray(before, dtype=float))
    return float(between.mean() if problem_type in (MULTI_LABEL, REGRESSION) else between.sum() / 2)


def model_record(
    name: str,
    outputs: dict[str, np.ndarray],
    classes: Sequence[str],
    problem_type: str,
    label: Label,
    alignment: dict[str, dict[str, float]],
    also: Collection[str] = (),
) -> ModelRecord:
    """
    What a model makes of a row, of its outputs.

    Args:
        name (`str`): of the model.
        outputs (`dict[str, numpy.ndarray]`): as for [`predicted`], by view, `"anchor"` among them.
        classes, problem_type: as for [`predicted`].
        label: as [`stated_label`] gives it.
        alignment: see [`ModelRecord`].
        also (`Collection[str]`, *optional*): further classes whose probabilities are to be kept.
    """
    said = {view: predicted(values, classes, problem_type) for view, values in outputs.items()}
    record = ModelRecord(name, said, alignment=alignment)
    anchor = outputs["anchor"]
    record.moved = {view: moved(anchor, values, problem_type) for view, values in outputs.items() if view != "anchor"}
    if problem_type == REGRESSION:
        numbers = label if isinstance(label, list) else [label]
        if len(numbers) == len(anchor) and all(isinstance(number, float) for number in numbers):
            record.label_error = float(np.abs(anchor - np.array(numbers, dtype=float)).mean())
        return record
    labels: list[Any] = label if isinstance(label, list) else [] if label is None else [label]
    concerned = {*labels, *also, *(one for given in said.values() for one in several_of(given.label))}
    places = [index for index, known in enumerate(classes) if known in concerned]
    record.probabilities = {
        view: {classes[index]: float(values[index]) for index in places} for view, values in outputs.items()
    }
    if label is None or not set(labels) <= set(classes):
        return record
    if problem_type == MULTI_LABEL:
        truth = np.array([float(known in labels) for known in classes])
        record.correct = set(several_of(said["anchor"].label)) == set(labels)
        record.label_error = float(np.abs(truth - anchor).mean())
    elif isinstance(label, str):
        record.correct = said["anchor"].label == label
        record.label_error = float(1 - anchor[list(classes).index(label)])
    return record


def several_of(label: Label) -> list[Any]:
    """A label as a list, whether it is one or several."""
    return label if isinstance(label, list) else [label]


def _maps(record: RowRecord) -> float | None:
    agreement = record.models[0].alignment if record.models else {}
    figures = agreement.get("cam") or agreement.get("gradient")
    return None if figures is None else -figures["cc"]


def _labels(record: RowRecord) -> float | None:
    return record.models[0].label_error if record.models else None


def _views(record: RowRecord) -> float | None:
    return record.models[0].moved.get("positive") if record.models else None


def _models(record: RowRecord) -> float | None:
    return record.difference


def _rows(record: RowRecord) -> float | None:
    return 0.0


ORDERS: dict[str, Callable[[RowRecord], float | None]] = {
    "maps": _maps,
    "labels": _labels,
    "views": _views,
    "models": _models,
    "rows": _rows,
}
"""
How bad a row is, largest first, `None` for rows that come last:

- `"maps"`: how little the (first) model looks where humans looked: the correlation (CC) of its class activation map,
  or of its gradient if it has none, with the map;
- `"labels"`: `label_error` of the (first) model;
- `"views"`: how much probability moves from x to x+, where what humans marked is intact;
- `"models"`: how much two models differ;
- `"rows"`: as they stand in the dataset.
"""


def worst_first(order: str) -> Callable[[RowRecord], tuple[bool, float, int]]:
    """
    A key that sorts rows, the worst first; of equally bad ones, the first in the dataset first.

    Raises:
        `ValueError`: an unknown order.

    Example:

    ```python
    >>> from sage_hf.viewing.records import ModelRecord, RowRecord, worst_first
    >>> rows = [RowRecord(index, "rust", False, [ModelRecord("m", {}, label_error=index / 2)]) for index in range(3)]
    >>> [record.row for record in sorted(rows, key=worst_first("labels"))]
    [2, 1, 0]

    ```
    """
    if order not in ORDERS:
        raise ValueError(f"Unknown order {order!r}. Choose one of {', '.join(ORDERS)}.")

    def key(record: RowRecord) -> tuple[bool, float, int]:
        badness = ORDERS[order](record)
        return badness is None, -(badness or 0.0), record.row

    return key
