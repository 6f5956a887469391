"""Boxes or fixation points in a table, one a row."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..annotations import Boxes, Fixations
from ..saliency import DataError
from .labels import number_of
from .marks import MarksByPicture
from .rows import Entry, Found
from .tables import Record, Table, text_of

FILE_COLUMNS = ("file_name", "file", "filename", "image", "path", "id")
"""Columns of picture files that are found by themselves."""
LABEL_COLUMNS = ("label", "class", "category", "class_name", "category_name")
POINT_COLUMNS = (("x", "y"), ("fixation_x", "fixation_y"))
DURATION_COLUMNS = ("duration", "fixation_duration")
BOX_COLUMNS = {
    "xyxy": (
        ("x_min", "y_min", "x_max", "y_max"),
        ("xmin", "ymin", "xmax", "ymax"),
        ("x1", "y1", "x2", "y2"),
        ("left", "top", "right", "bottom"),
    ),
    "xywh": (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height")),
    "cxcywh": (
        ("cx", "cy", "w", "h"),
        ("cx", "cy", "width", "height"),
        ("x_center", "y_center", "width", "height"),
    ),
}
SIZE_COLUMNS = ("image_width", "image_height")


def file_column(table: Table, named: str | None) -> str:
    """
    The column of picture files.

    Raises:
        [`~sage_hf.data.DataError`]: there is none of a usual name, or not the one that was named.
    """
    table.check_columns(named)
    column = named or next((column for column in FILE_COLUMNS if column in table.columns), None)
    if column is None:
        raise DataError(
            f"{table.path}: no column of picture files among {table.columns}. Name it with file_column "
            "(--file-column)."
        )
    return column


def box_columns(columns: Sequence[str], box_format: str | None) -> tuple[str, tuple[str, ...]] | None:
    """The format of a table's boxes and their columns, `None` if it has none; `bbox` holds four numbers."""
    for name, groups in BOX_COLUMNS.items():
        for group in groups if box_format in (None, name) else ():
            if set(group) <= set(columns):
                return name, group
    return (box_format, ("bbox",)) if box_format and "bbox" in columns else None


@dataclass
class _Picture:
    """A picture's numbers by annotator: flat arrays, since a table may have millions of points."""

    numbers: dict[str, array[float]] = field(default_factory=dict)
    size: tuple[int, int] | None = None


