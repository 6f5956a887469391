"""Load a saliency dataset from wherever it is."""

from __future__ import annotations

from pathlib import Path

import datasets
from huggingface_hub.errors import RepositoryNotFoundError

from .saliency import DataError


def load_saliency_dataset(
    path: str, *, name: str | None = None, revision: str | None = None, label_column: str = "label"
) -> datasets.DatasetDict:
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

    Returns:
        `datasets.DatasetDict`: the splits by name.

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
    if (folder / "dataset_dict.json").is_file():
        splits = datasets.load_from_disk(path)
    elif (folder / "state.json").is_file():
        splits = datasets.DatasetDict(train=datasets.load_from_disk(path))
    else:
        try:
            splits = datasets.load_dataset(path, name, revision=revision)
        except (FileNotFoundError, datasets.exceptions.DatasetNotFoundError, RepositoryNotFoundError) as error:
            raise DataError(
                f"{path!r} is neither a folder here nor a dataset on the Hub that you can read: {error}"
            ) from error
    return encode_labels(splits, label_column)


def check_folder(path: str) -> None:
    """
    Check that what is written like a path is a folder; anything else may be a Hub id.

    Raises:
        [`DataError`]: there is no such folder.
    """
    if path.startswith((".", "/", "~")) and not Path(path).is_dir():
        raise DataError(f"{path!r} is not a folder.")


def encode_labels(splits: datasets.DatasetDict, label_column: str) -> datasets.DatasetDict:
    """
    Turn a column of class names, or of bare indices, into `ClassLabel`, alike in every split.

    Raises:
        [`DataError`]: splits that name their classes differently, or indices that don't run from 0 on.
    """
    labelled = {name: split for name, split in splits.items() if label_column in split.column_names}
    features = {name: split.features[label_column] for name, split in labelled.items()}
    named = {name: feature.names for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    if len({tuple(names) for names in named.values()}) > 1:
        raise DataError(f"the splits name the classes of column {label_column!r} differently: {named}.")
    if len(named) == len(labelled):
        return splits
    values = {value for split in labelled.values() for value in split.unique(label_column)} - {None}
    if all(isinstance(value, str) for value in values):
        names = sorted(values)
    elif values == set(range(len(values))):
        names = [str(index) for index in range(len(values))]
    else:
        raise DataError(
            f"column {label_column!r} holds {sorted(map(str, values))[:12]}: labels must be class names, or indices "
            "that run from 0 without a gap."
        )
    encoding = datasets.ClassLabel(names=names)
    encoded = {name: split.cast_column(label_column, encoding) for name, split in labelled.items()}
    return datasets.DatasetDict(splits | encoded)


def class_names(splits: datasets.DatasetDict, label_column: str) -> list[str]:
    """
    The classes that the splits share, in the order of their indices.

    Raises:
        [`DataError`]: no split has the column.
    """
    for split in splits.values():
        if label_column in split.column_names:
            return list(split.features[label_column].names)
    columns = {name: split.column_names for name, split in splits.items()}
    raise DataError(f"no split has a column {label_column!r}: {columns}. Name the right one with label_column=...")
