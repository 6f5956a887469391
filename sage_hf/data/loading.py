"""Load a saliency dataset from wherever it is."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub.errors import RepositoryNotFoundError

from ..problem_types import REGRESSION
from .labels import class_names_of, inner_feature, problem_type_of
from .paths import check_folder
from .saliency import DataError
from .streams import CHECKED_ROWS, undecoded

DISK_SHARDS = 64
"""Shards of a stream from a folder of `save_to_disk`: any usual number of processes divides them."""


def load_saliency_dataset(
    path: str,
    *,
    name: str | None = None,
    revision: str | None = None,
    label_column: str = "label",
    problem_type: str | None = None,
    known_classes: Collection[str] = (),
    streaming: bool = False,
) -> datasets.DatasetDict | datasets.IterableDatasetDict:
    """
    Every split of a dataset, its labels encoded as class indices with names.

    Args:
        path (`str`):
            A Hub id; a folder with parquet files, such as `sage-hf data build` makes; a folder of pictures whose
            `metadata.csv` has the columns `file_name`, `saliency_file_name` and `label` (an ImageFolder); or a folder
            written by `save_to_disk`.
        name (`str`, *optional*): configuration of the dataset.
        revision (`str`, *optional*): branch, tag or commit on the Hub.
        label_column (`str`, *optional*, defaults to `"label"`): column to encode, if it is there.
        problem_type (`str`, *optional*): see [`encode_labels`].
        known_classes (`Collection[str]`, *optional*): see [`encode_labels`]; of no use to streams.
        streaming (`bool`, *optional*, defaults to `False`): read rows when they are needed, without downloading or
            preparing the dataset first.

    Returns:
        `datasets.DatasetDict`, or `datasets.IterableDatasetDict` of streams: the splits by name.

    Raises:
        [`DataError`]: the folder or dataset isn't there or can't be read, or labels that can't be encoded.

    Example:

    ```python
    >>> from sage_hf.data import load_saliency_dataset
    >>> load_saliency_dataset("./no/such/folder")
    Traceback (most recent call last):
    ...
    sage_hf.data.saliency.DataError: './no/such/folder' is not a folder.

    ```
    """
    check_folder(path)
    folder = Path(path)
    splits: Any
    if (folder / "dataset_dict.json").is_file():
        splits = datasets.load_from_disk(path)
    elif (folder / "state.json").is_file():
        splits = datasets.DatasetDict(train=datasets.load_from_disk(path))
    else:
        try:
            splits = datasets.load_dataset(path, name, revision=revision, streaming=streaming)
        except (FileNotFoundError, datasets.exceptions.DatasetNotFoundError, RepositoryNotFoundError) as error:
            raise DataError(
                f"{path!r} is neither a folder here nor a dataset on the Hub that you can read: {error}"
            ) from error
    if streaming:
        return check_stream_labels(
            datasets.IterableDatasetDict({split: _as_stream(split, rows) for split, rows in splits.items()}),
            label_column,
            problem_type,
        )
    return encode_labels(splits, label_column, problem_type, known_classes)


def _as_stream(name: str, rows: datasets.Dataset | datasets.IterableDataset) -> datasets.IterableDataset:
    """A split saved by `save_to_disk` as a stream, in as many shards as several processes and workers can share."""
    if isinstance(rows, datasets.IterableDataset):
        return rows
    stream = rows.to_iterable_dataset(num_shards=min(DISK_SHARDS, len(rows)))
    stream.info.splits = datasets.SplitDict({name: datasets.SplitInfo(name, num_examples=len(rows))})
    return stream


def check_stream_labels(
    splits: datasets.IterableDatasetDict, label_column: str, problem_type: str | None = None
) -> datasets.IterableDatasetDict:
    """
    Check that the labels of streams need no encoding, which would read every row beforehand.

    Args:
        splits (`datasets.IterableDatasetDict`): splits without the column are left alone.
        label_column (`str`): the column.
        problem_type (`str`, *optional*): `"regression"` for whole numbers that are no classes.

    Raises:
        [`DataError`]: columns that a stream doesn't tell; splits that name their classes differently; class names, or
            indices without names.
    """
    named: dict[str, list[str]] = {}
    for name, split in splits.items():
        if split.features is None:
            raise DataError(f"the {name} split doesn't tell its columns beforehand: train without streaming.")
        if label_column not in split.features:
            continue
        feature = split.features[label_column]
        kind = problem_type or problem_type_of(feature)
        if (names := class_names_of(feature)) is not None:
            named[name] = names
        elif kind != REGRESSION and not getattr(inner_feature(feature), "dtype", "").startswith("float"):
            raise DataError(
                f"the {name} split: column {label_column!r} holds {feature}, and which classes there are can't be "
                "known without reading the whole stream. Give the column the type ClassLabel(names=...), as "
                "`sage-hf data build` does and `dataset.class_encode_column` can, or train without streaming."
            )
    if len({tuple(names) for names in named.values()}) > 1:
        raise DataError(f"the splits name the classes of column {label_column!r} differently: {named}.")
    if problem_type == REGRESSION:  # grades, say, which count as well as name
        number = datasets.Value("int64")
        numbers = {name: splits[name].cast_column(label_column, number) for name in named}
        return datasets.IterableDatasetDict(splits | numbers)
    return splits


def encode_labels(
    splits: datasets.DatasetDict,
    label_column: str,
    problem_type: str | None = None,
    known_classes: Collection[str] = (),
) -> datasets.DatasetDict:
    """
    Turn a column of class names, of bare indices, or of lists of either, into `ClassLabel`, alike in every split.

    Numbers of a regression stay as they are, and so do lists that hold a number in [0, 1] for each label: lists of
    floating-point numbers, and lists of zeros and ones that are all equally long.

    Args:
        splits (`datasets.DatasetDict`): splits without the column are left alone.
        label_column (`str`): the column.
        problem_type (`str`, *optional*): `"regression"` for whole numbers that are no classes; inferred if not given.
        known_classes (`Collection[str]`, *optional*): names of a model's classes. If bare indices are among them
            (`"0"`, `"1"`), some may be missing: each is a name.

    Raises:
        [`DataError`]: splits that name their classes differently, or indices that don't run from 0 on.
    """
    labelled = {name: split for name, split in splits.items() if label_column in split.column_names}
    features = {name: split.features[label_column] for name, split in labelled.items()}
    named = {name: names for name, feature in features.items() if (names := class_names_of(feature)) is not None}
    if len({tuple(names) for names in named.values()}) > 1:
        raise DataError(f"the splits name the classes of column {label_column!r} differently: {named}.")
    kinds = {problem_type or problem_type_of(feature) for feature in features.values()}
    if REGRESSION in kinds and named:  # grades, say, which count as well as name
        number = datasets.Value("int64")
        numbers = {name: split.cast_column(label_column, number) for name, split in labelled.items()}
        return datasets.DatasetDict(splits | numbers)
    if len(named) == len(labelled) or REGRESSION in kinds:
        return splits
    several = any(inner_feature(feature) is not feature for feature in features.values())
    if several:
        labels = [row for split in labelled.values() for row in split[label_column] if row is not None]
        if _numbers_for_each_label(labels):
            return splits
        values = {label for row in labels for label in row} - {None}
    else:
        values = {value for split in labelled.values() for value in split.unique(label_column)} - {None}
    if values and all(isinstance(value, str) for value in values):
        names = sorted(values)
    elif values == set(range(len(values))):
        names = [str(index) for index in range(len(values))]
    elif not named and _are_names(values, known_classes):
        names = [str(value) for value in sorted(values)]
        text: Any = datasets.Value("string")
        text = datasets.List(text) if several else text
        # A number would be taken for the place of its name, not for the name.
        labelled = {name: split.cast_column(label_column, text) for name, split in labelled.items()}
    else:
        raise DataError(
            f"column {label_column!r} holds {sorted(map(str, values))[:12]}: labels must be class names, or indices "
            "that run from 0 without a gap. Numbers to be predicted are problem_type='regression'."
        )
    encoding: Any = datasets.ClassLabel(names=names)
    encoding = datasets.List(encoding) if several else encoding
    encoded = {name: split.cast_column(label_column, encoding) for name, split in labelled.items()}
    return datasets.DatasetDict(splits | encoded)


def _are_names(values: set[Any], known_classes: Collection[str]) -> bool:
    """Whether labels are whole numbers, some of which a model has for names of its classes."""
    whole = all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values)
    return whole and not {str(value) for value in values}.isdisjoint(known_classes)


def _numbers_for_each_label(labels: list[list[Any]]) -> bool:
    """Whether lists hold a number for each label, not the indices or names of those that are present."""
    if any(isinstance(label, float) for row in labels for label in row):
        return True
    lengths, values = {len(row) for row in labels}, {label for row in labels for label in row}
    return len(lengths) == 1 and lengths != {1} and values <= {0, 1}


def has_labels(split: datasets.Dataset | datasets.IterableDataset, label_column: str) -> bool:
    """Whether a split can be evaluated on: the Hub's hidden test labels are -1 throughout. Streams show some rows."""
    if label_column not in (split.column_names or ()):
        return False
    labels = split[label_column]
    if isinstance(split, datasets.IterableDataset):
        labels = itertools.islice(undecoded(split)[label_column], CHECKED_ROWS)
    return any(label not in (None, -1) for label in labels)


def class_names(splits: datasets.DatasetDict | datasets.IterableDatasetDict, label_column: str) -> list[str]:
    """
    What the outputs of a model for these splits are called, in order: their classes; `LABEL_0`, ... for labels without
    names; the column itself for a number.

    Raises:
        [`DataError`]: no split has the column.
    """
    for split in splits.values():
        if label_column not in split.column_names:
            continue
        feature = split.features[label_column]
        if (names := class_names_of(feature)) is not None:
            return names
        if inner_feature(feature) is feature:
            return [label_column]
        first: list[Any] = next((label for label in split[label_column] if label is not None), [])
        return [f"LABEL_{index}" for index in range(len(first))]
    columns = {name: split.column_names for name, split in splits.items()}
    raise DataError(f"no split has a column {label_column!r}: {columns}. Name the right one with label_column=...")
