"""What a dataset's label column says: a class, several, or numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np

from ..problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from .saliency import DataError


def problem_type_of(feature: Any, num_labels: int | None = None) -> str:
    """
    The problem type that a label column is made for, as transformers infers it from labels.

    Args:
        feature: the column's type in `dataset.features`, `None` if unknown.
        num_labels (`int`, *optional*): outputs of the model; one output is a regression.

    Returns:
        `str`: a list is multi-label, a floating-point number a regression, anything else single-label.

    Example:

    ```python
    >>> from datasets import ClassLabel, List
    >>> from sage_hf.data.labels import problem_type_of
    >>> problem_type_of(List(ClassLabel(names=["cyst", "stone"])))
    'multi_label_classification'

    ```
    """
    if num_labels == 1:
        return REGRESSION
    if inner_feature(feature) is not feature:
        return MULTI_LABEL
    return REGRESSION if getattr(feature, "dtype", "").startswith("float") else SINGLE_LABEL


def inner_feature(feature: Any) -> Any:
    """What a list column is a list of; any other column's type as it is."""
    return feature.feature if isinstance(feature, (datasets.List, datasets.LargeList)) else feature


def class_names_of(feature: Any) -> list[str] | None:
    """The class names of a column of classes, or of lists of classes; `None` if it names none."""
    feature = inner_feature(feature)
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def balanced_weights(labels: Any, problem_type: str, num_labels: int) -> tuple[float, ...]:
    """
    Weights that make every class count alike.

    Args:
        labels (array): class indices, (rows,): `rows / (classes * rows of the class)`, as scikit-learn's `"balanced"`;
            or targets in [0, 1], (rows, labels): the rows without a label over those with it.
        problem_type (`str`): single- or multi-label classification.
        num_labels (`int`): how many weights.

    Raises:
        [`DataError`]: a label that never occurs, or always.

    Example:

    ```python
    >>> from sage_hf.data.labels import balanced_weights
    >>> balanced_weights([0, 0, 0, 1], "single_label_classification", 2)
    (0.6666666666666666, 2.0)

    ```
    """
    values = np.asarray(labels)
    if problem_type == SINGLE_LABEL:
        counts = np.bincount(values, minlength=num_labels).astype(float)
        weights = len(values) / (num_labels * np.maximum(counts, 1))
    else:
        counts = values.sum(axis=0)
        weights = (len(values) - counts) / np.maximum(counts, 1)
    bad = np.flatnonzero((counts == 0) | (weights == 0))
    if len(bad):
        raise DataError(
            f"class_weights='balanced': the labels {bad.tolist()} never occur in the training rows, or in all of "
            "them. Give the weights as numbers."
        )
    return tuple(weights.tolist())


def lists_classes(feature: Any) -> bool:
    """Whether a list column holds the classes that are present, by index or name, not a number for each label."""
    inner = inner_feature(feature)
    return isinstance(inner, datasets.ClassLabel) or getattr(inner, "dtype", "") in ("string", "large_string")


@dataclass
class LabelReader:
    """
    Turns a label as it stands in a dataset into what a model is trained on.

    - single label: a class index or name becomes an `int`;
    - several labels: a list of class indices or names, which may be empty, or of a number in [0, 1] for each label,
      becomes a list of `float`, (labels,);
    - regression: a number or a list of numbers becomes a list of `float`, (outputs,).

    Args:
        column (`str`): what errors call the column.
        problem_type (`str`, *optional*, defaults to `"single_label_classification"`): see [`~sage_hf.tasks.Task`].
        names (`list[str]`, *optional*): class names in the order of their indices: looks names up, bounds indices.
        num_labels (`int`, *optional*): outputs of the model; the number of names if not given.
        stored (`list[str]`, *optional*): class names in the order of the dataset's own indices, which may be another,
            and which may hold other names as well; if it has none of `names`, indices are taken as they are.
        lists (`bool`, *optional*): what lists hold: `True` for classes, by index or name; `False` for a number for
            each label; if not given, they are told apart by their values, and whole numbers are refused.

    Example:

    ```python
    >>> from sage_hf.data.labels import LabelReader
    >>> LabelReader("label", "multi_label_classification", ["cyst", "stone", "tumour"])(["stone", "cyst"])
    [1.0, 1.0, 0.0]

    ```
    """

    column: str
    problem_type: str = SINGLE_LABEL
    names: list[str] = field(default_factory=list)
    num_labels: int | None = None
    stored: list[str] | None = None
    lists: bool | None = None

    def __post_init__(self) -> None:
        places = {name: index for index, name in enumerate(self.names)}
        shared = bool(places.keys() & set(self.stored or []))
        self._order = [places.get(name) for name in self.stored or []] if shared else None

    def __call__(self, label: Any) -> int | list[float]:
        """
        Raises:
            [`DataError`]: a label that is not one of the model's, of the wrong kind or length, or not finite.
        """
        several = isinstance(label, (Sequence, np.ndarray)) and not isinstance(label, str)
        if self.problem_type == SINGLE_LABEL:
            if several:
                raise self._error(f"{list(label)} is a list, and the model takes one class a picture")
            return self._index(label)
        if self.problem_type == REGRESSION:
            return self._numbers(list(label) if several else [label])
        if not several:
            raise self._error(f"{label!r} is no list: several labels are a list of classes, or a number for each")
        labels = list(label)
        if self.lists is None and labels and all(isinstance(one, int) and not isinstance(one, bool) for one in labels):
            raise self._error(
                f"{labels} may be classes, or a number for each label: give the column its type with "
                f"dataset.cast_column({self.column!r}, List(ClassLabel(names=...))), or use floating-point numbers"
            )
        if self.lists or any(isinstance(one, str) for one in labels):
            present = {self._index(one) for one in labels}
            return [float(index in present) for index in range(self._outputs)]
        numbers = self._numbers(labels)
        if not all(0 <= number <= 1 for number in numbers):
            raise self._error(f"{labels} should hold numbers in [0, 1], one for each label")
        return numbers

    @property
    def _outputs(self) -> int:
        return len(self.names) if self.num_labels is None else self.num_labels

    def _index(self, label: Any) -> int:
        if isinstance(label, str):
            if label not in self.names:
                raise DataError(
                    f"column {self.column!r}: class {label!r} is not one of the model's: {', '.join(self.names)}."
                )
            return self.names.index(label)
        if not isinstance(label, (int, float, np.number, np.bool_)) or not float(label).is_integer():
            raise self._error(f"{label!r} is no class index")
        limit = self._outputs if self._order is None else len(self._order)
        if limit and not 0 <= label < limit:
            raise DataError(
                f"column {self.column!r}: label {label} is outside the head's range 0 to {limit - 1}. Load "
                "the model with num_labels=..., or mend the label."
            )
        if self._order is None:
            return int(label)
        place = self._order[int(label)]
        # A class that the model has not: looked up by name, which says so.
        return self._index((self.stored or [])[int(label)]) if place is None else place

    def _numbers(self, labels: list[Any]) -> list[float]:
        if self._outputs and len(labels) != self._outputs:
            raise self._error(f"{len(labels)} numbers, and the model has {self._outputs} outputs")
        try:
            numbers = [float(label) for label in labels]
        except (TypeError, ValueError):
            raise self._error(f"{labels} should hold numbers") from None
        if not all(map(math.isfinite, numbers)):
            raise self._error(f"{labels} holds NaN or infinite values")
        return numbers

    def _error(self, what: str) -> DataError:
        return DataError(
            f"column {self.column!r}: {what} (problem_type {self.problem_type!r}). Mend the "
            "label, or set the model's config.problem_type."
        )
