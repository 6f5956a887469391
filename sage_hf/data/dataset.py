"""Raw datasets as the Trainer reads them: transformed row by row, with errors that name the row."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import torch

from .saliency import DataError
from .transforms import AlignedTransform


def check_columns(
    dataset: datasets.Dataset | datasets.IterableDataset,
    transform: AlignedTransform,
    name: str,
    *,
    labelled: bool = True,
) -> None:
    """
    Check that a raw dataset has the columns that training reads, with pictures in them.

    Raises:
        [`DataError`]: a missing column, or one that doesn't hold pictures.
    """
    columns = dataset.column_names
    if columns is None:  # a stream that doesn't say what it holds
        return
    wanted = {"image_column": transform.image_column}
    if labelled:
        wanted["label_column"] = transform.label_column
    if transform.saliency_column is not None:
        wanted["saliency_column"] = transform.saliency_column
    for argument, column in wanted.items():
        if column not in columns:
            raise DataError(
                f"{name}: there is no column {column!r}; the columns are {', '.join(map(repr, columns))}. "
                f"Name the right one with {argument}=..."
            )
    for column in filter(None, (transform.image_column, transform.saliency_column)):
        feature = (dataset.features or {}).get(column)
        if feature is not None and not isinstance(feature, datasets.Image):
            raise DataError(
                f"{name}: column {column!r} holds {feature}, not pictures. If it holds paths, use "
                f"dataset.cast_column({column!r}, datasets.Image())."
            )


def readable(
    dataset: datasets.Dataset | datasets.IterableDataset, transform: AlignedTransform
) -> datasets.Dataset | datasets.IterableDataset:
    """
    The dataset with just the columns that training reads, and maps decoded as they are stored.

    A column of the type `Image(mode="L")` would push a 16-bit map through PIL's saturating conversion.
    """
    if dataset.column_names is None or dataset.features is None:
        return dataset
    columns = [transform.image_column, transform.saliency_column, transform.label_column]
    dataset = dataset.select_columns([column for column in columns if column in dataset.column_names])
    if transform.saliency_column is not None:
        dataset = dataset.cast_column(transform.saliency_column, datasets.Image())
    return dataset


class Augmentation:
    """
    The randomness of a row's augmentation: a function of seed, epoch and row, and of nothing else.

    So a row is augmented alike whichever worker or process reads it, however far ahead a loader reads, and after a
    resumption.

    Args:
        seed (`int`): of the run.
    """

    def __init__(self, seed: int):
        self.seed = seed
        # In shared memory: persistent workers keep the copy of the dataset that they started with.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """To be called before the rows of an epoch are read."""
        self._epoch.fill_(epoch)

    def generator(self, index: int) -> np.random.Generator:
        """The source of randomness of a row in this epoch."""
        return np.random.default_rng((self.seed, int(self._epoch), index))


class TransformedDataset(torch.utils.data.Dataset):
    """
    A raw map-style dataset seen through an [`AlignedTransform`].

    Args:
        dataset (`datasets.Dataset`): with the columns that the transform reads.
        transform ([`AlignedTransform`]): applied to a row when it is read.
        name (`str`): what errors call the dataset, as in `"train split"`.
        augmentation ([`Augmentation`], *optional*): the randomness of the transform.

    Raises:
        [`DataError`]: when a row is read that can't be used; the message names dataset, row and column.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        transform: AlignedTransform,
        name: str,
        augmentation: Augmentation | None = None,
    ):
        self.dataset, self.transform, self.name = readable(dataset, transform), transform, name
        self.augmentation = augmentation or Augmentation(0)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            row = self.dataset[index]
        except Exception as error:  # any decoder may raise anything on a damaged file
            raise self._unreadable(index, error) from error
        try:
            return self.transform(row, self.augmentation.generator(index))
        except DataError as error:
            raise DataError(f"{self.name}, row {index}, {error}") from None

    def _unreadable(self, index: int, error: Exception) -> DataError:
        """Find which picture it was by reading the columns one by one."""
        for column in (self.transform.image_column, self.transform.saliency_column):
            if column is None:
                continue
            try:
                self.dataset.select_columns([column])[index]
            except Exception as cause:
                stored = self.dataset.cast_column(column, datasets.Image(decode=False))[index][column]
                file = f" ({stored['path']})" if stored and stored.get("path") else ""
                return DataError(
                    f"{self.name}, row {index}, column {column!r}: the picture{file} can't be read: "
                    f"{type(cause).__name__}: {cause}. Replace or remove it."
                )
        return DataError(f"{self.name}, row {index} can't be read: {type(error).__name__}: {error}.")

    def check(self, rows: int, num_labels: int) -> None:
        """
        Read rows, evenly spread over the dataset, the way training will, and check them.

        Args:
            rows (`int`): how many; -1 for all.
            num_labels (`int`): outputs of the classification head.

        Raises:
            [`DataError`]: an empty dataset, or up to five problems found: unreadable pictures, maps that can't be used
                or don't cover their picture, labels that are missing or outside the head's range.
        """
        if len(self) == 0:
            raise DataError(f"{self.name}: the dataset is empty.")
        count = len(self) if rows < 0 else min(rows, len(self))
        problems: list[str] = []
        for step in range(count):
            try:
                self._check_row(step * len(self) // count, num_labels)
            except DataError as error:
                problems.append(str(error))
                if len(problems) == 5:
                    break
        if problems:
            raise DataError("\n".join(["the data can't be trained on (the first problems found):", *problems]))

    def _check_row(self, index: int, num_labels: int) -> None:
        label = self[index].get("labels")
        where = f"{self.name}, row {index}, column {self.transform.label_column!r}:"
        if label is None:
            raise DataError(f"{where} there is no label. Remove the row or label it.")
        if not 0 <= label < num_labels:
            raise DataError(
                f"{where} label {label} is outside the head's range 0 to {num_labels - 1}. Load the model with "
                f"num_labels=..., or mend the label."
            )


class _StreamTransform:
    """A transform of a streamed row, by its place in the stream."""

    def __init__(self, transform: AlignedTransform, name: str, augmentation: Augmentation):
        self.transform, self.name, self.augmentation = transform, name, augmentation

    def __call__(self, row: dict[str, Any], index: int) -> dict[str, Any]:
        try:
            return self.transform(row, self.augmentation.generator(index))
        except DataError as error:
            raise DataError(f"{self.name}, row {index} of the stream, {error}") from None


def transformed_stream(
    dataset: datasets.IterableDataset, transform: AlignedTransform, name: str, augmentation: Augmentation
) -> datasets.IterableDataset:
    """A raw stream seen through an [`AlignedTransform`]: streams have no `with_transform`, so it is a `map`."""
    dataset = readable(dataset, transform)
    each = _StreamTransform(transform, name, augmentation)
    return dataset.map(each, with_indices=True, remove_columns=dataset.column_names)
