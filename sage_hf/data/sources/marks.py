"""Annotations of a whole set held by picture: what tables and COCO files come to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .files import without_extension
from .rows import Entry

Content = TypeVar("Content")


@dataclass
class Marks(Generic[Content]):
    """What a set holds about one picture."""

    file: str
    row: int | None
    content: Content
    labels: dict[str, None] = field(default_factory=dict)
    error: str | None = None
    used: bool = False


class MarksByPicture(Generic[Content]):
    """Marks in the order of their first mention, looked up by relative path or id."""

    def __init__(self) -> None:
        self.of_path: dict[str, Marks[Content]] = {}
        self._of_stem: dict[str, Marks[Content] | None] | None = None
        self.nameless: list[Entry] = []
        """Damaged places that name no picture."""

    def add(self, file: str, row: int | None, content: Content) -> Marks[Content]:
        """The marks of a picture, made at its first mention."""
        path = _normal(file)
        if path not in self.of_path:
            self.of_path[path] = Marks(file, row, content)
            self._of_stem = None
        return self.of_path[path]

    def find(self, file: str) -> Marks[Content] | None:
        """
        The marks of exactly that path, or of that path without its extension, or of the only one that differs from it
        in the extension alone.
        """
        path = _normal(file)
        # An id has no extension: `1001` is told of as `1001.jpg`, and the other way round.
        stem = without_extension(path)
        found = self.of_path.get(path) or self.of_path.get(stem)
        if found is None:
            if self._of_stem is None:
                self._of_stem = {}
                for known, marks in self.of_path.items():
                    bare = without_extension(known)
                    self._of_stem[bare] = None if bare in self._of_stem else marks
            found = self._of_stem.get(path) or self._of_stem.get(stem)
        if found is not None:
            found.used = True
        return found

    def entries(self) -> Iterator[Entry]:
        """Every picture, then the damaged places."""
        yield from (Entry(marks.row, marks.file, marks.error) for marks in self.of_path.values())
        yield from self.nameless

    def unused(self) -> Iterator[Entry]:
        """What no `find` has asked for."""
        yield from (Entry(marks.row, marks.file, marks.error) for marks in self.of_path.values() if not marks.used)
        yield from self.nameless


def _normal(file: str) -> str:
    """The path as pictures have it: tables that were written on Windows have other slashes."""
    return os.path.normpath(file.replace("\\", "/"))
