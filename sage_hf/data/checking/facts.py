"""What is measured of a row in the one pass over a dataset: facts, which the checks then judge."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from datasets.utils.file_utils import xopen
from PIL import ExifTags, Image, ImageOps

from ..saliency import DataError, saliency_array
from .metadata import NOTHING, Metadata, is_absolute_path, read_metadata

GRID = 32
"""Rows and columns of the grid on which maps of any size are averaged."""
MARKED = 0.5
"""Share of a map's maximum from which on a pixel counts as marked, as in [`~sage_hf.evaluation.SaliencyAlignment`]."""
THUMBNAIL = 16
"""Side of the thumbnails by which pictures are compared."""
DRAFT_SIDE = 256
"""JPEGs larger than twice this are decoded at a half, quarter or eighth of their size, still at least this large."""


@dataclass(frozen=True)
class FileFacts:
    """What pictures and maps share. Sizes are (width, height) in pixels."""

    size: tuple[int, int] = (0, 0)
    """After EXIF rotation, as a reader of the dataset sees it."""
    stored_size: tuple[int, int] = (0, 0)
    """Before it."""
    orientation: int = 1
    """EXIF's tag; 1 if there is none."""
    bytes: int = 0
    """Size of the file."""
    metadata: Metadata = NOTHING
    absolute_path: bool = False
    """Whether an absolute path is stored with it."""
    error: str | None = None
    """Why it can't be decoded."""


@dataclass(frozen=True)
class PictureFacts(FileFacts):
    """A picture."""

    mode: str = ""
    constant: bool = False
    """Whether all pixels are alike."""
    digest: int = 0
    """64 bits of a hash of size and pixels (of a large JPEG, of its decoding at reduced size)."""
    phash: int = 0
    """64 bits, alike for pictures that look alike: see [`perceptual_hash`]."""
    thumbnail: bytes = b""
    """16x16 grey pixels, row by row."""


@dataclass(frozen=True)
class MapFacts(FileFacts):
    """A map that was stored."""

    invalid: str | None = None
    """Why its values can't be used: NaN, infinite, negative, colours."""
    marks: bool = False
    """Whether it marks anything."""
    constant: bool = False
    coverage: float = 0.0
    """Share of pixels that are marked, in [0, 1]."""
    mean: float = 0.0
    """Mean value, relative to the maximum."""
    grid: np.ndarray | None = None
    """float32 (32, 32): the mean value, relative to the maximum, in each cell of a grid over the map."""


@dataclass(frozen=True)
class RowFacts:
    """A row."""

    split: str
    index: int
    file: str = ""
    """Name of the picture's file, without folders."""
    picture: PictureFacts | None = None
    maps: tuple[MapFacts, ...] = ()
    labels: tuple[str, ...] | None = None
    """Its classes by name; `None` without a label."""
    unknown_label: str | None = None
    """A label that is not one of the classes."""
    paths: tuple[str, ...] = ()
    """Other columns with an absolute path."""
    others: tuple[tuple[str, FileFacts], ...] = ()
    """Pictures of other columns."""

    @property
    def where(self) -> str:
        """How findings name the row."""
        return f"{self.split} row {self.index}" + (f" ({self.file})" if self.file else "")

    @property
    def annotators(self) -> int:
        """Maps that mark something."""
        return sum(one.marks for one in self.maps)


