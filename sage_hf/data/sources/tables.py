"""Tables of labels or annotations: CSV, TSV, JSON, JSON Lines and Parquet, one damaged row at a time."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ..saliency import DataError
from .files import check_file

LINE_BYTES = 16_000_000
"""Longest line: what is longer is no table."""
QUOTED_LINES = 20
"""Most lines that a quoted cell may go over."""


@dataclass(frozen=True)
class Record:
    """A row of a table: its cells by column, or why they can't be read."""

    row: int
    cells: dict[str, Any]
    error: str | None = None


class Table:
    """
    The rows of a table, read as they are asked for.

    Args:
        path (`Path`): told by its extension: `.parquet`, `.jsonl` or `.ndjson` (an object a line), `.json` (a list of
            objects), `.tsv`; anything else is CSV, with commas or, if its header has none, semicolons. UTF-8.

    Raises:
        [`~sage_hf.data.DataError`]: there is no such file, or it is no table.
    """

    def __init__(self, path: Path):
        check_file(path)
        self.path = path
        suffix = path.suffix.lower()
        kinds = {".parquet": self._parquet, ".jsonl": self._json_lines, ".ndjson": self._json_lines}
        self._read = (kinds | {".json": self._json_list}).get(suffix, self._csv)
        self._delimiter = "\t" if suffix == ".tsv" else ","
        self.columns: list[str] = self._columns()

    def __iter__(self) -> Iterator[Record]:
        return self._read()

    def about(self) -> int | None:
        """About how many rows it has, told without parsing them."""
        if self._read == self._parquet:
            with self._open_parquet() as file:
                return int(file.metadata.num_rows)
        if self._read == self._json_list:
            return None
        with self.path.open("rb") as file:
            lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        return max(lines - (self._read == self._csv), 0)

    def check_columns(self, *columns: str | None) -> None:
        """
        Raises:
            [`~sage_hf.data.DataError`]: one of them isn't there.
        """
        for column in columns:
            if column is not None and column not in self.columns:
                raise DataError(
                    f"{self.path}: there is no column {column!r}; the columns are {', '.join(self.columns)}."
                )

    def _columns(self) -> list[str]:
        if self._read == self._csv:
            return self._csv_header()
        if self._read == self._parquet:
            return list(self._open_parquet().schema_arrow.names)
        # Objects need not have the same keys: those of the first hundred are looked at.
        columns: dict[str, None] = {}
        for record in islice(self, 100):
            columns |= dict.fromkeys(record.cells)
        return list(columns)

    # CSV: line by line, since a reader of the whole file loses every row after a quote that is never closed.

    def _csv_header(self) -> list[str]:
        with self.path.open("rb") as file:
            lines = _lines(file, self.path)
            for _, line in lines:
                try:
                    text = line.decode("utf-8-sig")
                    if self.path.suffix.lower() != ".tsv" and "," not in text and ";" in text:
                        self._delimiter = ";"
                    header = self._cells(text)
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{self.path} is not UTF-8 (byte {error.start}). Save it as CSV in UTF-8."
                    ) from None
                except csv.Error as error:
                    raise DataError(f"{self.path}: the header can't be read: {error}.") from None
                if "\0" in text:
                    raise DataError(f"{self.path} is no CSV table: its header has zero bytes.")
                return header
        return []

    def _csv(self) -> Iterator[Record]:
        with self.path.open("rb") as file:
            lines = _lines(file, self.path)
            next(lines, None)
            waiting: list[tuple[int, bytes]] = []
            while True:
                if not waiting:
                    waiting.extend(islice(lines, 1))
                if not waiting:
                    return
                row, line = waiting.pop(0)
                if not line.strip():
                    continue
                cells, error = self._parsed(line)
                if error == "unclosed":
                    waiting.extend(islice(lines, QUOTED_LINES - len(waiting)))
                    cells, error, used = self._quoted(line, waiting)
                    del waiting[:used]
                    row += used
                yield self._csv_record(row, cells, error)

    def _csv_record(self, row: int, cells: list[str], error: str | None) -> Record:
        if error is None and any(cells[len(self.columns) :]):
            error = f"it has {len(cells)} cells, the header {len(self.columns)}."
        if error is None and any("\0" in cell for cell in cells):
            error = "it has zero bytes."
        return Record(row, dict(zip(self.columns, cells, strict=False)), error)

    def _quoted(self, line: bytes, following: list[tuple[int, bytes]]) -> tuple[list[str], str | None, int]:
        """A record with a quoted cell over several lines, unless the quote is damage: then it costs its line alone."""
        joined = line
        for used, (_, more) in enumerate(following, start=1):
            joined += more
            try:
                cells = self._cells(joined.decode("utf-8"), strict=True)
            except (csv.Error, UnicodeDecodeError) as error:
                alone, _ = self._parsed(more)
                if "unexpected end" in str(error) and not len(alone) == len(self.columns) > 1:
                    continue
                break  # it is damage, or a record of its own has been swallowed
            if len(cells) == len(self.columns):
                return cells, None, used
            break
        first = line.decode("utf-8", "replace").partition('"')[0]
        return self._cells(first), "a quote is opened and never closed.", 0

    def _parsed(self, line: bytes) -> tuple[list[str], str | None]:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            # What can be told of the row still names it.
            cells, _ = self._parsed(line.decode("utf-8", "backslashreplace").encode())
            return cells, f"the line is not UTF-8 (byte {error.start}). Save the table in UTF-8."
        try:
            return self._cells(text, strict=True), None
        except csv.Error as error:
            if "unexpected end" in str(error):
                return [], "unclosed"
        try:
            return self._cells(text), None
        except csv.Error as error:
            return [], f"the line can't be read: {error}."

    def _cells(self, text: str, strict: bool = False) -> list[str]:
        return next(csv.reader([text], delimiter=self._delimiter, strict=strict), [])

    # JSON

    def _json_lines(self) -> Iterator[Record]:
        with self.path.open("rb") as file:
            for row, line in _lines(file, self.path):
                if line.strip():
                    yield _json_record(row, line)

    def _json_list(self) -> Iterator[Record]:
        records = read_json(self.path)
        if not isinstance(records, list):
            raise DataError(f"{self.path} should hold a list of objects, one a row.")
        for row, record in enumerate(records, start=1):
            if isinstance(record, dict):
                yield Record(row, record)
            else:
                yield Record(row, {}, "it is no JSON object.")

    # Parquet

    def _open_parquet(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.path)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{self.path} is no Parquet file: {error}") from None

    def _parquet(self) -> Iterator[Record]:
        with self._open_parquet() as file:
            row = 1
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                try:
                    for batch in file.iter_batches(batch_size=1000, row_groups=[group]):
                        for cells in batch.to_pylist():
                            yield Record(row, cells)
                            row, count = row + 1, count - 1
                except (pa.ArrowException, OSError, ValueError) as error:
                    yield Record(row, {}, f"{count} rows from here on can't be read: {error}")
                    row += count


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    row = 0
    while line := file.readline(LINE_BYTES):
        row += 1
        if len(line) == LINE_BYTES:
            raise DataError(f"{path}, line {row} is longer than {LINE_BYTES} bytes: this is no table of text.")
        yield row, line


def _json_record(row: int, line: bytes) -> Record:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Record(row, {}, f"the line is not UTF-8 (byte {error.start}).")
    except (ValueError, RecursionError) as error:
        return Record(row, {}, f"the line is not JSON: {error}.")
    return Record(row, record) if isinstance(record, dict) else Record(row, {}, "the line is no JSON object.")


def read_json(path: Path) -> Any:
    """
    A whole JSON file.

    Raises:
        [`~sage_hf.data.DataError`]: there is no such file, or it is not JSON in UTF-8.
    """
    check_file(path)
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}).") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}.") from None


def text_of(cell: Any) -> str:
    """
    A cell that names something: text, or a whole number such as an id.

    Raises:
        [`~sage_hf.data.DataError`]: it holds something else.
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, bool) or not isinstance(cell, (str, int)):
        raise DataError(f"{str(cell)[:80]!r} is no text.")
    return str(cell).strip()
