"""What every kind of source yields, whatever it is read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from ..annotations import Annotation

Label = str | float | tuple[str, ...] | None
"""A class name, a number, several class names, or nothing."""


@dataclass(frozen=True)
class SourceRow:
    """
    A picture on its way into a dataset, or why it can't get there.

    Args:
        where (`str`): what names it, as in `"labels.csv, line 3"`.
        row (`int`, *optional*): its line or number there, counted from 1.
        file (`str`): its name in the source.
        picture (`Path` or `bytes`, *optional*): where it is, or the picture file itself.
        label (`str`, `float` or `tuple[str, ...]`, *optional*): class name, number, or class names.
        split (`str`): name of its split.
        annotations (`tuple[Annotation, ...]`): one for each annotator who marked anything.
        error (`str`, *optional*): why the row can't be used.
        columns (`tuple[tuple[str, Any], ...]`): names and values of further columns.
    """

    where: str
    row: int | None
    file: str
    picture: Path | bytes | None = None
    label: Label = None
    split: str = "train"
    annotations: tuple[Annotation, ...] = ()
    error: str | None = None
    columns: tuple[tuple[str, Any], ...] = ()


class RowReader(Protocol):
    """Whatever gives the rows of a dataset that is to be built."""

    where: str
    """What errors call it."""
    columns: dict[str, pa.DataType]
    """Further columns of its rows, beside picture, map, label and split."""
    class_names: list[str] | None
    """The classes, if they are known beforehand."""
    problem_type: str
    """See [`~sage_hf.tasks.Task`]."""
    unused: list[str]
    """After `rows`: annotations of pictures that became no row."""

    @property
    def total(self) -> int | None:
        """About how many rows there are, if that is known before they are read."""

    def rows(self) -> Iterator[SourceRow]:
        """Every row, usable or not."""


@dataclass(frozen=True)
class Found:
    """What a set of annotations says about a picture."""

    annotations: tuple[Annotation, ...] = ()
    labels: tuple[str, ...] = ()
    """Names of what was marked, each once, in order."""


@dataclass(frozen=True)
class Entry:
    """A place in a set of annotations that is about one picture."""

    row: int | None
    file: str
    error: str | None = None


class AnnotationSource(Protocol):
    """A set of annotations, looked up by picture."""

    where: str
    """What errors call it."""
    names_labels: bool
    """Whether it says what was marked, so that labels can be read from it."""
    names_pictures: bool
    """Whether it was written for a list of pictures, all of which should be there."""

    def find(self, file: str) -> Found:
        """
        The annotations of the picture of that relative path or id, whose extension may differ.

        Raises:
            [`~sage_hf.data.DataError`]: they can't be used.
        """

    def entries(self) -> Iterator[Entry]:
        """Every picture that it is about, in its order, and places that are damaged so that they name none."""

    def unused(self) -> Iterator[Entry]:
        """The entries that no `find` has asked for, those without a picture included."""
