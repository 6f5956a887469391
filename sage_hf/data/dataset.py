"""Raw datasets as the Trainer reads them: transformed row by row, with errors that name the row."""

from __future__ import annotations

from copy import copy
from typing import Any

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm
from transformers.utils import logging

from .finishing import Finish
from .labels import inner_feature
from .saliency import DataError
from .transforms import AlignedTransform
from .unusable import PLACE, REASON

logger = logging.get_logger(__name__)


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
        if column == transform.image_column and isinstance(feature, datasets.Array3D):
            continue
        if column == transform.saliency_column:
            feature = inner_feature(feature)  # one map an annotator
        if feature is not None and not isinstance(feature, datasets.Image):
            raise DataError(
                f"{name}: column {column!r} holds {feature}, not pictures. If it holds paths, use "
                f"dataset.cast_column({column!r}, datasets.Image())."
            )


def readable(
    dataset: datasets.Dataset | datasets.IterableDataset, transform: AlignedTransform
) -> datasets.Dataset | datasets.IterableDataset:
    """
    The dataset with just the columns that training reads, and pictures as they are stored.

    The transform decodes them: it can say which one is damaged, it reads just those of several annotators' maps that
    it needs, and a column of the type `Image(mode="L")` would push a 16-bit map through PIL's saturating conversion.
    """
    features = dataset.features
    if features is None:
        return dataset
    columns = [transform.image_column, transform.saliency_column, transform.label_column]
    dataset = dataset.select_columns([column for column in columns if column in features])
    for column in columns[:2]:
        feature = features.get(column)
        if isinstance(inner_feature(feature), datasets.Image):
            stored: Any = datasets.Image(decode=False)
            dataset = dataset.cast_column(
                column, stored if inner_feature(feature) is feature else datasets.List(stored)
            )
    return dataset


def report_problems(problems: list[str], *, skip: bool) -> None:
    """
    Raise what a check has found, or warn of it where such rows are to be skipped.

    Raises:
        [`DataError`]: there are problems, and they are not skipped.
    """
    if problems and not skip:
        raise DataError("\n".join(["the data can't be trained on (the first problems found):", *problems]))
    for problem in problems:
        logger.warning("Will be left out: %s", problem)


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

    @property
    def epoch(self) -> int:
        """The one that was set last."""
        return int(self._epoch)

    def generator(self, *row: int) -> np.random.Generator:
        """The source of randomness of a row in this epoch: a row's index, or in a stream its index and its shard's."""
        return np.random.default_rng((self.seed, self.epoch, *row))


class TransformedDataset(torch.utils.data.Dataset):
    """
    A raw map-style dataset seen through an [`AlignedTransform`].

    Args:
        dataset (`datasets.Dataset`): with the columns that the transform reads.
        transform ([`AlignedTransform`]): applied to a row when it is read.
        name (`str`): what errors call the dataset, as in `"train dataset"`.
        augmentation ([`Augmentation`], *optional*): the randomness of the transform.
        on_error (`str`, *optional*): in training, what becomes of a row that can't be used: `"raise"`, or `"skip"`,
            which gives its place and the reason in its stead. All rows have their place with them then.

    Raises:
        [`DataError`]: when a row is read that can't be used; the message names dataset, row and column.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        transform: AlignedTransform,
        name: str,
        augmentation: Augmentation | None = None,
        on_error: str | None = None,
    ):
        self.on_error = on_error
        self.dataset, self.transform, self.name = readable(dataset, transform), transform, name
        self.augmentation = augmentation or Augmentation(0)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            inputs = self.transform(self.dataset[index], self.augmentation.generator(index))
        except DataError as error:
            reason = f"{self.name}, row {index}, {error}"
            if self.on_error == "skip":
                return {PLACE: [index], REASON: reason}
            raise DataError(reason) from error.__cause__
        return inputs if self.on_error is None else inputs | {PLACE: [index]}

    def in_batches(self) -> tuple[TransformedDataset, Finish | None]:
        """The dataset with rows whose last steps are done in batches, and what does them, see [`AlignedTransform`]."""
        unfinished = copy(self)
        unfinished.transform, finish = self.transform.in_batches()
        return unfinished, finish

    def first_row(self) -> dict[str, Any]:
        """The first row that can be used, as evaluation has it."""
        for index in range(len(self)):
            try:
                return self.transform(self.dataset[index], self.augmentation.generator(index))
            except DataError:
                continue
        raise DataError(f"{self.name}: no row can be used.")

    def name_row(self, place: list[int]) -> str:
        """What an error calls the row of an index: its number, and its picture's file if that is known."""
        picture = self.dataset[place[0]].get(self.transform.image_column)
        file = picture.get("path") if isinstance(picture, dict) else None
        return f"row {place[0]}" + (f" ({file})" if file else "")

    def check(self, rows: int, *, process_index: int = 0, num_processes: int = 1, guides: bool = True) -> bool:
        """
        Read rows, evenly spread over the dataset, the way training will.

        Args:
            rows (`int`): how many; -1 for all.
            process_index (`int`, *optional*, defaults to 0): which of the processes this is; each reads its share.
            num_processes (`int`, *optional*, defaults to 1): how many processes check.
            guides (`bool`, *optional*, defaults to `True`): whether the maps are to guide, if there are any.

        Returns:
            `bool`: whether the dataset may have a map that marks anything: one was found, or not all rows were read.

        Raises:
            [`DataError`]: an empty dataset; up to five rows that can't be used, and why, unless such rows are skipped;
                a whole dataset without a map where maps are to guide.
        """
        if len(self) == 0:
            raise DataError(f"{self.name}: the dataset is empty.")
        thorough = copy(self)
        thorough.transform, thorough.on_error = self.transform.reading_all_maps(), None
        count = len(self) if rows < 0 else min(rows, len(self))
        problems: list[str] = []
        annotated = 0
        share = range(process_index, count, num_processes)
        for step in tqdm(share, desc=f"checking the {self.name}", unit="row", leave=False, disable=None):
            try:
                annotated += thorough[step * len(self) // count].get("saliency") is not None
            except DataError as error:
                problems.append(str(error))
                if len(problems) == 5:
                    break
        report_problems(problems, skip=self.on_error == "skip" and len(problems) < len(share))
        marked = bool(annotated) or len(share) < len(self)
        if self.transform.saliency_column is not None and guides and not marked:
            raise DataError(
                f"{self.name}, column {self.transform.saliency_column!r}: no row has a map that marks anything: there "
                "is nothing to be guided by. Use guidance='none' for plain fine-tuning."
            )
        return marked
