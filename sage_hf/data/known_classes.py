"""The rows of a dataset whose class a model knows, and those of classes that are new to it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import datasets

from .labels import class_names_of, inner_feature
from .saliency import DataError


def known_and_unknown(
    split: datasets.Dataset,
    label_column: str,
    known: Sequence[str],
    unknown: Collection[str] = (),
    name: str = "dataset",
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """
    Split a dataset by whether a model knows the class of a row. Classes are matched by name.

    Args:
        split (`datasets.Dataset`): with labels as [`load_saliency_dataset`] gives them. Labels without names (numbers)
            are left as they are.
        label_column (`str`): the column.
        known (`Sequence[str]`): the model's class names, in the order of its outputs.
        unknown (`Collection[str]`, *optional*): classes of the dataset that are to be told from those.
        name (`str`, *optional*, defaults to `"dataset"`): what errors call it.

    Returns:
        `tuple[datasets.Dataset, datasets.Dataset]`: the rows of known classes, and those of the unknown ones.

    Raises:
        [`DataError`]: rows of a class that is neither; an unknown class that the model knows, or that a row has beside
            others.

    Example:

    ```python
    >>> from datasets import ClassLabel, Dataset, Features
    >>> from sage_hf.data.known_classes import known_and_unknown
    >>> features = Features(label=ClassLabel(names=["cat", "dog", "owl"]))
    >>> rows = Dataset.from_dict({"label": [0, 1, 2, 0]}, features=features)
    >>> mine, others = known_and_unknown(rows, "label", ["dog", "cat"], unknown=["owl"])
    >>> list(mine["label"]), list(others["label"])
    ([0, 1, 0], [2])

    ```
    """
    feature = split.features[label_column]
    stored = class_names_of(feature)
    if both := sorted(set(unknown) & set(known)):
        raise DataError(f"{name}: {both} can't be unknown classes, the model knows them: {', '.join(known)}.")
    if stored is None:
        return split, split.select([])
    several = inner_feature(feature) is not feature
    if several and unknown:
        raise DataError(f"{name}: column {label_column!r} holds several labels a row; unknown classes need one.")
    labels = list(split.with_format(None)[label_column])
    present = {label for row in labels for label in (row or [] if several else [row])} - {None, -1}
    strange = sorted(stored[index] for index in present if stored[index] not in {*known, *unknown})
    if strange:
        raise DataError(
            f"{name}: column {label_column!r} has rows of {strange[:5]}, which the model does not know: it knows "
            f"{', '.join(known[:12])}. {_how_to_match(known, stored, label_column)}"
        )
    others = {index for index in present if stored[index] in unknown}
    if not others:
        return split, split.select([])
    # Rows without a label stay: what reads them says where they are.
    return (
        split.select([row for row, label in enumerate(labels) if label not in others]),
        split.select([row for row, label in enumerate(labels) if label in others]),
    )


def _how_to_match(known: Sequence[str], stored: Sequence[str], label_column: str) -> str:
    if list(known) == [f"LABEL_{index}" for index in range(len(known))]:
        return (
            "These are no names, so which output is which class can't be told. Set the config's id2label, in the "
            "order that the model was trained with: model.config.id2label = {0: ..., 1: ...}, model.config.label2id "
            "= {...: 0, ...: 1}; save_pretrained it with its image processor, and evaluate that folder."
        )
    if not set(known) & set(stored) and all(name.isdecimal() for name in stored):
        return (
            "Classes are matched by name, and these are numbers: give the column names with "
            f"dataset.cast_column({label_column!r}, ClassLabel(names=[...]))."
        )
    return "Leave them out, or name them as unknown classes."
