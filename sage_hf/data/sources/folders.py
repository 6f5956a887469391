"""Maps in a folder that mirrors the pictures' folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..annotations import MapFile
from ..formats import picture_extensions
from .files import FileIndex
from .rows import Entry, Found


class MapFolder:
    """
    A map a picture: the same relative path, with any extension, `.npy` included.

    Args:
        folder (`Path`): the maps' folder.
        classes (`tuple[int | str, ...]`, *optional*): the values or colours that mark, of multi-class masks.

    Raises:
        [`~sage_hf.data.DataError`]: there is no such folder.
    """

    names_labels = False
    names_pictures = False

    def __init__(self, folder: Path, classes: tuple[int | str, ...] | None = None):
        self.where, self.classes = str(folder), classes
        self.files = FileIndex(folder, picture_extensions() | {".npy"}, "maps")

    def find(self, file: str) -> Found:
        """The map of a picture; see `AnnotationSource`."""
        name = self.files.find(file)
        if name is None:
            return Found()
        return Found((MapFile(self.files.path(name), os.path.basename(name), self.classes),))

    def entries(self) -> Iterator[Entry]:
        """Every map."""
        return (Entry(None, name) for name in self.files.names)

    def unused(self) -> Iterator[Entry]:
        """The maps without a picture."""
        return (Entry(None, name) for name in self.files.unused())
