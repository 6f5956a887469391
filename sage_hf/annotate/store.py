"""The folder that keeps what annotators did: every save is a new file, none is ever overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ..data.saliency import DataError
from .record import Change, Record, checked_name

KEPT = 20
"""Saves of one tab in a row that are kept; of older ones the last before another tab's save stays."""
LOCK_SECONDS = 20.0
REVISION = re.compile(r"(\d{6,})\.json")


class StaleRevisionError(Exception):
    """
    Somebody has saved the picture since it was read; what should have been saved is kept aside.

    Args:
        latest ([`Record`]): what was saved since.
        aside (`str`): file of what should have been saved, beside it.
    """

    def __init__(self, latest: Record, aside: str):
        super().__init__(f"{latest.picture} was saved elsewhere since, as revision {latest.revision}.")
        self.latest, self.aside = latest, aside


class AnnotationStore:
    """
    Records of annotators, one a picture, with their history.

    Each picture of an annotator has a folder of its own, `annotators/NAME/xx/KEY`, with a JSON file for each revision
    and the maps as grey PNG files. A revision's file is written beside its place and moved there when whole, so that a
    crash leaves the one before; two writers, tabs or processes, are told apart by the revision that they have read.

    Args:
        folder (`str` or `Path`): made at the first save.

    Example:

    ```python
    >>> import tempfile
    >>> from sage_hf.annotate import AnnotationStore
    >>> from sage_hf.annotate.record import Change, Record
    >>> store = AnnotationStore(tempfile.mkdtemp())
    >>> picture = Record(picture="leaf.jpg", size=(640, 480), annotator="Ann")
    >>> store.save(picture, Change("skipped", note="out of focus"), None, base=0).revision
    1
    >>> store.latest("Ann", "leaf.jpg").note
    'out of focus'

    ```
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).absolute()

    def annotators(self) -> list[str]:
        """The names of all who have saved something, in the order of the alphabet."""
        names = []
        for path in self._people():
            with suppress(OSError, ValueError, KeyError):
                names.append(str(json.loads((path / "annotator.json").read_text(encoding="utf-8"))["name"]))
        return sorted(names)

    def _people(self) -> Iterator[Path]:
        with suppress(FileNotFoundError):
            yield from sorted(path for path in (self.folder / "annotators").iterdir() if path.is_dir())

    def place(self, annotator: str, picture: str) -> Path:
        """The folder of an annotator's records of a picture; neither name can lead out of the store."""
        key = hashlib.sha256(picture.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        return self._home(annotator) / key[:2] / key

    def _home(self, annotator: str) -> Path:
        # Upper and lower case are one name, as some file systems have it.
        folded = checked_name(annotator).casefold()
        readable = re.sub(r"[^a-z0-9]+", "-", folded).strip("-")[:40]
        return self.folder / "annotators" / f"{readable}-{hashlib.sha256(folded.encode()).hexdigest()[:10]}"

    def revisions(self, annotator: str, picture: str) -> list[int]:
        """The revisions that are kept, in order."""
        return _revisions(self.place(annotator, picture))

    def latest(self, annotator: str, picture: str) -> Record | None:
        """The newest record, `None` if there is none."""
        place = self.place(annotator, picture)
        numbers = _revisions(place)
        return _read(_file(place, numbers[-1])) if numbers else None

    def record(self, annotator: str, picture: str, revision: int) -> Record:
        """
        A revision.

        Raises:
            [`~sage_hf.data.DataError`]: it is not kept, or can't be read.
        """
        return _read(_file(self.place(annotator, picture), revision))

    def map_png(self, record: Record) -> bytes | None:
        """The map of a record as a PNG file, `None` if nothing is marked."""
        if record.map is None:
            return None
        if not re.fullmatch(r"[0-9a-f]{32}\.png", record.map):
            raise DataError(f"the record of {record.picture} names a map {record.map!r}, which no store writes.")
        path = self.place(record.annotator, record.picture) / record.map
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"the map of {record.picture} by {record.annotator} can't be read: {error}.") from None

    def save(self, picture: Record, change: Change, png: bytes | None, *, base: int) -> Record:
        """
        Save a new revision.

        Args:
            picture ([`Record`]): whose picture, SHA-256, size and annotator are taken.
            change ([`Change`]): the rest.
            png (`bytes`, *optional*): the map, a grey PNG file.
            base (`int`): the revision that the change was made upon, 0 for none. A tab's own saves are never stale to
                it, so that it may repeat one whose answer was lost.

        Returns:
            [`Record`]

        Raises:
            [`StaleRevisionError`]: another tab or process has saved since; the change is kept aside.
            [`~sage_hf.data.DataError`]: a name that can't be one; another process holds the store for long.
        """
        home, place = self._home(picture.annotator), self.place(picture.annotator, picture.picture)
        place.mkdir(parents=True, exist_ok=True)
        name = None if png is None else f"{hashlib.sha256(png).hexdigest()[:32]}.png"
        made = replace(picture, **asdict(change), map=name, saved=datetime.now(UTC).isoformat(timespec="seconds"))
        try:
            with FileLock(home / ".lock", timeout=LOCK_SECONDS):
                # The map goes first: no record names one that isn't there.
                if png is not None and name is not None and not (place / name).exists():
                    write_atomically(place / name, png)
                return self._append(home, place, made, base)
        except Timeout:
            raise DataError(f"{home} was locked by another process for {LOCK_SECONDS:.0f} seconds.") from None

    def _append(self, home: Path, place: Path, made: Record, base: int) -> Record:
        if not (home / "annotator.json").exists():
            write_atomically(home / "annotator.json", json.dumps({"name": made.annotator}).encode())
        numbers = _revisions(place)
        newest = numbers[-1] if numbers else 0
        if newest != base:
            latest = _read(_file(place, newest)) if newest else None
            if latest is not None and not (made.session and latest.session == made.session):
                moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
                aside = f"{newest:06d}-aside-{moment}.json"
                write_atomically(place / aside, _text(replace(made, revision=newest)))
                raise StaleRevisionError(latest, aside)
        made = replace(made, revision=newest + 1)
        write_atomically(_file(place, made.revision), _text(made))
        self._prune(place, [*numbers, made.revision])
        return made

    def _prune(self, place: Path, numbers: list[int]) -> None:
        """Remove the older ones of many saves that one tab has made in a row, each a stroke apart."""
        if len(numbers) <= KEPT:
            return
        oldest, following = (_read(_file(place, number)) for number in numbers[-KEPT - 1 : -KEPT + 1])
        if oldest.status == "draft" and oldest.session and oldest.session == following.session:
            _file(place, oldest.revision).unlink()
            named = {_read(path).map for path in place.glob("*.json")}
            if oldest.map is not None and oldest.map not in named:
                (place / oldest.map).unlink(missing_ok=True)

    def records(self, annotator: str) -> Iterator[Record]:
        """The newest record of every picture that an annotator has saved."""
        with suppress(FileNotFoundError):
            for part in sorted(self._home(annotator).iterdir()):
                for place in sorted(part.iterdir()) if part.is_dir() else ():
                    if numbers := _revisions(place):
                        yield _read(_file(place, numbers[-1]))


def _revisions(place: Path) -> list[int]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted(int(found[1]) for name in os.listdir(place) if (found := REVISION.fullmatch(name)))
    return []


def _file(place: Path, revision: int) -> Path:
    return place / f"{revision:06d}.json"


def _read(path: Path) -> Record:
    try:
        return Record.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} can't be read: {error} Move it away to go back to the revision before.") from None


def _text(record: Record) -> bytes:
    return json.dumps(record.to_json(), ensure_ascii=False, indent=1).encode()


def write_atomically(path: Path, content: bytes) -> None:
    """
    Write a file whole or not at all, whatever happens meanwhile.

    Args:
        path (`Path`): the file; its folder exists.
        content (`bytes`): of it.
    """
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch)
        raise
