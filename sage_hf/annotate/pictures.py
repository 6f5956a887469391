"""What is annotated: the pictures of a folder or of a dataset, by number, and no other file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..data.annotations import MapFile
from ..data.parts import SOURCE
from ..data.pictures import check_picture, read_file
from ..data.saliency import DataError
from ..data.sources import Source, SourceReader, SourceRow
from ..data.sources.reader import placed
from .maps import full_size
from .record import HUMAN, ON


@dataclass(frozen=True)
class Opened:
    """
    A picture that was read and checked.

    Args:
        content (`bytes`): its file.
        sha256 (`str`): of the file.
        size (`tuple[int, int]`): (width, height), after EXIF rotation.
    """

    content: bytes
    sha256: str
    size: tuple[int, int]


class Pictures(Protocol):
    """Pictures by number."""

    where: str
    """Folder or dataset."""
    class_names: list[str] | None
    """The classes, if the source has any."""
    names: list[str]
    """What each picture is called: different ones, the same whenever the source is opened."""

    def row(self, index: int) -> SourceRow:
        """A picture with its label, its split and the maps that it has already."""


def open_picture(row: SourceRow) -> Opened:
    """
    Read a row's picture.

    Raises:
        [`~sage_hf.data.DataError`]: it can't be read, or has too many pixels.
    """
    if row.picture is None:
        raise DataError(f"{row.file}: {row.error or 'it has no picture.'}")
    content = row.picture if isinstance(row.picture, bytes) else read_file(row.picture)
    return Opened(content, hashlib.sha256(content).hexdigest(), check_picture(content, row.file))


def existing_map(row: SourceRow, size: tuple[int, int]) -> np.ndarray | None:
    """
    The map that a picture has in its source, several annotators' averaged.

    Args:
        row ([`SourceRow`]): of the picture.
        size (`tuple[int, int]`): its (width, height).

    Returns:
        `numpy.ndarray`: float32, (height, width), in [0, 1]; `None` if nothing is marked.
    """
    from ..data.annotations import combine_saliency

    found = [full_size(one, size) for one in row.annotations]  # type: ignore[arg-type]  # any annotation will do
    return combine_saliency(found, "mean") if found else None


def existing_source(row: SourceRow) -> str:
    """Who made the map that a picture has in its source: `human` if nothing else is told."""
    told = dict(row.columns).get(SOURCE)
    made = [one for one in (told if isinstance(told, list) else [told]) if one not in (None, HUMAN)]
    if not made:
        return HUMAN
    # Of several annotators' maps, which are shown as one, some are a human's.
    return made[0] if not isinstance(told, list) or len(told) == 1 else f"{ON}{made[0].removeprefix(ON)}"


class FolderPictures:
    """
    The pictures of a folder and of the folders in it.

    The folders that hold pictures directly are their labels (`CLASS/x.jpg`, `train/CLASS/x.jpg`) if every picture is
    in one.

    Args:
        folder (`str` or `Path`): read once; a picture that is added later is seen when it is opened again.
        saliency (`Sequence[str]`): maps and other annotations that exist, see [`~sage_hf.data.Source`].
        labels (`str`, *optional*): a table of labels.
        label_column (`str`, *optional*): its column of labels.

    Raises:
        [`~sage_hf.data.DataError`]: there is no such folder, or no picture in it.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        saliency: Sequence[str | Path] = (),
        labels: str | Path | None = None,
        label_column: str | None = None,
    ):
        self.where, self._root = str(folder), Path(folder).resolve()
        source = Source(images=folder, saliency=tuple(saliency), labels=labels, label_column=label_column)
        rows = list(SourceReader(source, labelled=labels is not None, annotated=False).rows())
        if labels is None and all(placed(row.file)[0] for row in rows if row.picture is not None):
            rows = [replace(row, label=placed(row.file)[0]) for row in rows]
        self._rows = [row for row in rows if row.picture is not None]
        if not self._rows:
            raise DataError(f"{folder} holds no picture.")
        self.names = [row.file for row in self._rows]
        classes = sorted({row.label for row in self._rows if isinstance(row.label, str)})
        self.class_names = classes or None

    def row(self, index: int) -> SourceRow:
        """See [`Pictures`]."""
        row = self._rows[index]
        # Looked at again: since the folder was read, something may have been put in the picture's place.
        if isinstance(row.picture, Path) and not row.picture.resolve().is_relative_to(self._root):
            return replace(row, picture=None, error="it is a link now, and not inside the folder.")
        return row


