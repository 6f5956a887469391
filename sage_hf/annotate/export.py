"""From what annotators did to a dataset, by the same builder as any other annotation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..data.annotations import MapFile
from ..data.build import BuildReport, build_dataset
from ..data.saliency import DataError
from ..data.sources import SourceRow
from ..problem_types import SINGLE_LABEL
from .pictures import open_picture
from .project import Project
from .record import FINISHED, Record


@dataclass
class ExportReport:
    """What an export wrote, and what it left out."""

    out: str
    built: BuildReport
    annotators: list[str]
    """Those whose work it holds."""
    unfinished: int = 0
    """Pictures that nobody has finished."""
    skipped: int = 0
    """Pictures that everybody who finished them has skipped."""
    nothing: int = 0
    """Rows without a map, because an annotator says that nothing in them matters."""
    disagreements: list[str] = field(default_factory=list)
    """Pictures that annotators labelled differently; what most of them say was taken."""

    def summary(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        return self.built.summary() | {
            "out": self.out,
            "annotators": self.annotators,
            "unfinished": self.unfinished,
            "skipped": self.skipped,
            "nothing": self.nothing,
            "disagreements": self.disagreements,
        }


def export_annotations(
    project: Project,
    out: str | Path,
    *,
    annotators: Sequence[str] | None = None,
    metadata: str = "keep",
    on_error: str = "raise",
    num_proc: int = 1,
) -> ExportReport:
    """
    Write the dataset of all finished pictures, as [`~sage_hf.data.build_dataset`] does.

    Columns beside `image`, `saliency` and `label`: `note` (text; of several annotators each line has a name before
    it), and `saliency_source`: `human`, `machine: MODEL` for a guess that was accepted as it is, or `human on machine:
    MODEL` for a guess that was edited. With several annotators `saliency` is a list of maps, and `saliency_source` and
    `annotator` are lists of the same length.

    Args:
        project ([`Project`]): the pictures and what was said about them.
        out (`str` or `Path`): folder to write; must not exist or be empty.
        annotators (`Sequence[str]`, *optional*): whose work; everybody's if not given.
        metadata (`str`, *optional*, defaults to `"keep"`): `"strip"` to remove EXIF, XMP and comments from pictures.
        on_error (`str`, *optional*, defaults to `"raise"`): see [`~sage_hf.data.build_dataset`]. Rows that can't be
            used are those whose picture has changed since, and those for which as many annotators say one label as
            another.
        num_proc (`int`, *optional*, defaults to 1): processes.

    Returns:
        [`ExportReport`]

    Raises:
        [`~sage_hf.data.DataError`]: an annotator of whom nothing is kept, nothing finished, nothing marked, rows that
            can't be used.
        `FileExistsError`: `out` holds something.

    Example:

    ```python
    >>> from sage_hf.annotate import export_annotations
    >>> export_annotations(project, "dataset").built.kept  # doctest: +SKIP
    120

    ```
    """
    reader = AnnotationReader(project, annotators)
    built = build_dataset(
        reader,
        out,
        classes=project.classes or None,
        annotators="keep" if len(reader.annotators) > 1 else "mean",
        metadata=metadata,
        on_error=on_error,
        num_proc=num_proc,
    )
    return ExportReport(
        str(out), built, reader.annotators, reader.unfinished, reader.skipped, reader.nothing, reader.disagreements
    )


class AnnotationReader:
    """
    The finished pictures of a project as rows that are built from; a `RowReader`.

    Args:
        project ([`Project`]): of them.
        annotators (`Sequence[str]`, *optional*): whose work; everybody's who has finished a picture if not given.

    Raises:
        [`~sage_hf.data.DataError`]: nothing is kept of an annotator, or nobody has finished anything.
    """

    problem_type = SINGLE_LABEL

    def __init__(self, project: Project, annotators: Sequence[str] | None = None):
        self.project, self.where = project, str(project.store.folder)
        known = project.store.annotators()
        folded = {name.casefold(): name for name in known}
        if unknown := [name for name in annotators or () if name.casefold() not in folded]:
            raise DataError(
                f"nothing is kept of {', '.join(unknown)}; the annotators are {', '.join(known) or 'none'}."
            )
        chosen = [folded[name.casefold()] for name in annotators] if annotators is not None else known
        self.annotators: list[str] = []
        self._records: dict[str, list[Record]] = {}
        for name in chosen:
            finished = [record for record in project.store.records(name) if record.status in FINISHED]
            if finished:
                self.annotators.append(name)
            for record in finished:
                self._records.setdefault(record.picture, []).append(replace(record, annotator=name))
        if not self._records:
            raise DataError(f"{self.where}: no picture is finished yet.")
        self.class_names = project.classes or None
        text: pa.DataType = pa.string()
        self.several = len(self.annotators) > 1
        self.columns: dict[str, pa.DataType] = {"note": text}
        self.columns |= (
            {"saliency_source": pa.list_(text), "annotator": pa.list_(text)}
            if self.several
            else {"saliency_source": text}
        )
        self.unused: list[str] = []
        self.unfinished = self.skipped = self.nothing = 0
        self.disagreements: list[str] = []

    @property
    def total(self) -> int:
        """About how many rows there are."""
        return len(self._records)

    def rows(self) -> Iterator[SourceRow]:
        """The rows, in the order of the pictures; then records of pictures that aren't there."""
        left = dict(self._records)
        for index, name in enumerate(self.project.pictures.names):
            records = left.pop(name, [])
            kept = [record for record in records if record.status != "skipped"]
            self.unfinished += not records
            self.skipped += bool(records) and not kept
            if kept:
                yield self._row(index, kept)
        self.unused = sorted(left)

    def _row(self, index: int, records: list[Record]) -> SourceRow:
        row = self.project.pictures.row(index)
        try:
            if row.error is not None:
                raise DataError(row.error)
            if any(record.sha256 != open_picture(row).sha256 for record in records):
                raise DataError("the picture has changed since it was annotated. Annotate it again.")
            label = self._label(records)
            marked = [(record, png) for record in records if (png := self.project.store.map_png(record)) is not None]
        except DataError as error:
            return replace(row, error=str(error), columns=self._columns([], records))
        self.nothing += not marked
        annotations = tuple(MapFile(png, f"the map by {record.annotator}") for record, png in marked)
        columns = self._columns([record for record, _ in marked], records)
        return replace(row, label=label, annotations=annotations, columns=columns)

    def _columns(self, marked: list[Record], records: list[Record]) -> tuple[tuple[str, Any], ...]:
        sources = [record.source for record in marked]
        if not self.several:
            return (("note", records[0].note), ("saliency_source", sources[0] if sources else None))
        notes = "\n".join(f"{record.annotator}: {record.note}" for record in records if record.note)
        names = [record.annotator for record in marked]
        return (("note", notes), ("saliency_source", sources), ("annotator", names))

    def _label(self, records: list[Record]) -> str | None:
        votes = Counter(record.label for record in records)
        (label, most), *others = votes.most_common()
        if others:
            said = ", ".join(f"{record.annotator} {record.label!r}" for record in records)
            if others[0][1] == most:
                raise DataError(f"annotators disagree about its label: {said}. Settle it on the page.")
            self.disagreements.append(f"{records[0].picture}: {said}")
        return label


def free_folder(folder: Path) -> Path:
    """The folder, or the first of `FOLDER-2`, `FOLDER-3`, ... that isn't there yet, or is empty."""
    number, found = 1, folder
    while found.exists() and (not found.is_dir() or any(found.iterdir())):
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    return found
