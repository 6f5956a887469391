"""Streams as the Trainer reads them: numbered, shuffled undecoded, split over processes, transformed row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import copy
from functools import partial
from typing import Any

import datasets
import torch
from datasets.distributed import split_dataset_by_node

from .dataset import Augmentation, readable, report_problems
from .finishing import Finish
from .saliency import DataError
from .transforms import AlignedTransform
from .unusable import PLACE, REASON

CHECKED_ROWS = 100
"""Rows of a stream that are read beforehand at most: more would have to be downloaded twice."""

SHARD, ROW = "sage_hf_shard", "sage_hf_row"
"""Columns with a row's place in the stream as it is stored."""


class StreamedDataset(torch.utils.data.IterableDataset):
    """
    A raw stream seen through an [`AlignedTransform`]: in training, the rows of one process, in the order of an epoch.

    A row's augmentation depends on seed, epoch and the row's place in the stream as it is stored (shard, and row of
    the shard), so on nothing that shuffling, processes and workers change.

    Rows are shuffled as they are stored, not decoded: first the shards, then the rows by a buffer. Of `n` processes,
    each reads every n-th shard if the number of shards can be divided by `n`; if it can't, each reads all of the
    stream and decodes every n-th row. The workers of a process share its shards in the same way. Either way a pass
    over the stream has each row once.

    Args:
        dataset (`datasets.IterableDataset`): with the columns that the transform reads.
        transform ([`AlignedTransform`]): applied to a row when it is read.
        name (`str`): what errors call the dataset, as in `"train dataset"`.
        augmentation ([`Augmentation`], *optional*): the randomness of the transform, and the epoch; the order is that
            of the stream itself if not given.
        shuffle_buffer_size (`int`, *optional*, defaults to 0): rows in the buffer; 0 leaves the order alone.
        process_index (`int`, *optional*, defaults to 0): whose rows to read.
        num_processes (`int`, *optional*, defaults to 1): over how many processes rows are split.
        on_error (`str`, *optional*): as for [`~sage_hf.data.dataset.TransformedDataset`].

    Raises:
        [`DataError`]: the stream is split already; when a row is read that can't be used, with a message that names
            dataset, row and column.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from PIL import Image
    >>> from sage_hf import AlignedTransform
    >>> from sage_hf.data.streams import StreamedDataset
    >>> from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    >>> rows = {"image": [Image.new("RGB", (8, 8))] * 3, "label": [0, 1, 2]}
    >>> stream = Dataset.from_dict(rows).to_iterable_dataset()
    >>> transform = AlignedTransform(ViTImageProcessorPil(size={"height": 4, "width": 4}), saliency_column=None)
    >>> second = StreamedDataset(stream, transform, "train dataset", process_index=1, num_processes=2)
    >>> [row["labels"] for row in second]
    [1]

    ```
    """

    def __init__(
        self,
        dataset: datasets.IterableDataset,
        transform: AlignedTransform,
        name: str,
        augmentation: Augmentation | None = None,
        *,
        shuffle_buffer_size: int = 0,
        process_index: int = 0,
        num_processes: int = 1,
        on_error: str | None = None,
    ):
        self.on_error = on_error
        if dataset._distributed is not None:
            raise DataError(
                f"{name}: the stream is split over processes already, which the Trainer does by itself. Pass it whole."
            )
        self.transform, self.name, self.augmentation = transform, name, augmentation
        self.rows = known_rows(dataset)
        transform.tokens = dataset._token_per_repo_id or None
        self._whole = _numbered(readable(undecoded(dataset), transform))
        stream = self._whole
        if shuffle_buffer_size:
            assert augmentation is not None
            stream = stream.shuffle(seed=augmentation.seed, buffer_size=shuffle_buffer_size)
        if num_processes > 1:
            stream = split_dataset_by_node(stream, rank=process_index, world_size=num_processes)
        self.stream = stream
        self._num_processes = num_processes
        # Epoch, and batches and rows a batch to pass over in it: in shared memory, as workers may live on.
        self._skip = torch.full((3,), -1, dtype=torch.int64).share_memory_()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        skipped = self._rows_to_skip()
        for count, row in enumerate(self.stream):
            yield {} if count < skipped else self._placed(row)

    def set_epoch(self, epoch: int) -> None:
        """
        Choose the epoch whose order and augmentation the next pass has; without augmentation, there is but one.

        Not left to `__iter__`: the workers of a process share the stream's epoch, and would change it all at once.
        """
        if self.augmentation is not None:
            self.augmentation.set_epoch(epoch)
            self.stream.set_epoch(epoch)

    def skip(self, epoch: int, batches: int, batch_size: int) -> None:
        """
        Leave rows of an epoch as they are, neither decoded nor transformed: `{}` in their place.

        A worker leaves out its even share of the batches. It may have been asked for more than that, where others had
        fewer rows: what it reads in vain then, the loader drops with all other skipped batches.

        Args:
            epoch (`int`): that the loader skips batches of; all others are read in full.
            batches (`int`): how many.
            batch_size (`int`): rows a batch.
        """
        self._skip.copy_(torch.tensor([epoch, batches, batch_size]))

    def in_batches(self) -> tuple[StreamedDataset, Finish | None]:
        """The stream with rows whose last steps are done in batches, and what does them; its place is shared."""
        unfinished = copy(self)
        unfinished.transform, finish = self.transform.in_batches()
        return unfinished, finish

    def first_row(self) -> dict[str, Any]:
        """The first row of the whole stream that can be used, whichever process it belongs to."""
        for row in self._whole:
            try:
                return self._transformed(row)
            except DataError:
                if self.on_error != "skip":
                    raise
        raise DataError(f"{self.name}: no row can be used.")

    def name_row(self, place: list[int]) -> str:
        """What an error calls the row of a shard and its index there."""
        shard, index = place
        return f"row {index} of the stream" if self._whole.num_shards == 1 else f"row {index} of shard {shard}"

    def _placed(self, row: dict[str, Any]) -> dict[str, Any]:
        place = [row[SHARD], row[ROW]]
        try:
            inputs = self._transformed(row)
        except DataError as error:
            if self.on_error == "skip":
                return {PLACE: place, REASON: str(error)}
            raise
        return inputs if self.on_error is None else inputs | {PLACE: place}

    def _rows_to_skip(self) -> int:
        epoch, batches, batch_size = self._skip.tolist()
        if self.augmentation is None or epoch != self.augmentation.epoch:
            return 0
        worker = torch.utils.data.get_worker_info()
        share = batches if worker is None else len(range(worker.id, batches, worker.num_workers))
        return share * batch_size

    def _transformed(self, row: dict[str, Any], transform: AlignedTransform | None = None) -> dict[str, Any]:
        index, shard = row.pop(ROW), row.pop(SHARD)
        generator = None if self.augmentation is None else self.augmentation.generator(index, shard)
        try:
            return (transform or self.transform)(row, generator)
        except DataError as error:
            raise DataError(f"{self.name}, {self.name_row([shard, index])}, {error}") from error.__cause__

    def steps(self, batch_size: int, accumulation_steps: int = 1) -> int | None:
        """Optimizer steps of a pass over the stream, of batches of `batch_size` rows; `None` if that isn't known."""
        if self.rows is None:
            return None
        return math.ceil(self.rows / (self._num_processes * batch_size * accumulation_steps))

    def check(self, rows: int, *, process_index: int = 0, num_processes: int = 1) -> None:
        """
        Read the first rows of the stream, the way training will.

        Args:
            rows (`int`): how many, at most `CHECKED_ROWS`; -1 for as many.
            process_index (`int`, *optional*, defaults to 0): which of the processes this is; each reads its share.
            num_processes (`int`, *optional*, defaults to 1): how many processes check.

        Raises:
            [`DataError`]: an empty stream; up to five rows that can't be used, and why; a whole stream without a map
                where maps are wanted.
        """
        count = CHECKED_ROWS if rows < 0 else min(rows, CHECKED_ROWS)
        transform = self.transform.reading_all_maps()
        problems: list[str] = []
        found = annotated = 0
        for index, row in enumerate(self._whole.take(count)):
            found += 1
            if index % num_processes != process_index or len(problems) == 5:
                continue
            try:
                annotated += self._transformed(row, transform).get("saliency") is not None
            except DataError as error:
                problems.append(str(error))
        if not found:
            raise DataError(f"{self.name}: the stream is empty.")
        report_problems(problems, skip=self.on_error == "skip" and len(problems) < found)
        if transform.saliency_column is not None and not annotated and found < count and num_processes == 1:
            raise DataError(
                f"{self.name}, column {transform.saliency_column!r}: no row has a map that marks anything: there is "
                "nothing to be guided by. Use guidance='none' for plain fine-tuning."
            )


