"""The parquet files of a dataset as they are published: pictures inside, no paths, of bounded size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.table import embed_table_storage

from ..data.labels import class_names_of
from ..data.loading import encode_labels, load_saliency_dataset
from ..data.parquet import SHARD_BYTES, ShardedWriter
from ..data.paths import check_folder
from ..data.saliency import DataError

SHARD = re.compile(r"data/(?P<split>\w+(\.\w+)*)-(?P<index>\d{5})-of-(?P<count>\d{5})\.parquet")
"""How the files are named, here and on the Hub."""
PATH = re.compile(r"[/\\]")
BATCH_ROWS = 20


@dataclass(frozen=True)
class DatasetFiles:
    """
    Files that may be published as they are.

    Args:
        files (`dict[str, list[Path]]`): of each split, in order.
        features (`datasets.Features`): as the Hub will give them.
        folder (`Path`, *optional*): the folder they were made from, if it was one.
    """

    files: dict[str, list[Path]]
    features: datasets.Features
    folder: Path | None = None

    @property
    def paths(self) -> dict[str, Path]:
        """The files by their names in the repository."""
        return {f"data/{file.name}": file for shards in self.files.values() for file in shards}

    @property
    def rows(self) -> dict[str, int]:
        """Number of rows of each split."""
        return {split: sum(pq.read_metadata(file).num_rows for file in shards) for split, shards in self.files.items()}

    @property
    def bytes(self) -> int:
        """Their size on disk."""
        return sum(path.stat().st_size for path in self.paths.values())

    def batches(self) -> Iterator[tuple[str, int, pa.Table]]:
        """Split, number of the first row, and a few stored rows at a time."""
        for split, shards in self.files.items():
            start = 0
            for table in _tables(shards):
                yield split, start, table
                start += len(table)

    def stream(self) -> datasets.IterableDatasetDict:
        """
        The rows, streamed from the files, so that no second copy of them is made.

        Not by the reader of `datasets`: whoever reads slowly, as checks do, has all of a file in memory with it.
        """
        return datasets.IterableDatasetDict(
            {
                split: datasets.IterableDataset.from_generator(
                    _rows, features=self.features, gen_kwargs={"files": shards}, split=datasets.NamedSplit(split)
                )
                for split, shards in self.files.items()
            }
        )

    def load(self, cache: Path) -> datasets.DatasetDict:
        """The rows, copied to a cache."""
        files = {split: [str(file) for file in shards] for split, shards in self.files.items()}
        return datasets.load_dataset("parquet", data_files=files, features=self.features, cache_dir=str(cache))

    def fit(self, label_column: str) -> bool:
        """Whether they may go as they are: named and sized as the Hub likes it, classes named, pictures inside."""
        label = self.features.get(label_column)
        number = str(getattr(label, "dtype", "")).startswith("float")
        if label is not None and class_names_of(label) is None and not number:
            return False
        for split, shards in self.files.items():
            for index, file in enumerate(shards):
                name = SHARD.fullmatch(f"{file.parent.name}/{file.name}")
                told = name and (name["split"], int(name["index"]), int(name["count"]))
                if told != (split, index, len(shards)) or file.stat().st_size > 1.1 * SHARD_BYTES:
                    return False
        return all(_embedded(table) for _, _, table in self.batches())


def _tables(files: list[Path]) -> Iterator[pa.Table]:
    for file in files:
        with pq.ParquetFile(file) as parquet:
            for group in range(parquet.num_row_groups):  # asked for all at once, it keeps all
                for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group]):
                    yield pa.Table.from_batches([batch])


def _rows(files: list[Path]) -> Iterator[dict[str, Any]]:
    for table in _tables(files):
        yield from table.to_pylist()


def dataset_files(
    dataset: str | Path | datasets.DatasetDict | datasets.Dataset,
    scratch: Path,
    *,
    label_column: str = "label",
    source_revision: str | None = None,
) -> DatasetFiles:
    """
    The files of a dataset: its own where they are fit to be published, or ones that are written.

    Args:
        dataset (`str`, `Path`, `DatasetDict` or `Dataset`): a folder, a Hub id, or splits.
        scratch (`Path`): where to write.
        label_column (`str`, *optional*, defaults to `"label"`): its class names are encoded.
        source_revision (`str`, *optional*): revision of a dataset on the Hub.

    Raises:
        [`DataError`]: a folder that isn't there, a split without rows, a picture whose file is missing.
        `TypeError`: a stream, or anything else.
    """
    folder: Path | None = None
    if isinstance(dataset, (str, Path)):
        check_folder(str(dataset))
        folder = Path(dataset) if Path(dataset).is_dir() else None
        own = _own_files(folder) if folder is not None else None
        if own is not None and own.fit(label_column):
            return own
        if own is not None:
            # Not by the folder's name: `load_dataset` keys its cache of a folder by its card, where that has
            # `configs`, and may have an earlier one.
            splits = encode_labels(own.load(cache=scratch / "cache"), label_column)
        else:
            splits = load_saliency_dataset(str(dataset), revision=source_revision, label_column=label_column)
    elif isinstance(dataset, datasets.DatasetDict):
        splits = encode_labels(dataset, label_column)
    elif isinstance(dataset, datasets.Dataset):
        name = str(dataset.split) if dataset.split is not None else "train"
        splits = encode_labels(datasets.DatasetDict({name: dataset}), label_column)
    else:
        raise TypeError(
            f"Expected a folder, a Hub id, a DatasetDict or a Dataset, not {type(dataset).__name__}. Write a stream "
            "to parquet files first, or load it without streaming."
        )
    return _written(splits, scratch, folder)


def _own_files(folder: Path) -> DatasetFiles | None:
    """The files of a folder of parquet files."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return None
    try:
        builder = datasets.load_dataset_builder(str(folder))
    except (FileNotFoundError, datasets.exceptions.DatasetNotFoundError, datasets.data_files.EmptyDatasetError):
        return None  # loading it will say what is wrong
    if not isinstance(builder, Parquet):
        return None
    files = {str(split): [Path(str(file)) for file in shards] for split, shards in builder.config.data_files.items()}
    features = builder.info.features
    if features is None:
        features = datasets.Features.from_arrow_schema(pq.read_schema(next(iter(files.values()))[0]))
    return DatasetFiles(files, features, folder)