class DatasetPictures:
    """
    The pictures of a dataset: a folder, or of the Hub, as [`~sage_hf.data.load_saliency_dataset`] reads them.

    Args:
        path (`str`): folder, or id on the Hub.
        name (`str`, *optional*): configuration.
        revision (`str`, *optional*): branch, tag or commit.
        image_column (`str`, *optional*, defaults to `"image"`): pictures.
        saliency_column (`str`, *optional*, defaults to `"saliency"`): maps, if it is there.
        label_column (`str`, *optional*, defaults to `"label"`): classes, if it is there.

    Raises:
        [`~sage_hf.data.DataError`]: there is no such dataset, no column of pictures, or a column of labels that are no
            single classes.
    """

    def __init__(
        self,
        path: str,
        *,
        name: str | None = None,
        revision: str | None = None,
        image_column: str = "image",
        saliency_column: str = "saliency",
        label_column: str = "label",
    ):
        import datasets

        from ..data import load_saliency_dataset
        from ..data.labels import class_names_of, inner_feature

        self.where = path
        splits: Any = load_saliency_dataset(path, name=name, revision=revision, label_column=label_column)
        self._columns = image_column, saliency_column, label_column
        # Nothing but the dataset's own files: of a folder those in it, of the Hub those that were downloaded.
        folder = Path(path).resolve()
        caches = [Path(datasets.config.HF_DATASETS_CACHE), Path(datasets.config.HF_CACHE_HOME)]
        self._roots = [folder] if folder.is_dir() else [cache.resolve() for cache in caches]
        self.class_names: list[str] | None = None
        self.names: list[str] = []
        self._splits: dict[str, Any] = {}
        self._places: list[tuple[str, int]] = []
        for split, rows in splits.items():
            if image_column not in rows.features or not isinstance(rows.features[image_column], datasets.Image):
                known = ", ".join(rows.features)
                raise DataError(f"{path}: the {split} split has no column {image_column!r} of pictures, but {known}.")
            if label_column in rows.features:
                feature = rows.features[label_column]
                self.class_names = class_names_of(feature)
                if self.class_names is None or inner_feature(feature) is not feature:
                    raise DataError(f"{path}: column {label_column!r} holds {feature}; the page sets single classes.")
            kept = [column for column in (*self._columns, SOURCE) if column in rows.features]
            undecoded = rows.select_columns(kept).cast_column(image_column, datasets.Image(decode=False))
            if saliency_column in kept:
                plain: Any = datasets.Image(decode=False)
                several = isinstance(rows.features[saliency_column], datasets.List)
                undecoded = undecoded.cast_column(saliency_column, datasets.List(plain) if several else plain)
            self._splits[split] = undecoded
            self._places += [(split, number) for number in range(len(rows))]
            self.names += [f"{split}/{number + 1}" for number in range(len(rows))]
        if not self.names:
            raise DataError(f"{path} has no rows.")

    def row(self, index: int) -> SourceRow:
        """See [`Pictures`]."""
        split, number = self._places[index]
        image_column, saliency_column, label_column = self._columns
        stored = self._splits[split][number]
        file, label, error = self.names[index], stored.get(label_column), None
        picture: Path | bytes | None = None
        maps: list[MapFile] = []
        try:
            picture = self._file(stored[image_column] or {})
            given = stored.get(saliency_column)
            for one in given if isinstance(given, list) else [given]:
                if one:
                    maps.append(MapFile(self._file(one), "its map"))
        except DataError as failure:
            error = str(failure)
        path = (stored[image_column] or {}).get("path")
        named = f"{file}-{Path(path).name}" if path else file
        known = self.class_names is not None and label is not None and 0 <= label < len(self.class_names)
        return SourceRow(
            f"{split}, row {number + 1}",
            number + 1,
            named,
            picture,
            self.class_names[label] if known and self.class_names else None,
            split,
            tuple(maps),
            error,
            ((SOURCE, stored.get(SOURCE)),),
        )

    def _file(self, stored: dict[str, Any]) -> Path | bytes:
        if stored.get("bytes"):
            return bytes(stored["bytes"])
        path = str(stored.get("path") or "")
        if not path:
            raise DataError("it has no picture.")
        with suppress(OSError, ValueError):
            real = Path(path).resolve()
            if "://" not in path and any(real.is_relative_to(root) for root in self._roots):
                return real
        raise DataError(f"its picture is not inside the dataset, but at {path}. Save it with the files embedded.")


def open_pictures(path: str, **options: Any) -> Pictures:
    """
    The pictures of a folder or a dataset, told by what is there.

    Args:
        path (`str`): a folder of pictures, a dataset's folder, or an id on the Hub.
        **options: of [`FolderPictures`] or [`DatasetPictures`]; those of the other kind must be left out.

    Raises:
        `ValueError`: options that don't belong to what is there.
        [`~sage_hf.data.DataError`]: as the two classes.
    """
    kind: Any = DatasetPictures if is_dataset(path) else FolderPictures
    given = {name: value for name, value in options.items() if value not in (None, ())}
    foreign = {"saliency", "labels"} if kind is DatasetPictures else {"name", "revision", "image_column"}
    if wrong := sorted(foreign & set(given)):
        what = "a dataset, which has its own maps and labels" if kind is DatasetPictures else "a folder of pictures"
        raise ValueError(f"{', '.join(wrong)}: {path} is {what}.")
    return kind(path, **given)


def is_dataset(path: str) -> bool:
    """Whether it is a dataset: a folder with parquet or Arrow files or a table of metadata, or no folder at all."""
    from ..data.paths import check_folder

    check_folder(path)
    folder = Path(path)
    if not folder.is_dir():
        return True
    told = ("dataset_dict.json", "state.json", "metadata.csv", "metadata.jsonl", "metadata.parquet")
    return any((folder / name).is_file() for name in told) or any(
        next(folder.glob(pattern), None) is not None for pattern in ("*.parquet", "data/*.parquet", "*/metadata.csv")
    )