class SkippingCollator:
    """
    A collator that makes an empty batch of rows that [`StreamedDataset.skip`] passed over.

    Args:
        collator (`Callable`): for all other rows.
    """

    def __init__(self, collator: Any):
        self.collator = collator

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return self.collator(rows) if rows[0] else {}


def known_rows(dataset: datasets.IterableDataset) -> int | None:
    """
    How many rows a stream has, by what its dataset says of the split; `None` if it says nothing.

    A dataset still says so of a stream that was filtered or cut since.
    """
    splits = dataset.info.splits or {}
    name = next(iter(splits)) if dataset.split is None and len(splits) == 1 else str(dataset.split)
    return (splits[name].num_examples or None) if name in splits else None


def undecoded(dataset: datasets.IterableDataset) -> datasets.IterableDataset:
    """The stream with its pictures as they are stored, if it tells which columns hold pictures."""
    dataset = dataset.with_format(None)
    # First of all: a stream from the Hub may come with threads that decode ahead.
    return dataset if dataset.features is None else dataset.decode(False)


def _numbered(dataset: datasets.IterableDataset) -> datasets.IterableDataset:
    """The stream with each row's place. Numbered by shard: indices of a whole stream start anew in each worker."""
    features = dataset.features
    if features is not None:
        features = features | {SHARD: datasets.Value("int64"), ROW: datasets.Value("int64")}
        features = datasets.Features(features)
    shards = [
        dataset.shard(num_shards=dataset.num_shards, index=index).map(
            partial(_number, shard=index), with_indices=True, features=features
        )
        for index in range(dataset.num_shards)
    ]
    return datasets.concatenate_datasets(shards, split=dataset.split) if len(shards) > 1 else shards[0]


def _number(row: dict[str, Any], index: int, *, shard: int) -> dict[str, Any]:
    return row | {SHARD: shard, ROW: index}