class AnnotationTable:
    """
    A table with a box or a fixation a row, in any order; rows of one picture are taken together.

    Args:
        table ([`Table`]): it is read whole, and held as plain numbers.
        kind (`str`): `"boxes"` or `"fixations"`.
        file_column (`str`, *optional*): column of the pictures' files or ids.
        box_format (`str`, *optional*): `"xyxy"`, `"xywh"` or `"cxcywh"`; told by the columns' names if not given.
        normalised (`bool`, *optional*, defaults to `False`): whether coordinates are shares of width and height.
        sigma (`float`, *optional*): of fixations, in pixels.
        categories (`tuple[str, ...]`, *optional*): the labels whose boxes mark; all if not given.

    Raises:
        [`~sage_hf.data.DataError`]: columns that are missing.
        `ValueError`: fixations without `sigma`.
    """

    names_pictures = True

    def __init__(
        self,
        table: Table,
        kind: str,
        *,
        file_column: str | None = None,
        box_format: str | None = None,
        normalised: bool = False,
        sigma: float | None = None,
        categories: tuple[str, ...] | None = None,
    ):
        self.where, self.kind, self.normalised, self.categories = str(table.path), kind, normalised, categories
        self.table, self.file_column = table, _file_column(table, file_column)
        self.annotator_column = next(iter({"annotator"} & set(table.columns)), None)
        self.label_column = next((column for column in LABEL_COLUMNS if column in table.columns), None)
        if categories and self.label_column is None:
            raise DataError(f"{table.path}: categories need a column of labels, one of {', '.join(LABEL_COLUMNS)}.")
        self.names_labels = self.label_column is not None
        self.has_durations = False
        if kind == "boxes":
            found = box_columns(table.columns, box_format)
            if found is None:
                known = " / ".join(" ".join(group) for groups in BOX_COLUMNS.values() for group in groups)
                raise DataError(
                    f"{table.path}: no columns of boxes among {', '.join(table.columns)}. They are called one of "
                    f"{known}; a column bbox of four numbers needs --box-format."
                )
            self.box_format, self.columns = found
        else:
            self._fixation_columns()
            if sigma is None:
                raise ValueError(
                    "Fixations need the width of their Gaussians: sigma in pixels (--sigma), or the visual angle with "
                    "the viewing distance and pixel pitch."
                )
            self.sigma = sigma
        self.marks: MarksByPicture[_Picture] = MarksByPicture()
        for record in table:
            self._add(record)

    def _fixation_columns(self) -> None:
        found = next((group for group in POINT_COLUMNS if set(group) <= set(self.table.columns)), None)
        if found is None:
            raise DataError(
                f"{self.where}: no columns of fixations among {', '.join(self.table.columns)}. They are called x and "
                "y, or fixation_x and fixation_y."
            )
        duration = next((column for column in DURATION_COLUMNS if column in self.table.columns), None)
        self.has_durations = duration is not None
        self.columns = (*found, duration) if duration else found

    def _add(self, record: Record) -> None:
        try:
            file = text_of(record.cells.get(self.file_column))
        except DataError as error:
            file, record = "", Record(record.row, {}, f"its picture: {error}")
        if not file:
            self.marks.nameless.append(Entry(record.row, "", record.error or "it names no picture."))
            return
        marks = self.marks.add(file, record.row, _Picture())
        try:
            if record.error is not None:
                raise DataError(record.error)
            label = text_of(record.cells.get(self.label_column)) if self.label_column else ""
            marks.labels |= {label: None} if label else {}
            marks.content.size = self._size(record.cells) or marks.content.size
            if self.categories is None or label in self.categories:
                annotator = text_of(record.cells.get(self.annotator_column)) if self.annotator_column else ""
                numbers = self._numbers(record.cells)
                marks.content.numbers.setdefault(annotator, array("d")).extend(numbers)
        except DataError as error:
            # Half of a picture's marks would make another map: the picture is refused, once.
            marks.error = marks.error or f"{self.where}, line {record.row}: {error}"

    def _numbers(self, cells: dict[str, Any]) -> list[float]:
        if self.columns == ("bbox",):
            value = cells.get("bbox")
            if isinstance(value, str):
                try:
                    value = json.loads(value)
                except (ValueError, RecursionError):
                    raise DataError(f"bbox {value[:80]!r} is no JSON list of four numbers.") from None
            values = value if isinstance(value, (list, tuple)) and len(value) == 4 else [None]
        else:
            values = [cells.get(column) for column in self.columns]
        numbers = [number_of(value) for value in values]
        for column, value, number in zip(self.columns * len(numbers), values, numbers, strict=False):
            if number is None:
                raise DataError(f"{column} {str(value)[:80]!r} is no finite number.")
        return [number for number in numbers if number is not None]

    def _size(self, cells: dict[str, Any]) -> tuple[int, int] | None:
        if not set(SIZE_COLUMNS) <= cells.keys():
            return None
        width, height = (number_of(cells[column]) for column in SIZE_COLUMNS)
        if not width or not height or width < 1 or height < 1:
            raise DataError(f"{' and '.join(SIZE_COLUMNS)} are no size in pixels.")
        return int(width), int(height)

    def find(self, file: str) -> Found:
        """The annotations of a picture, one an annotator; see `AnnotationSource`."""
        marks = self.marks.find(file)
        if marks is None:
            return Found()
        if marks.error is not None:
            raise DataError(marks.error)
        size = marks.content.size
        made = tuple(self._annotation(numbers, size) for numbers in marks.content.numbers.values() if numbers)
        return Found(made, tuple(marks.labels))

    def _annotation(self, numbers: array[float], size: tuple[int, int] | None) -> Boxes | Fixations:
        if self.kind == "boxes":
            boxes = tuple(zip(numbers[0::4], numbers[1::4], numbers[2::4], numbers[3::4], strict=True))
            return Boxes(boxes, self.box_format, self.normalised, size)  # type: ignore[arg-type]
        step = len(self.columns)
        points = tuple(zip(numbers[0::step], numbers[1::step], strict=True))
        durations = tuple(numbers[2::step]) if self.has_durations else None
        return Fixations(points, self.sigma, durations, size, self.normalised)

    def entries(self) -> Iterator[Entry]:
        """Every picture, at its first row."""
        return self.marks.entries()

    def unused(self) -> Iterator[Entry]:
        """The pictures that were not asked for, and the rows that name none."""
        return self.marks.unused()


_file_column = file_column  # the argument has the function's name
