"""Parquet files of bounded size, as the Hub names them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

SHARD_BYTES = 500_000_000


class ShardedWriter:
    """Parquet files of bounded size, one row group at a time, so that memory stays flat."""

    ROWS = 100

    def __init__(self, folder: Path, features: datasets.Features):
        self.folder, self.features = folder, features
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.counts: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.shards: dict[str, list[Path]] = {}
        self.open: dict[str, pq.ParquetWriter] = {}

    def write(self, split: str, example: dict[str, Any]) -> None:
        self.rows.setdefault(split, []).append(example)
        if len(self.rows[split]) == self.ROWS:
            self._flush(split)

    def _flush(self, split: str) -> None:
        if not self.rows.get(split):
            return
        self.write_table(split, datasets.Dataset.from_list(self.rows.pop(split), features=self.features).data.table)

    def write_table(self, split: str, table: pa.Table) -> None:
        """One row group, of stored rows; in a new file where the one before would grow beyond `SHARD_BYTES`."""
        if split in self.open and self.bytes[split] + table.nbytes > SHARD_BYTES:
            self.open.pop(split).close()
            self.bytes[split] = 0
        if split not in self.open:
            shards = self.shards.setdefault(split, [])
            shards.append(self.folder / f"{split}-{len(shards):05d}.parquet")
            self.folder.mkdir(parents=True, exist_ok=True)
            self.open[split] = pq.ParquetWriter(shards[-1], table.schema)
        self.open[split].write_table(table)
        self.counts[split] += table.num_rows
        self.bytes[split] += table.nbytes

    def close(self) -> dict[str, int]:
        """Write what is left, name the shards as the Hub does, and return the rows of each split."""
        for split in list(self.rows):
            self._flush(split)
        self.abort()
        for split, shards in self.shards.items():
            for index, shard in enumerate(shards):
                shard.rename(self.folder / f"{split}-{index:05d}-of-{len(shards):05d}.parquet")
        return dict(self.counts)

    def abort(self) -> None:
        for writer in self.open.values():
            writer.close()
        self.open = {}