def _embedded(table: pa.Table) -> bool:
    """Whether all pictures are inside, with names instead of paths."""
    for name in table.column_names:
        for _, array in leaves(name, table[name].combine_chunks()):
            if not is_picture(array.type):
                continue
            inside = pc.or_(array.field("bytes").is_valid(), array.is_null())
            if not pc.all(inside).as_py() or any(PATH.search(path or "") for path in array.field("path").to_pylist()):
                return False
    return True


def is_picture(kind: pa.DataType) -> bool:
    """Whether it is how a picture is stored."""
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


def leaves(name: str, array: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """The pictures, strings, bytes and numbers in a column, however deep, with where they stand."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_struct(array.type) and not is_picture(array.type):
        for field in array.type:
            yield from leaves(f"{name}.{field.name}", array.field(field.name))
    elif pa.types.is_nested(array.type) and not pa.types.is_struct(array.type):
        yield from leaves(name, array.flatten())
    else:
        yield name, array


def _written(splits: datasets.DatasetDict, scratch: Path, folder: Path | None) -> DatasetFiles:
    if not splits:
        raise DataError("There is no split to publish.")
    features = next(iter(splits.values())).features
    for name, split in splits.items():
        if split.features != features:
            raise DataError(f"split {name!r} has other columns than the others: {split.features}, not {features}.")
        if not len(split):
            raise DataError(f"split {name!r} has no rows. Leave it out.")
    writer = ShardedWriter(scratch / "data", features)
    try:
        for name, split in splits.items():
            for table in _embedding(name, split):
                writer.write_table(name, table)
        writer.close()
    finally:
        writer.abort()
    return DatasetFiles(
        {name: sorted((scratch / "data").glob(f"{name}-?????-of-*")) for name in splits}, features, folder
    )


def _embedding(name: str, split: datasets.Dataset) -> Iterator[pa.Table]:
    """A few rows at a time, their pictures inside. What is stored is copied, never decoded."""
    start = 0
    for stored in split.with_format("arrow").iter(BATCH_ROWS):
        try:
            yield embed_table_storage(stored.cast(split.features.arrow_schema))
        except FileNotFoundError as error:
            raise DataError(
                f"{name}, rows {start} to {start + len(stored) - 1}: a picture is missing: {error}"
            ) from None
        start += len(stored)
