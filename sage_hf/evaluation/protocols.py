"""Protocols that leave something out of training to meet it as unknown: a class, a type of attack, any value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import datasets

from ..data.labels import class_names_of, inner_feature
from ..data.saliency import DataError


@dataclass(frozen=True)
class LeftOut:
    """
    What a model was not trained on.

    Args:
        column (`str`): of the dataset.
        values (`tuple[str, ...]`): rows with one of these were left out.
    """

    column: str
    values: tuple[str, ...]

    @classmethod
    def of(cls, sage: Mapping[str, Any]) -> LeftOut | None:
        """
        What the `sage` key of a model's config says.

        Args:
            sage (`Mapping`): the key's value.
        """
        said = sage.get("left_out")
        return None if said is None else cls(said["column"], tuple(said["values"]))

    def to_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {"column": self.column, "values": list(self.values)}


def leave_out(
    splits: datasets.DatasetDict,
    column: str,
    values: Collection[str],
    label_column: str = "label",
    train_split: str = "train",
) -> tuple[datasets.DatasetDict, datasets.DatasetDict]:
    """
    Divide every split of a dataset into rows to train and validate on, and rows that are unknown.

    If a class is left out, the class list of the rows that stay goes without it, so that a model made for them has no
    output for it. If anything else is (a type of attack), labels stay as they are.

    Args:
        splits (`datasets.DatasetDict`): as [`load_saliency_dataset`] gives it.
        column (`str`): what to go by: the label column, or any other column of names. A split without it stays whole.
        values (`Collection[str]`): what to leave out, by name.
        label_column (`str`, *optional*, defaults to `"label"`): the column of labels.
        train_split (`str`, *optional*, defaults to `"train"`): the split to train on.

    Returns:
        `tuple[datasets.DatasetDict, datasets.DatasetDict]`: the known rows of every split, and the unknown rows; of
        each, the splits that have any.

    Raises:
        [`DataError`]: no split has the column, or no row a value of it; nothing is left to train on; a class that
            loses its last training row although another column was gone by; a column that holds no names.

    Example:

    ```python
    >>> from datasets import ClassLabel, Dataset, DatasetDict, Features
    >>> from sage_hf.evaluation.protocols import leave_out
    >>> features = Features(label=ClassLabel(names=["cat", "dog", "owl"]))
    >>> rows = DatasetDict(train=Dataset.from_dict({"label": [0, 1, 2, 0]}, features=features))
    >>> known, unknown = leave_out(rows, "label", ["dog"])
    >>> known["train"].features["label"].names, list(known["train"]["label"]), list(unknown["train"]["label"])
    (['cat', 'owl'], [0, 1, 0], [1])

    ```
    """
    concerned = {name: split for name, split in splits.items() if column in split.column_names}
    if not concerned:
        columns = {name: split.column_names for name, split in splits.items()}
        raise DataError(f"leave_out: no split has a column {column!r}: {columns}. Name one of these.")
    names = {name: _names(split, column) for name, split in concerned.items()}
    there = {value for rows in names.values() for value in rows if value is not None}
    if missing := sorted(set(values) - there):
        raise DataError(f"leave_out: no row has {missing} in column {column!r}, which holds {sorted(there)[:20]}.")
    known, unknown = dict(splits), {}
    for name, split in concerned.items():
        left = [row for row, value in enumerate(names[name]) if value in values]
        kept = [row for row, value in enumerate(names[name]) if value not in values]
        if name == train_split and not kept:
            raise DataError(f"leave_out: nothing is left of the {name} split without {sorted(values)}.")
        if name == train_split and column != label_column and label_column in split.column_names:
            lost = {*_names(split, label_column)} - {*_names(split.select(kept), label_column)}
            if lost:
                raise DataError(
                    f"leave_out: the {name} split has no row of {sorted(map(str, lost))} without {sorted(values)} in "
                    f"column {column!r}: leave out the class itself (column {label_column!r})."
                )
        if left:
            unknown[name] = split.select(left)
        if column == label_column:  # before rows are selected, which would have to be copied for it afterwards
            known[name] = _without_classes(split, column, values)
        if kept:
            known[name] = known[name].select(kept) if left else known[name]
        else:
            del known[name]
    return datasets.DatasetDict(known), datasets.DatasetDict(unknown)


def leave_one_out(
    splits: datasets.DatasetDict, column: str, keep: Collection[str] = (), **names: str
) -> Iterator[tuple[str, datasets.DatasetDict, datasets.DatasetDict]]:
    """
    [`leave_out`] for every value of a column in turn: leave-one-class-out, leave-one-attack-type-out.

    Args:
        splits (`datasets.DatasetDict`): as for [`leave_out`].
        column (`str`): likewise.
        keep (`Collection[str]`, *optional*): values that are never left out, bona fide ones above all.
        **names: `label_column`, `train_split`: likewise.

    Yields:
        `tuple[str, datasets.DatasetDict, datasets.DatasetDict]`: the value, the known rows, the unknown ones.

    Example:

    ```python
    >>> from datasets import Dataset, DatasetDict
    >>> from sage_hf.evaluation.protocols import leave_one_out
    >>> columns = {"label": ["live", "spoof", "spoof"], "attack_type": [None, "print", "lens"]}
    >>> rows = DatasetDict(train=Dataset.from_dict(columns))
    >>> [(kind, list(known["train"]["attack_type"])) for kind, known, _ in leave_one_out(rows, "attack_type")]
    [('lens', [None, 'print']), ('print', [None, 'lens'])]

    ```
    """
    found = {value for split in splits.values() if column in split.column_names for value in _names(split, column)}
    for value in sorted(found - {None, *keep}):  # type: ignore[type-var]  # None is taken out
        assert value is not None
        yield value, *leave_out(splits, column, [value], **names)


def unknown_rows(split: datasets.Dataset, left_out: LeftOut) -> tuple[datasets.Dataset, datasets.Dataset]:
    """
    The rows of a split that a model was trained for, and those of what was left out.

    Args:
        split (`datasets.Dataset`): with the column or without it, in which case all rows are known.
        left_out ([`LeftOut`]): what the model was not trained on.
    """
    if left_out.column not in split.column_names:
        return split, split.select([])
    names = _names(split, left_out.column)
    return (
        split.select([row for row, value in enumerate(names) if value not in left_out.values]),
        split.select([row for row, value in enumerate(names) if value in left_out.values]),
    )


def values_of(split: datasets.Dataset, column: str) -> list[str | None]:
    """
    The value of each row in a column, by name.

    Raises:
        [`DataError`]: there is no such column, or it holds no names.
    """
    if column not in split.column_names:
        raise DataError(f"there is no column {column!r}; the columns are {', '.join(map(repr, split.column_names))}.")
    return _names(split, column)


def _names(split: datasets.Dataset, column: str) -> list[str | None]:
    feature = split.features[column]
    if inner_feature(feature) is not feature:
        raise DataError(f"leave_out: column {column!r} holds lists ({feature}); one name a row is needed.")
    classes = class_names_of(feature)
    values = split.with_format(None)[column]
    if classes is not None:
        return [None if value in (None, -1) else classes[value] for value in values]
    if getattr(feature, "dtype", "") not in ("string", "large_string", "bool") and "int" not in str(feature.dtype):
        raise DataError(f"leave_out: column {column!r} holds {feature}, not names.")
    return [None if value is None else str(value) for value in values]


def _without_classes(split: datasets.Dataset, column: str, values: Collection[str]) -> datasets.Dataset:
    """The split with the classes that stay alone, numbered anew; rows of the others have no label, -1."""
    stored = class_names_of(split.features[column])
    if stored is None:
        return split
    names = [name for name in stored if name not in values]
    if len(names) < 2:
        raise DataError(f"leave_out: without {sorted(values)} there are no two classes left, only {names}.")
    numbers = {index: names.index(name) for index, name in enumerate(stored) if name in names}
    labels = split.with_format(None)[column]
    encoded = [None if label is None else numbers.get(label, -1) for label in labels]
    order, scratch = split.column_names, f"{column} without {', '.join(sorted(values))}"
    changed = split.add_column(scratch, encoded, feature=datasets.ClassLabel(names=names))
    return changed.remove_columns(column).rename_column(scratch, column).select_columns(order)
