"""The rows of a source: pictures, their labels and splits, and the annotations of each."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...problem_types import MULTI_LABEL, SINGLE_LABEL
from ..annotations import Annotation, MapFile
from ..formats import picture_extensions
from ..saliency import DataError
from .annotation_tables import file_column
from .files import FileIndex
from .kinds import annotation_source
from .labels import parse_label
from .rows import AnnotationSource, Entry, Label, SourceRow
from .source import Source
from .tables import Table, text_of

if TYPE_CHECKING:
    import pyarrow as pa

    from .existing import DatasetRow, ExistingDataset

logger = logging.getLogger(__name__)

SPLIT_NAMES = {
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "testing": "test",
}
SPLIT_FOLDERS = {name: name for name in ("train", "validation", "test")} | SPLIT_NAMES
# As `load_dataset("imagefolder")` takes them. In a table, which may have a split `test` as well, they stay.
SPLIT_FOLDERS |= {"eval": "test", "evaluation": "test"}


@dataclass(frozen=True)
class _Listed:
    """A picture that is to become a row."""

    where: str
    row: int | None
    file: str
    label: Any = None
    split: str = "train"
    error: str | None = None


class SourceReader:
    """
    Reads a [`Source`], one row at a time.

    Args:
        source ([`Source`]): what to read.
        labelled (`bool`, *optional*, defaults to `True`): whether rows need labels.
        annotated (`bool`, *optional*, defaults to `True`): whether a folder of pictures needs annotations.

    Raises:
        [`~sage_hf.data.DataError`]: files or columns that aren't there; damage that is not one row's.
        `ValueError`: settings that don't go together.
    """

    def __init__(self, source: Source, *, labelled: bool = True, annotated: bool = True):
        if annotated and source.images is not None and not source.saliency:
            raise ValueError("Give saliency: folders of maps, COCO files, VOC folders, or tables.")
        self.source, self.labelled = source, labelled
        self.where = str(source.labels or source.images or source.dataset)
        self.columns: dict[str, pa.DataType] = {}
        self.class_names: list[str] | None = None
        self.problem_type = source.problem_type or SINGLE_LABEL
        self.unused: list[str] = []
        """After `rows`: annotations of pictures that became no row."""
        self.pictures: FileIndex | None = None
        self.existing: ExistingDataset | None = None
        self.table: Table | None = None
        self._joined: dict[str, str] = {}
        if source.images is not None:
            self.pictures = FileIndex(Path(source.images), picture_extensions(), "pictures")
        self.annotations = [annotation_source(Path(path), source) for path in source.saliency]
        if source.dataset is not None:
            self._open_dataset(source.dataset)
        elif source.labels is not None:
            self._open_labels(Path(source.labels))
        self.label_from = self._label_from()
        if labelled and self.pictures is not None and self.table is None:
            self._warn_of_splits(self.pictures.names)

    def _open_dataset(self, dataset: str) -> None:
        # Imported here: processes that work on rows need not load datasets.
        from .existing import ExistingDataset

        self.existing = ExistingDataset(
            dataset,
            name=self.source.dataset_name,
            revision=self.source.dataset_revision,
            id_column=self.source.id_column,
            image_column=self.source.image_column,
            label_column=self.source.label_column,
            labelled=self.labelled,
            with_saliency=not self.annotations,
        )
        self.class_names = self.existing.class_names
        self.problem_type = self.source.problem_type or self.existing.problem_type

    def _open_labels(self, labels: Path) -> None:
        self.table = Table(labels)
        self.file_column = file_column(self.table, self.source.file_column)
        self.label_column = self.source.label_column
        self.table.check_columns(self.label_column, self.source.split_column)
        if self.labelled and self.label_column is None:
            raise DataError(
                f"{labels}: name its column of labels with label_column (--label-column); the columns are "
                f"{', '.join(self.table.columns)}."
            )

    def _label_from(self) -> str:
        if self.existing is not None or self.table is not None:
            return "table"
        assert self.pictures is not None
        if self.source.label_from is not None:
            return self.source.label_from
        if not self.labelled or all(placed(name)[0] for name in self.pictures.names):
            return "folder"
        if any(annotations.names_labels for annotations in self.annotations):
            return "annotation"
        raise DataError(
            f"Nothing gives labels: {self.source.images} is not a folder of class folders, and the annotations don't "
            "say what they mark. Give a table of labels (--labels)."
        )

    def _warn_of_splits(self, names: list[str]) -> None:
        """Say so where all folders look like splits, and some of them, such as `test_set`, are not known as such."""
        folders = {name.split("/")[0] for name in names if "/" in name}
        unknown = sorted(folder for folder in folders if folder.lower() not in SPLIT_FOLDERS)
        # Words as `load_dataset("imagefolder")` tells them apart, by `datasets.data_files.NON_WORDS_CHARS`.
        if unknown and all(set(re.split("[-._ 0-9]", folder.lower())) & SPLIT_FOLDERS.keys() for folder in folders):
            logger.warning(
                "%s: %s look like splits, but are called otherwise, and their pictures go to the training split. "
                "Rename the folders to train, validation or test, or give a table of labels with a column of splits "
                "(--labels, --split-column).",
                self.source.images,
                ", ".join(unknown),
            )

    @property
    def total(self) -> int | None:
        """About how many rows there are, if that is known before they are read."""
        if self.table is not None:
            return self.table.about()
        return len(self.pictures) if self.pictures is not None and self.label_from == "folder" else None

    def rows(self) -> Iterator[SourceRow]:
        """Every row, usable or not, then the annotations that belong to no picture."""
        if self.existing is not None:
            yield from map(self._dataset_row, self.existing)
        elif self.label_from == "annotation":
            yield from self._annotated_rows()
        else:
            yield from map(self._row, self._of_table() if self.table is not None else self._of_folder())
        for source in self.annotations:
            yield from self._leftover(source)

    def _of_table(self) -> Iterator[_Listed]:
        assert self.table is not None
        for record in self.table:
            file, split, error = "", "train", record.error
            try:
                file = text_of(record.cells.get(self.file_column))
                if self.source.split_column is not None:
                    split = text_of(record.cells.get(self.source.split_column))
            except DataError as failure:
                error = error or str(failure)
            label = record.cells.get(self.label_column) if self.label_column is not None else None
            yield _Listed(f"line {record.row}", record.row, file, label, SPLIT_NAMES.get(split, split), error)

    def _of_folder(self) -> Iterator[_Listed]:
        assert self.pictures is not None
        for name in self.pictures.names:
            label, split = placed(name)
            yield _Listed("", None, name, [label] if self.problem_type == MULTI_LABEL else label, split)

    def _annotated_rows(self) -> Iterator[SourceRow]:
        """The pictures that annotations are about, each once; what was marked is their label."""
        seen: set[str | Path | bytes | None] = set()
        for source in self.annotations:
            for entry in source.entries():
                if not entry.file:
                    continue  # one of the leftovers
                row = self._row(_Listed(_where(source, entry), entry.row, entry.file))
                if row.picture is None or row.picture not in seen:
                    yield row
                seen.add(row.picture)

    def _row(self, listed: _Listed) -> SourceRow:
        """A listed picture with its file, its annotations and its label."""
        assert self.pictures is not None
        picture: Path | None = None
        annotations: tuple[Annotation, ...] = ()
        label: Label = None
        file, split, error = listed.file, listed.split, listed.error
        try:
            # Looked up whatever is wrong with the row, so that what is annotated is not taken for a leftover.
            name = self.pictures.find(listed.file)
            if name is None:
                raise DataError(error or "there is no such picture in the folder.")
            picture = self.pictures.path(name)
            if self.label_from == "annotation":
                file, split = name, placed(name)[1]
            annotations, names = self._found(name)
            if error is None and self.labelled:
                label = self._label(listed.label, names)
        except DataError as failure:
            error = error or str(failure)
        return SourceRow(listed.where, listed.row, file, picture, label, split, annotations, error)

    def _found(self, file: str) -> tuple[tuple[Annotation, ...], tuple[str, ...]]:
        annotations: list[Annotation] = []
        names: dict[str, None] = {}
        failure: DataError | None = None
        for source in self.annotations:
            try:
                found = source.find(file)
                annotations += found.annotations
                names |= dict.fromkeys(found.labels)
            except DataError as error:  # the other sources are asked all the same, and know that they were
                failure = failure or error
        if failure is not None:
            raise failure
        return tuple(annotations), tuple(names)

    def _label(self, given: Any, marked: tuple[str, ...]) -> Label:
        if self.label_from != "annotation":
            return parse_label(given, self.problem_type)
        if self.problem_type == MULTI_LABEL:
            return marked
        if not marked:
            raise DataError("nothing is marked that would give it a class. Give a table of labels (--labels).")
        if len(marked) > 1:
            raise DataError(
                f"{', '.join(marked)} are marked in it, and one class is wanted. Give a table of labels (--labels), "
                f"or --problem-type {MULTI_LABEL}."
            )
        return parse_label(marked[0], self.problem_type)

    def _dataset_row(self, row: DatasetRow) -> SourceRow:
        annotations: tuple[Annotation, ...] = ()
        label, error = None, row.error
        where = f"{row.split}, row {row.number}"
        try:
            if self.annotations:
                annotations, _ = self._found(row.identity)
                if annotations and error is None:
                    self._check_joined(row.identity, where)
            else:
                annotations = tuple(MapFile(content, "its map") for content in row.saliency)
            if error is None and self.labelled:
                label = parse_label(row.label, self.problem_type)
        except DataError as failure:
            error = error or str(failure)
        return SourceRow(where, row.number, row.identity, row.picture, label, row.split, annotations, error)

    def _check_joined(self, identity: str, where: str) -> None:
        """Names of pictures may occur twice, in other folders or splits; what is marked in one is not in the other."""
        first = self._joined.setdefault(identity, where)
        if first != where:
            raise DataError(
                f"what is marked in {identity!r} is joined to {first} already. Name a column in which every row has "
                "an id of its own (--id-column)."
            )

    def _leftover(self, annotations: AnnotationSource) -> Iterator[SourceRow]:
        """
        What no row asked for: damage that names no picture, and marks of pictures that aren't there.

        Maps in a folder may be of more pictures than are wanted; so may annotations, as long as the pictures exist.
        """
        for entry in annotations.unused():
            exists = self.pictures is None or not annotations.names_pictures or self._exists(entry.file)
            if entry.file and exists:
                self.unused.append(entry.file)
                continue
            reason = entry.error or "there is no such picture in the folder."
            yield SourceRow(_where(annotations, entry), entry.row, entry.file or annotations.where, error=reason)

    def _exists(self, file: str) -> bool:
        assert self.pictures is not None
        try:
            return self.pictures.find(file) is not None
        except DataError:
            return True


def _where(annotations: AnnotationSource, entry: Entry) -> str:
    return annotations.where if entry.row is None else f"{annotations.where}, entry {entry.row}"


def placed(name: str) -> tuple[str, str]:
    """Class and split by a picture's folders: `CLASS/x.jpg`, `train/CLASS/x.jpg` or `train/x.jpg`."""
    folders = os.path.dirname(name).split("/")
    first = folders[0].lower()
    split = SPLIT_FOLDERS.get(first, "train")
    return ("" if len(folders) == 1 and first in SPLIT_FOLDERS else folders[-1]), split
