"""The rows of any dataset as they are stored, one after the other, measured by several threads in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets

from ..labels import class_names_of, inner_feature
from ..loading import load_saliency_dataset
from ..saliency import DataError
from .facts import Measure, RowFacts

CHUNK = 16
"""Rows that a thread takes at a time."""


@dataclass
class Source:
    """
    The splits of a dataset, and how to read them.

    Args:
        splits (`dict[str, Dataset | IterableDataset]`): by name.
        measure ([`Measure`]): of a row.
        rows (`int`, *optional*): how many to read: evenly spread over the dataset, or the first ones of each stream;
            all if not given.
    """

    splits: dict[str, datasets.Dataset | datasets.IterableDataset]
    measure: Measure
    rows: int | None = None
    sampled: bool = field(init=False, default=False)
    """Whether rows are left out, as far as that is known."""

    def __post_init__(self) -> None:
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows={self.rows} should be 1 or more; leave it out for all rows.")
        self.sampled = self.rows is not None and (self.total is None or self.rows < self.total)

    @property
    def total(self) -> int | None:
        """Rows of all splits, `None` if a split is a stream."""
        if any(isinstance(split, datasets.IterableDataset) for split in self.splits.values()):
            return None
        return sum(len(split) for split in self.splits.values())

    def facts(self, num_proc: int = 1) -> Iterator[RowFacts]:
        """
        The facts of the rows, in their order. At most a few chunks of rows are held at a time.

        Args:
            num_proc (`int`, *optional*, defaults to 1): threads that decode; the order doesn't depend on it.
        """
        if num_proc == 1:
            for chunk in self._chunks():
                yield from self._measured(chunk)
            return
        with ThreadPoolExecutor(num_proc) as pool:
            waiting: deque[Future[list[RowFacts]]] = deque()
            try:
                for chunk in self._chunks():
                    waiting.append(pool.submit(self._measured, chunk))
                    if len(waiting) > 2 * num_proc:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _measured(self, chunk: _Chunk) -> list[RowFacts]:
        split, indices, rows = chunk
        return [self.measure(split, index, row) for index, row in zip(indices, rows(), strict=True)]

    def _chunks(self) -> Iterator[_Chunk]:
        offset = 0
        for name, split in self.splits.items():
            if isinstance(split, datasets.IterableDataset):
                yield from self._stream_chunks(name, split)
                continue
            chosen: Sequence[int] = range(len(split))
            if self.sampled and self.rows is not None and self.total is not None:
                every = (step * self.total // self.rows for step in range(self.rows))
                chosen = [place - offset for place in every if offset <= place < offset + len(split)]
            offset += len(split)
            for start in range(0, len(chosen), CHUNK):
                indices = list(chosen[start : start + CHUNK])
                yield name, indices, _Rows(split, indices)

    def _stream_chunks(self, name: str, stream: datasets.IterableDataset) -> Iterator[_Chunk]:
        if self.rows is not None:
            stream = stream.take(-(-self.rows // len(self.splits)))
        buffer: list[dict[str, Any]] = []
        start = 0
        for row in stream:
            buffer.append(row)
            if len(buffer) == CHUNK:
                yield name, list(range(start, start + CHUNK)), buffer.copy
                start, buffer = start + CHUNK, []
        if buffer:
            yield name, list(range(start, start + len(buffer))), buffer.copy


_Chunk = tuple[str, list[int], Callable[[], list[dict[str, Any]]]]
"""Split, indices of the rows, and what gives them."""


@dataclass
class _Rows:
    """Rows of a map-style split, read by the thread that measures them."""

    split: datasets.Dataset
    indices: list[int]

    def __call__(self) -> list[dict[str, Any]]:
        columns = self.split[self.indices]
        return [{name: values[place] for name, values in columns.items()} for place in range(len(self.indices))]


def open_source(
    dataset: Any,
    *,
    image_column: str,
    saliency_column: str,
    label_column: str,
    name: str | None,
    revision: str | None,
    splits: Sequence[str] | None,
    rows: int | None,
) -> Source:
    """
    Open what [`check_dataset`] takes.

    Raises:
        [`DataError`]: it can't be opened, a split isn't there, or a column doesn't hold pictures.
    """
    folder = None
    if isinstance(dataset, (str, Path)):
        folder = Path(dataset) if Path(dataset).is_dir() else None
        dataset = load_saliency_dataset(str(dataset), name=name, revision=revision, label_column=label_column)
    elif isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
        dataset = {str(dataset.split or "train"): dataset}
    elif not isinstance(dataset, dict):
        raise DataError(
            f"a {type(dataset).__name__} is no dataset: give a path, a Hub id, or a dataset of `datasets`."
        )
    if unknown := [split for split in splits or () if split not in dataset]:
        raise DataError(f"there is no split {unknown[0]!r}; the splits are {', '.join(dataset)}.")
    opened = {
        split: _as_stored(part, split, image_column, saliency_column)
        for split, part in dataset.items()
        if not splits or split in splits
    }
    if not opened:
        raise DataError("the dataset has no splits.")
    named = {}
    for split, part in opened.items():
        names = class_names_of((part.features or {}).get(label_column))
        if names is not None:
            named[split] = names
    if len({tuple(names) for names in named.values()}) > 1:
        raise DataError(f"the splits name the classes of column {label_column!r} differently: {named}.")
    class_names = next(iter(named.values()), None)
    pictures = {
        column: None
        for part in opened.values()
        for column, feature in (part.features or {}).items()
        if isinstance(inner_feature(feature), datasets.Image) and column not in (image_column, saliency_column)
    }
    measure = Measure(image_column, saliency_column, label_column, class_names, folder, tuple(pictures))
    return Source(opened, measure, rows)


def _as_stored(
    part: datasets.Dataset | datasets.IterableDataset, split: str, image_column: str, saliency_column: str
) -> datasets.Dataset | datasets.IterableDataset:
    """A split whose pictures come as they are stored, so that one that is damaged doesn't stop the reading."""
    if isinstance(part, datasets.Dataset):
        part = part.with_format(None)
    if part.features is None:  # a stream that doesn't say what it holds
        return part
    if image_column not in part.features:
        raise DataError(
            f"{split}: there is no column {image_column!r}; the columns are "
            f"{', '.join(map(repr, part.features))}. Name the right one with image_column=... (--image-column)."
        )
    arrays = (datasets.Array2D, datasets.Array3D)
    for column, feature in part.features.items():
        inner = inner_feature(feature)
        if getattr(inner, "decode", False):
            stored = replace(inner, decode=False)
            part = part.cast_column(column, stored if inner is feature else datasets.List(stored))
        if column in (image_column, saliency_column) and not isinstance(inner, (*arrays, datasets.Image)):
            if column == saliency_column and getattr(inner, "dtype", None) == "null":
                continue
            raise DataError(
                f"{split}: column {column!r} holds {feature}, not pictures. If it holds paths, use "
                f"dataset.cast_column({column!r}, datasets.Image())."
            )
    return part