@dataclass(frozen=True)
class Measure:
    """
    Measures rows as they are stored: `{"bytes": ..., "path": ...}` for pictures and maps.

    Args:
        image_column (`str`): may hold arrays too.
        saliency_column (`str`): a map, a list of maps, or `None`.
        label_column (`str`): a class, several, numbers, or `None`.
        class_names (`list[str]`, *optional*): in the order of their indices.
        folder (`Path`, *optional*): of the dataset: the files that lie in it are its own.
        picture_columns (`tuple[str, ...]`, *optional*): other columns with pictures, whose metadata and paths matter.
    """

    image_column: str
    saliency_column: str
    label_column: str
    class_names: list[str] | None = None
    folder: Path | None = None
    picture_columns: tuple[str, ...] = ()

    def __call__(self, split: str, index: int, row: dict[str, Any]) -> RowFacts:
        """The facts; never raises because of what a row holds."""
        stored, maps = row.get(self.image_column), row.get(self.saliency_column)
        path = stored.get("path") if isinstance(stored, dict) else getattr(stored, "filename", None)
        labels, unknown = self._labels(row.get(self.label_column))
        known = (self.image_column, self.saliency_column, self.label_column, *self.picture_columns)
        others = {name: value for name, value in row.items() if name not in known}
        pictures = [(name, one) for name in self.picture_columns for one in _listed(row.get(name))]
        return RowFacts(
            split=split,
            index=index,
            # The first part is the file where a chained path names an archive too: `zip://1.png::pictures.zip`.
            file=path.partition("::")[0].replace("\\", "/").rpartition("/")[2] if path else "",
            picture=None if stored is None else self._picture(stored),
            maps=tuple(self._map(one) for one in _listed(maps)),
            labels=labels,
            unknown_label=unknown,
            others=tuple((name, self._file(one)) for name, one in pictures),
            paths=tuple(name for name, value in others.items() if any(map(is_absolute_path, _strings(value)))),
        )

    def _labels(self, label: Any) -> tuple[tuple[str, ...] | None, str | None]:
        if label is None or (isinstance(label, int) and label == -1):  # -1: the Hub's hidden test labels
            return None, None
        if (
            isinstance(label, list)
            and self.class_names is None
            and all(isinstance(one, (int, float)) for one in label)
        ):
            return tuple(f"LABEL_{place}" for place, one in enumerate(label) if one >= 0.5), None
        names = []
        for one in label if isinstance(label, list) else [label]:
            if isinstance(one, float):  # a number to be predicted
                return (), None
            if isinstance(one, int) and self.class_names is not None:
                if not 0 <= one < len(self.class_names):
                    return (), str(one)
                names.append(self.class_names[one])
            else:
                names.append(str(one))
        return tuple(names), None

    def _picture(self, stored: Any) -> PictureFacts:
        common: dict[str, Any] = {}
        try:
            image = self._open(stored, common)
            # Never smaller than asked for; a damaged file is noticed all the same.
            image.draft(image.mode, (DRAFT_SIDE, DRAFT_SIDE))
            _load(image, common)
            upright = ImageOps.exif_transpose(image)
            colours = upright.convert("RGBA") if upright.mode in ("P", "PA") else upright
            pixels = hashlib.blake2b(f"{common['size']} {colours.mode}".encode(), digest_size=8)
            pixels.update(colours.tobytes())
            extrema = colours.getextrema()
            bands = [extrema] if isinstance(extrema[0], (int, float)) else extrema
            return PictureFacts(
                mode=image.mode,
                constant=all(low == high for low, high in bands),
                digest=int.from_bytes(pixels.digest(), "big"),
                phash=perceptual_hash(colours),
                thumbnail=colours.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes(),
                **common,
            )
        except Exception as error:  # any decoder may raise anything on a damaged file
            return PictureFacts(**common, error=_described(error))

    def _file(self, stored: Any) -> FileFacts:
        common: dict[str, Any] = {}
        try:
            _load(self._open(stored, common), common)
        except Exception as error:  # as above
            return FileFacts(**common, error=_described(error))
        return FileFacts(**common)

    def _map(self, stored: Any) -> MapFacts:
        common: dict[str, Any] = {}
        try:
            image = self._open(stored, common)
            _load(image, common)
            image = ImageOps.exif_transpose(image)
        except Exception as error:  # as above
            return MapFacts(**common, error=_described(error))
        try:
            values = saliency_array(image)
        except DataError as error:
            return MapFacts(**common, invalid=str(error))
        if values is None:
            return MapFacts(**common)
        return MapFacts(
            marks=True,
            constant=bool((values == values.flat[0]).all()),
            coverage=float((values >= MARKED).mean()),
            mean=float(values.mean()),
            grid=np.asarray(Image.fromarray(values).resize((GRID, GRID), Image.Resampling.BOX)),
            **common,
        )

    def _open(self, stored: Any, common: dict[str, Any]) -> Image.Image:
        """The opened file, not decoded yet; what is known of it goes into `common` at once."""
        if isinstance(stored, Image.Image):
            image = stored
        elif isinstance(stored, (list, np.ndarray)):
            image = _from_array(np.asarray(stored))
        else:
            path, content = stored.get("path"), stored.get("bytes")
            common["absolute_path"] = bool(path) and self._leaks(path, content is not None)
            if content is None:
                if not path:
                    raise DataError("it has neither bytes nor a path.")
                with xopen(path, "rb") as file:
                    content = file.read()
            common["bytes"] = len(content)
            image = Image.open(io.BytesIO(content))
        common["stored_size"] = common["size"] = image.size
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise DataError(f"{image.width}x{image.height} pixels are more than PIL's limit of {limit}.")
        return image

    def _leaks(self, path: str, embedded: bool) -> bool:
        if "::" in path or not (os.path.isabs(path) or is_absolute_path(path)):
            return False
        if embedded:
            return True
        # A file beside the dataset's own, such as a picture of an ImageFolder: it is opened by path, and its bytes are
        # embedded when it is pushed. Any other path stands in the dataset's files.
        return self.folder is not None and not Path(path).resolve().is_relative_to(self.folder.resolve())


def perceptual_hash(image: Image.Image) -> int:
    """
    `imagehash.phash` as an integer of 64 bits: whether each of the 8x8 lowest frequencies is above their median.

    Args:
        image (`PIL.Image.Image`): a picture of any size.
    """
    bits = np.packbits(imagehash.phash(image).hash.reshape(-1))
    return int.from_bytes(bits.tobytes(), "big")


def _load(image: Image.Image, common: dict[str, Any]) -> None:
    image.load()
    common["metadata"] = read_metadata(image)
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    common["orientation"] = orientation if orientation in range(2, 9) else 1
    if common["orientation"] >= 5:
        common["size"] = common["stored_size"][::-1]


def _from_array(values: np.ndarray) -> Image.Image:
    if values.ndim == 3 and values.shape[-1] not in (1, 3, 4):
        values = np.moveaxis(values, 0, -1)
    if values.ndim == 3 and values.shape[-1] not in (3, 4):
        values = values.mean(axis=-1)  # PIL holds no other number of channels
    if values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() <= 255:
        values = values.astype(np.uint8)
    elif values.ndim == 2:
        values = values.astype(np.float32)
    return Image.fromarray(np.ascontiguousarray(values))


def _listed(value: Any) -> list[Any]:
    return [one for one in (value if isinstance(value, list) else [value]) if one is not None]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings_of(value.values())
    elif isinstance(value, (list, tuple)):
        yield from _strings_of(value)


def _strings_of(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        yield from _strings(value)


def _described(error: Exception) -> str:
    return str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
