"""
Rows become parts: a Parquet file for some hundred rows each, made by several processes, kept until all is done.

A part is named by a hash of everything that it is made from: the settings, the rows, and the size and time of their
files. So a repeated run finds the parts that are done already, and makes those that changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..problem_types import MULTI_LABEL, REGRESSION
from ..version import __version__
from .annotations import Annotation, Coarsened, Combined, MachineSaliency
from .metadata import strip_metadata
from .pictures import check_picture, encoded_map, open_picture, read_file
from .saliency import DataError
from .sources import SourceRow
from .workers import in_order

PART_ROWS = 200
PART_BYTES = 64_000_000
"""Most bytes of pictures that a part holds in memory: when its rows are cut, and when it is written."""
IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
NOTE = b"sage_hf.part"
SOURCE, HUMAN = "saliency_source", "human"
"""The column that says who made a map, and what it says of people."""


@dataclass(frozen=True)
class MapSettings:
    """
    How annotations become maps.

    Args:
        annotators (`str`): `"mean"`, `"union"` or `"intersection"` of several annotators' maps, or `"keep"` for a list
            of maps.
        granularity (`str`, *optional*): `"box"`, `"area"` or `"feature"`, see [`~annotations.Coarsened`].

    Raises:
        `ValueError`: there is no such choice.
    """

    annotators: str = "mean"
    granularity: str | None = None

    def __post_init__(self) -> None:
        choices = {
            "annotators": ("mean", "union", "intersection", "keep"),
            "granularity": (None, "box", "area", "feature"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                known = ", ".join(filter(None, allowed))
                raise ValueError(f"Unknown {name} {getattr(self, name)!r}. Choose one of {known}.")

    def maps(self, row: SourceRow, size: tuple[int, int]) -> list[Any]:
        """
        The maps of a row, (height, width) in [0, 1], none if nothing is marked; at most one unless annotators are kept
        apart.

        Raises:
            [`DataError`]: an annotation that can't be right.
        """
        annotations: tuple[Annotation, ...] = row.annotations
        if self.annotators != "keep" and len(annotations) > 1:
            annotations = (Combined(annotations, self.annotators),)  # type: ignore[arg-type]
        if self.granularity is not None:
            annotations = tuple(Coarsened(one, self.granularity) for one in annotations)  # type: ignore[arg-type]
        return [values for one in annotations if (values := one.saliency(size)) is not None]


@dataclass(frozen=True)
class PartSettings:
    """
    What a part depends on beside its rows.

    Args:
        maps ([`MapSettings`]): how annotations become maps.
        problem_type (`str`): see [`~sage_hf.tasks.Task`].
        metadata (`str`, *optional*, defaults to `"keep"`): `"strip"` to remove it from pictures.
        machine ([`~annotations.MachineSaliency`], *optional*): makes the maps of rows in which nothing is marked.
        columns (`tuple[tuple[str, pyarrow.DataType], ...]`): names and types of further columns.

    Raises:
        `ValueError`: there is no such choice.
    """

    maps: MapSettings
    problem_type: str
    metadata: str = "keep"
    machine: MachineSaliency | None = None
    columns: tuple[tuple[str, pa.DataType], ...] = ()

    def __post_init__(self) -> None:
        if self.metadata not in ("keep", "strip"):
            raise ValueError(f"Unknown metadata {self.metadata!r}. Choose one of keep, strip.")

    @property
    def schema(self) -> pa.Schema:
        """The columns of a part; labels are names until all of them are known."""
        label = {MULTI_LABEL: pa.list_(pa.string()), REGRESSION: pa.float32()}.get(self.problem_type, pa.string())
        saliency = pa.list_(IMAGE_TYPE) if self.maps.annotators == "keep" else IMAGE_TYPE
        source = {} if self.machine is None else {SOURCE: pa.string()}
        return pa.schema(
            {"image": IMAGE_TYPE, "saliency": saliency, "label": label, "split": pa.string()}
            | source
            | dict(self.columns)
        )


@dataclass
class Part:
    """
    A part that is done.

    Args:
        path (`Path`): its file.
        rows (`list[SourceRow]`): its rows, in order; those that have an error are not in the file.
        refused (`dict[int, str]`): why rows were found unusable when it was made, by their place among those without
            an error.
        annotated (`int`): rows with a map.
        machine_made (`int`): rows whose map a model has made.
        labels (`Counter[str]`): rows by class.
        reused (`bool`): whether an earlier run had made it.
    """

    path: Path
    rows: list[SourceRow]
    refused: dict[int, str] = field(default_factory=dict)
    annotated: int = 0
    machine_made: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    reused: bool = False


def cut(rows: Iterable[SourceRow]) -> Iterator[list[SourceRow]]:
    """Rows in lists that are short enough for memory."""
    part: list[SourceRow] = []
    size = 0
    for row in rows:
        part.append(row)
        size += len(row.picture) if isinstance(row.picture, bytes) else 0
        if len(part) >= PART_ROWS or size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def usable(rows: Iterable[SourceRow]) -> list[SourceRow]:
    """The rows without an error."""
    return [row for row in rows if row.error is None]


def fingerprint(settings: Any, rows: Iterable[SourceRow]) -> str:
    """A hash of settings, of rows and of the state of their files."""
    digest = hashlib.sha256(f"{__version__} {settings!r}".encode())
    for row in rows:
        described = (row.file, row.label, row.split, _state(row.picture), _state(row.annotations), row.columns)
        digest.update(repr(described).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:32]


def _state(value: Any) -> Any:
    """What tells one state of files from another, wherever in an annotation they are."""
    if isinstance(value, Path):
        try:
            status = value.stat()
        except OSError:
            return (str(value), None)
        return (str(value), status.st_size, status.st_mtime_ns)
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if is_dataclass(value):
        return (type(value).__name__, *(_state(getattr(value, option.name)) for option in fields(value)))
    if isinstance(value, tuple) and any(is_dataclass(one) or isinstance(one, (Path, bytes)) for one in value):
        return tuple(map(_state, value))
    return value


def make_part(rows: list[SourceRow], settings: PartSettings, path: Path) -> None:
    """
    Write a part, whole or not at all.

    Args:
        rows (`list[SourceRow]`): its rows, none with an error.
        settings ([`PartSettings`]): how.
        path (`Path`): the file.
    """
    schema, scratch = settings.schema, path.with_name(f"{path.name}.{os.getpid()}")
    refused: dict[int, str] = {}
    annotated, machine_made, labels = 0, 0, Counter[str]()
    with pq.ParquetWriter(scratch, schema) as writer:
        made: list[dict[str, Any]] = []
        size = 0
        for index, row in enumerate(rows):
            try:
                example = _example(row, settings)
            except DataError as error:
                refused[index] = str(error)
                continue
            except Exception as error:  # no row may cost the others, whatever is found in it
                refused[index] = f"{type(error).__name__}: {error}"
                continue
            annotated += bool(example["saliency"])
            machine_made += settings.machine is not None and example[SOURCE] not in (None, HUMAN)
            if settings.problem_type != REGRESSION:
                labels.update(row.label if isinstance(row.label, tuple) else [str(row.label)])
            made.append(example)
            size += len(example["image"]["bytes"])
            if size >= PART_BYTES:
                writer.write_table(pa.Table.from_pylist(made, schema))
                made, size = [], 0
        writer.write_table(pa.Table.from_pylist(made, schema))
        note = {"refused": refused, "annotated": annotated, "machine_made": machine_made, "labels": labels}
        writer.add_key_value_metadata({NOTE.decode(): json.dumps(note)})
    os.replace(scratch, path)


def _example(row: SourceRow, settings: PartSettings) -> dict[str, Any]:
    assert row.picture is not None
    name = os.path.basename(row.file)
    content = row.picture if isinstance(row.picture, bytes) else read_file(row.picture)
    size = check_picture(content, name)
    if settings.metadata == "strip":
        content = strip_metadata(content)
    title = f"{os.path.splitext(name)[0]}.png"
    marked, source = settings.maps.maps(row, size), {}
    if settings.machine is not None:
        source = {SOURCE: HUMAN if marked else None}
        if not marked:
            asked = replace(row, annotations=(_Asked(settings.machine, content),))
            marked = settings.maps.maps(asked, size)
            source = {SOURCE: settings.machine.source if marked else None}
    maps = [{"bytes": encoded_map(values), "path": title} for values in marked]
    kept_apart = settings.maps.annotators == "keep"
    return {
        "image": {"bytes": content, "path": name},
        "saliency": maps if kept_apart else maps[0] if maps else None,
        "label": list(row.label) if isinstance(row.label, tuple) else row.label,
        "split": row.split,
        **source,
        **dict(row.columns),
    }


@dataclass(frozen=True)
class _Asked:
    """What a model marks in a picture."""

    machine: MachineSaliency
    content: bytes

    def saliency(self, size: tuple[int, int]) -> np.ndarray | None:
        """See [`~annotations.Annotation`]."""
        return self.machine.saliency_of(open_picture(self.content))


def done_parts(
    rows: Iterable[SourceRow], settings: PartSettings, folder: Path, num_proc: int
) -> Generator[Part, None, None]:
    """
    Parts of all rows, in order, those made that an earlier run has not left in the folder.

    Args:
        rows (`Iterable[SourceRow]`): read as they are needed.
        settings ([`PartSettings`]): how.
        folder (`Path`): of the parts.
        num_proc (`int`): processes.

    Raises:
        `ChildProcessError`: a process was killed.
    """

    def tasks() -> Iterator[tuple[tuple[Path, list[SourceRow], Part | None], tuple[Any, ...] | None]]:
        for part in cut(rows):
            good = usable(part)
            path = folder / f"{fingerprint(settings, good)}.parquet"
            found = read_part(path, part)
            yield (path, part, found), None if found else (good, settings, path)

    for (path, part, found), _ in in_order(tasks(), make_part, num_proc):
        done = found or read_part(path, part)
        if done is None:
            raise OSError(f"{path} was written a moment ago, and can't be read. Is the disk full or failing?")
        done.reused = found is not None
        yield done


def read_part(path: Path, rows: list[SourceRow]) -> Part | None:
    """A part that was made before, `None` if there is none, or none that is whole."""
    try:
        with pq.ParquetFile(path) as file:
            note = json.loads((file.metadata.metadata or {})[NOTE])
        refused = {int(index): reason for index, reason in note["refused"].items()}
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    return Part(path, rows, refused, note["annotated"], note["machine_made"], Counter(note["labels"]))
