"""Parquet files of bounded size, as the Hub names them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

SHARD_BYTES = 500_000_000


class ShardedWriter:
    """Parquet files of bounded size, one row group at a time, so that memory stays flat."""

    ROWS = 100
    """Rows of a row group, what a reader of one row has to read."""
    BYTES = 64_000_000
    """Size from which fewer rows make one."""

    def __init__(self, folder: Path, features: datasets.Features):
        self.folder, self.schema = folder, features.arrow_schema
        self.waiting: dict[str, list[pa.Table]] = {}
        self.counts: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.shards: dict[str, list[Path]] = {}
        self.open: dict[str, pq.ParquetWriter] = {}

    def write_table(self, split: str, table: pa.Table) -> None:
        """Add rows, whose columns are those of the features as Arrow stores them."""
        waiting = self.waiting.setdefault(split, [])
        waiting.append(table)
        self.counts[split] += table.num_rows
        rows, size = sum(each.num_rows for each in waiting), sum(each.nbytes for each in waiting)
        if rows < self.ROWS and size < self.BYTES:
            return
        joined = pa.concat_tables(waiting)
        whole = rows if size >= self.BYTES else rows - rows % self.ROWS
        self.waiting[split] = [joined.slice(whole)] if whole < rows else []
        for start in range(0, whole, self.ROWS):
            self._flush(split, joined.slice(start, min(self.ROWS, whole - start)))

    def _flush(self, split: str, table: pa.Table) -> None:
        """One row group, in a new file where the one before would grow beyond `SHARD_BYTES`."""
        if split in self.open and self.bytes[split] + table.nbytes > SHARD_BYTES:
            self.open.pop(split).close()
            self.bytes[split] = 0
        if split not in self.open:
            shards = self.shards.setdefault(split, [])
            shards.append(self.folder / f"{split}-{len(shards):05d}.parquet")
            self.folder.mkdir(parents=True, exist_ok=True)
            self.open[split] = pq.ParquetWriter(shards[-1], self.schema)
        self.open[split].write_table(table)
        self.bytes[split] += table.nbytes

    def close(self) -> dict[str, int]:
        """Write what is left, name the shards as the Hub does, and return the rows of each split."""
        for split, tables in self.waiting.items():
            if tables:
                self._flush(split, pa.concat_tables(tables))
        self.waiting = {}
        self.abort()
        for split, shards in self.shards.items():
            for index, shard in enumerate(shards):
                shard.rename(self.folder / f"{split}-{index:05d}-of-{len(shards):05d}.parquet")
        return dict(self.counts)

    def abort(self) -> None:
        for writer in self.open.values():
            writer.close()
        self.open = {}
