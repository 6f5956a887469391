"""A set of pictures that is being annotated: what the page asks for, and what it saves."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image, ImageOps

from ..data.pictures import ORIENTATION
from ..data.pictures import open_picture as decoded_picture
from ..data.saliency import DataError
from .guess import Guesser
from .maps import png_of, unpacked, values_of
from .pictures import Opened, Pictures, existing_map, existing_source, open_picture
from .record import FINISHED, HUMAN, LONGEST, ON, Change, Record, checked_name
from .store import AnnotationStore, write_atomically

MOST_CLASSES = 1000
UPRIGHT = 1
"""EXIF's orientation of a picture that is not turned."""
SHOWN_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""The picture formats, as Pillow calls them, that every browser shows as they are."""


class Project:
    """
    Pictures, the store of what was said about them, and a model that makes first guesses.

    Args:
        pictures ([`Pictures`]): what is annotated.
        store ([`AnnotationStore`]): where the work is kept; never among the pictures' own files.
        classes (`list[str]`, *optional*): the classes, in the order of their indices, which the store then keeps. If
            not given, those that it keeps, or those of the pictures, and those that are added on the page.
        guesser ([`Guesser`], *optional*): makes first guesses.

    Raises:
        [`~sage_hf.data.DataError`]: two pictures have the same name, or a class has none.

    Example:

    ```python
    >>> from sage_hf.annotate import AnnotationStore, Project
    >>> from sage_hf.annotate.pictures import FolderPictures
    >>> Project(FolderPictures("photos"), AnnotationStore("photos-annotations"))  # doctest: +SKIP

    ```
    """

    def __init__(
        self,
        pictures: Pictures,
        store: AnnotationStore,
        classes: list[str] | None = None,
        guesser: Guesser | None = None,
    ):
        self.pictures, self.store, self.guesser = pictures, store, guesser
        self._given = classes
        self._numbers = {name: index for index, name in enumerate(pictures.names)}
        if len(self._numbers) != len(pictures.names):
            raise DataError(f"{pictures.where}: two pictures have the same name.")
        for name in classes or ():
            _check_class(name)

    # Classes

    @property
    def classes(self) -> list[str]:
        """The classes, in the order of their indices."""
        known = list(self._given or self._listed(self._given_file) or self.pictures.class_names or [])
        return known + [name for name in self._added() if name not in known]

    @property
    def open_classes(self) -> bool:
        """Whether the page may add classes."""
        return self._given is None

    def add_class(self, name: str) -> list[str]:
        """
        Add a class.

        Raises:
            [`~sage_hf.data.DataError`]: the classes are given, or it can't be one.
        """
        name = " ".join(name.split())
        _check_class(name)
        if not self.open_classes:
            raise DataError(f"the classes are given: {', '.join(self.classes)}.")
        self.store.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.store.folder / ".lock", timeout=20):
            known = self.classes
            if name not in known:
                if len(known) >= MOST_CLASSES:
                    raise DataError(f"there are {len(known)} classes already.")
                content = json.dumps([*self._added(), name], ensure_ascii=False).encode()
                write_atomically(self._classes_file, content)
        return self.classes

    @property
    def _classes_file(self) -> Path:
        return self.store.folder / "classes.json"

    @property
    def _given_file(self) -> Path:
        return self.store.folder / "given-classes.json"

    def _added(self) -> list[str]:
        return self._listed(self._classes_file)

    @staticmethod
    def _listed(path: Path) -> list[str]:
        try:
            names = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise DataError(f"{path} is no list of classes: {error}.") from None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{path} is no list of classes.")
        return names

    def _keep_given(self) -> None:
        """So that an export, or the next start, knows the classes and their order without being told again."""
        if self._given and self._listed(self._given_file) != list(self._given):
            self.store.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._given_file, json.dumps(self._given, ensure_ascii=False).encode())

    # Pictures

    def picture(self, index: int) -> Opened:
        """
        A picture by its number.

        Raises:
            `LookupError`: there is no such number.
            [`~sage_hf.data.DataError`]: it can't be read.
        """
        return open_picture(self.pictures.row(self._checked(index)))

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self.pictures.names):
            raise LookupError(f"there is no picture {index}: they are numbered 0 to {len(self.pictures.names) - 1}.")
        return index

    def shown(self, index: int) -> tuple[bytes, str]:
        """
        A picture as a browser can show it.

        Returns:
            `tuple[bytes, str]`: the file and its media type: the file itself if browsers know its format, else a PNG.
        """
        content = self.picture(index).content
        picture = decoded_picture(content)
        plain = getattr(picture, "n_frames", 1) == 1 and "16" not in picture.mode and _turned_by_browsers(picture)
        if picture.format in SHOWN_FORMATS and plain:
            return content, f"image/{picture.format.lower()}"
        upright = ImageOps.exif_transpose(picture)
        if upright.mode in ("I", "F", "I;16", "I;16B", "I;16L"):
            values = np.asarray(upright, dtype=np.float64)
            finite = values[np.isfinite(values)]
            low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
            values = np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low
            scaled = np.round(values * (255 / (high - low) if high > low else 0))
            upright = Image.fromarray(scaled.astype(np.uint8))
        buffer = io.BytesIO()
        upright.convert("RGB").save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue(), "image/png"

    def start(self, index: int, guess: bool) -> np.ndarray | None:
        """The map that a picture has already in its source, or that the model guesses; `None` if there is none."""
        row = self.pictures.row(self._checked(index))
        picture = open_picture(row)
        if guess:
            return self.guesser.map_of(picture) if self.guesser is not None else None
        return existing_map(row, picture.size)

    # Records

    def state(self, index: int, annotator: str) -> dict[str, Any]:
        """
        All that the page needs to know of a picture but its pixels.

        Args:
            index (`int`): of the picture.
            annotator (`str`): who asks.
        """
        row = self.pictures.row(self._checked(index))
        picture = open_picture(row)
        record = self.store.latest(annotator, self.pictures.names[index])
        return {
            "index": index,
            "name": row.file,
            "split": row.split,
            "sha256": picture.sha256[:16],
            "size": picture.size,
            "given_label": row.label if row.label in self.classes else None,
            "existing": bool(row.annotations),
            "source": existing_source(row),
            "guess": self.guesser.source if self.guesser is not None else None,
            "changed": record is not None and record.sha256 != picture.sha256,
            "record": None if record is None else described(record),
        }

    def map_of(self, index: int, annotator: str, revision: int | None = None) -> np.ndarray | None:
        """A drawn map: uint8, (height, width); `None` if nothing is marked."""
        name = self.pictures.names[self._checked(index)]
        if revision is None:
            record = self.store.latest(annotator, name)
        else:
            record = self.store.record(annotator, name, revision)
        png = None if record is None else self.store.map_png(record)
        return None if png is None or record is None else values_of(png, record.size)

    def save(self, index: int, annotator: str, change: Change, content: bytes | None, base: int) -> Record:
        """
        Save what an annotator did.

        Args:
            index (`int`): of the picture.
            annotator (`str`): who did.
            change ([`Change`]): status, label, note.
            content (`bytes`, *optional*): the map, as [`unpacked`] reads it; `None` if nothing is marked.
            base (`int`): the revision that it was made upon.

        Raises:
            [`StaleRevisionError`]: see [`AnnotationStore.save`].
            [`~sage_hf.data.DataError`]: a label that is no class, a map that doesn't fit, a finished picture in which
                nothing is marked.
        """
        annotator = checked_name(annotator)
        picture = self.picture(index)
        if change.label is not None and change.label not in self.classes:
            raise DataError(f"{change.label!r} is not one of the classes: {', '.join(self.classes)}.")
        self._check_source(index, annotator, change.source)
        png = None if content is None else png_of(unpacked(content, picture.size))
        if change.status == "done" and png is None:
            raise DataError("nothing is marked. Draw something, or say that nothing matters in it.")
        if change.status == "nothing" and png is not None:
            raise DataError("something is marked in it. Clear the map to say that nothing matters.")
        about = Record(
            picture=self.pictures.names[index], sha256=picture.sha256, size=picture.size, annotator=annotator
        )
        self._keep_given()
        return self.store.save(about, change, png, base=base)

    def _check_source(self, index: int, annotator: str, source: str) -> None:
        """A map is upon the guess that is shown here, upon the map that the picture had, or upon what was saved."""
        shown = [existing_source(self.pictures.row(index))]
        if self.guesser is not None:
            shown.append(self.guesser.source)
        if (earlier := self.store.latest(annotator, self.pictures.names[index])) is not None:
            shown.append(earlier.source)
        if source != HUMAN and source.removeprefix(ON) not in [one.removeprefix(ON) for one in shown]:
            raise DataError(f"no guess of {source!r} is shown here.")

    def progress(self, annotator: str) -> list[str]:
        """The state of every picture: `open`, or the status of an annotator's record."""
        states = ["open"] * len(self.pictures.names)
        for record in self.store.records(checked_name(annotator)):
            if (index := self._numbers.get(record.picture)) is not None:
                states[index] = record.status
        return states


def _turned_by_browsers(picture: Image.Image) -> bool:
    """Whether every browser shows it as turned as Pillow does: none reads XMP, and few the EXIF of other formats."""
    turned = picture.getexif().get(ORIENTATION, UPRIGHT)
    own = Image.Exif()
    own.load(picture.info.get("exif", b""))
    return turned == (own.get(ORIENTATION, UPRIGHT) if picture.format == "JPEG" else UPRIGHT)


def first_unfinished(states: list[str]) -> int:
    """The first picture that is not finished, by the states of all, or the first of all when everything is."""
    return next((index for index, state in enumerate(states) if state not in FINISHED), 0)


def described(record: Record) -> dict[str, Any]:
    """A record as the page knows it."""
    return {
        "revision": record.revision,
        "status": record.status,
        "label": record.label,
        "note": record.note,
        "source": record.source,
        "session": record.session,
        "saved": record.saved,
        "marked": record.map is not None,
        "size": record.size,
    }


def _check_class(name: str) -> None:
    if not name or len(name) > LONGEST["label"] or not name.isprintable():
        raise DataError(
            f"a class has a name of 1 to {LONGEST['label']} characters that can be seen, not {name[:20]!r}."
        )
