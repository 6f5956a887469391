"""Files under a folder, found by relative path: nothing outside of the folder can be reached."""

from __future__ import annotations

import bisect
import os
import stat
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from ..formats import picture_extensions
from ..saliency import DataError

OTHER_EXTENSIONS = (
    *(".npy", ".xml", ".json", ".txt", ".csv", ".heic", ".heif"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".raw"),
    *(".dcm", ".nii", ".nrrd", ".mha", ".svs", ".ndpi", ".mrxs"),
)
"""Of files that go with a picture, or that it was made from, beside the formats of pictures."""


@cache
def _known_extensions() -> frozenset[str]:
    return frozenset(picture_extensions()).union(OTHER_EXTENSIONS)


def without_extension(path: str) -> str:
    """
    A path without the extension of a known kind of file.

    Example:

    ```python
    >>> from sage_hf.data.sources.files import without_extension
    >>> without_extension("a/1.2.840.PNG"), without_extension("a/1.2.840")  # an id may have dots of its own
    ('a/1.2.840', 'a/1.2.840')

    ```
    """
    stem, extension = os.path.splitext(path)
    return stem if extension.lower() in _known_extensions() else path


class FileIndex:
    """
    The names of the regular files under a folder that have one of some extensions.

    A path is looked up in the list of names, never joined and opened: `..`, absolute paths, and links that lead out
    of the folder find nothing.

    Args:
        folder (`Path`): the folder; folders that are links are not entered.
        extensions (`Iterable[str]`): lower case, with their dots.
        what (`str`): what errors call the files, as in `"pictures"`.

    Raises:
        [`~sage_hf.data.DataError`]: there is no such folder.
    """

    def __init__(self, folder: Path, extensions: Iterable[str], what: str):
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder.")
        self.folder, self.what = folder, what
        # A sorted list takes a third of the memory that a dictionary of paths does.
        self.names = sorted(_regular_files(folder, frozenset(extensions)))
        self._asked = bytearray(len(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def find(self, file: str) -> str | None:
        """
        The relative path of a file: of the path as it is, or of another extension if that leaves one candidate.

        Raises:
            [`~sage_hf.data.DataError`]: several files fit.
        """
        if not file:
            return None
        found = self._find(os.path.normpath(file))
        if found is None and "\\" in file:
            found = self._find(os.path.normpath(file.replace("\\", "/")))
        return found

    def _find(self, whole: str) -> str | None:
        # An id such as `lesion.v2` has no extension, and `lesion.jpg` is another picture.
        for stem in (whole, without_extension(whole)):
            candidates = self._of_stem(stem)
            exact = [index for index in candidates if self.names[index] == whole] or candidates
            for index in exact:
                self._asked[index] = True
            if len(exact) > 1:
                names = ", ".join(os.path.basename(self.names[index]) for index in exact)
                raise DataError(f"several {self.what} fit: {names}. Keep one.")
            if exact:
                return self.names[exact[0]]
        return None

    def _of_stem(self, stem: str) -> list[int]:
        first = bisect.bisect_left(self.names, f"{stem}.")
        last = bisect.bisect_left(self.names, f"{stem}/")  # "/" follows "."
        return [index for index in range(first, last) if os.path.splitext(self.names[index])[0] == stem]

    def unused(self) -> Iterator[str]:
        """The names that no `find` gave."""
        return (name for name, asked in zip(self.names, self._asked, strict=True) if not asked)

    def path(self, name: str) -> Path:
        """Where a file that was found is."""
        return self.folder / name


def _regular_files(folder: Path, extensions: frozenset[str]) -> Iterator[str]:
    root = folder.resolve()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            if os.path.splitext(name)[1].lower() not in extensions:
                continue
            path = os.path.join(parent, name)
            if is_regular(path) and (not os.path.islink(path) or Path(path).resolve().is_relative_to(root)):
                yield Path(path).relative_to(folder).as_posix()


def is_regular(path: str | Path) -> bool:
    """Whether it is a file that ends: no folder, pipe or device."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def check_file(path: Path) -> None:
    """
    Check that a file that the user named can be read to its end.

    Raises:
        [`~sage_hf.data.DataError`]: it isn't there, or is a folder, pipe or device.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file.")
    if not is_regular(path):
        raise DataError(f"{path} is not a regular file.")
