"""Maps and masks in files."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..formats import picture_formats
from ..saliency import DataError, relative_saliency, saliency_array, same_aspect
from .base import Size, check_pixels

NPY = b"\x93NUMPY"


@dataclass(frozen=True)
class MapFile:
    """
    A saliency map, a heat map of grey values, or a mask, in a file of its own.

    Without `classes`, values are relative to the map's own maximum, whatever their depth, see [`saliency_array`]. With
    `classes`, the file is a mask of several classes, and the pixels of those are salient. An EXIF rotation is applied,
    as `datasets` does to pictures.

    Args:
        file (`Path` or `bytes`):
            The file or its content: any format that Pillow reads (PNG and TIFF of 8, 16 or 32 bits or floating-point
            numbers, palette PNG), or an NPY array of shape (height, width).
        name (`str`, *optional*): what messages call it; the file's name if not given.
        classes (`tuple[int | str, ...]`, *optional*):
            Values of a mask: whole numbers are palette indices, or grey values where there is no palette; `"#rrggbb"`
            are colours.

    Raises:
        `ValueError`: `classes` that are empty, or neither of these.
        [`DataError`]: from `saliency`: a file that is empty, cut off, no picture, or declares more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS` (told from its header, before memory is spent); values as in
            [`saliency_array`]; several pictures in one file; an aspect that differs from the picture's; `classes`
            that such a file can't hold.

    Example:

    ```python
    >>> import io
    >>> import numpy as np
    >>> from sage_hf.data.annotations import MapFile
    >>> file = io.BytesIO()
    >>> np.save(file, np.array([[0, 1], [2, 4]]))
    >>> MapFile(file.getvalue()).saliency((2, 2)).tolist()
    [[0.0, 0.25], [0.5, 1.0]]
    >>> MapFile(file.getvalue(), classes=(1, 2)).saliency((2, 2)).tolist()
    [[0.0, 1.0], [1.0, 0.0]]

    ```
    """

    file: Path | bytes
    name: str = ""
    classes: tuple[int | str, ...] | None = None

    def __post_init__(self) -> None:
        if self.classes is None:
            return
        for value in self.classes:
            if not (type(value) is int or (isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value))):
                raise ValueError(f"{value!r} is no class of a mask. Give whole numbers, or colours as '#rrggbb'.")
        if not self.classes:
            raise ValueError("classes is empty. Name those that are salient, or None for a map that has none.")

    def saliency(self, size: Size) -> np.ndarray | None:
        """See [`Annotation`]."""
        name = self.name or (self.file.name if isinstance(self.file, Path) else "")
        try:
            content = read_map(self.file)
            shape = content.shape[::-1] if isinstance(content, np.ndarray) else content.size
            if not same_aspect(shape, check_pixels(size, "the picture")):
                raise DataError(
                    f"the map is {shape[0]}x{shape[1]}, its image {size[0]}x{size[1]}: their aspects differ, so the "
                    "map can't cover the image. Was one of them cropped, or rotated by an EXIF tag that the other "
                    "lacks?"
                )
            if self.classes is not None:
                marked = _of_classes(content, self.classes).astype(np.float32)
                return marked if marked.any() else None
            return relative_saliency(content) if isinstance(content, np.ndarray) else saliency_array(content)
        except DataError as error:
            raise DataError(f"{name}: {error}" if name else str(error)) from None


def read_map(file: Path | bytes) -> Image.Image | np.ndarray:
    """
    The picture in a file, EXIF rotation applied, or the two-dimensional array of numbers if it is an NPY file.

    Args:
        file (`Path` or `bytes`): the file or its content.

    Raises:
        [`DataError`]: it can't be read, or declares more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    try:
        with io.BytesIO(file) if isinstance(file, bytes) else Path(file).open("rb") as stream:
            return _read(stream)
    except OSError as error:
        raise DataError(f"it can't be opened: {error.strerror or error}.") from None


def _read(stream: BinaryIO) -> Image.Image | np.ndarray:
    start = stream.read(len(NPY))
    if not start:
        raise DataError("the file is empty.")
    length = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    try:
        return _read_array(stream, length) if start == NPY else _read_picture(stream)
    except DataError:
        raise
    except Exception as error:  # decoders raise anything on a damaged file
        raise DataError(
            f"it can't be read: {type(error).__name__}: {error}. Maps are PNG, TIFF or other pictures, or NPY."
        ) from error


def _read_array(stream: BinaryIO, length: int) -> np.ndarray:
    """An NPY file whose header was held against its length, so that it can't ask for memory it doesn't fill."""
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise DataError(f"it is NPY {version[0]}.{version[1]}, which only arrays of records need. Save plain numbers.")
    shape, _, dtype = read(stream)
    if dtype.kind not in "buif":
        raise DataError(f"it holds {dtype}, not numbers. Save the map's values as a plain array.")
    if len(shape) != 2:
        raise DataError(f"it has the shape {shape}, not (height, width).")
    width, height = check_pixels(shape[::-1], "the map")
    announced, found = width * height * dtype.itemsize, length - stream.tell()
    if found != announced:
        raise DataError(f"it has {found} bytes of values, its header announces {announced}. Was it cut off?")
    stream.seek(0)
    return np.load(stream, allow_pickle=False)


def _read_picture(stream: BinaryIO) -> Image.Image | np.ndarray:
    with warnings.catch_warnings():
        # Refused below, with a message that says how to mend it.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(stream, formats=picture_formats())
    check_pixels(image.size, "the map")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise DataError(f"it holds {frames} pictures, a map is one. Save each as a file of its own.")
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    # Pillow reads 32 bits as signed.
    if image.mode == "I" and image.format == "TIFF" and image.tag_v2.get(339, (1,))[0] == 1:  # type: ignore[attr-defined]
        return np.asarray(image).view(np.uint32)
    return image


def _of_classes(content: Image.Image | np.ndarray, classes: tuple[int | str, ...]) -> np.ndarray:
    """(height, width), boolean: the pixels of some classes."""
    indices = [value for value in classes if isinstance(value, int)]
    colours = [tuple(bytes.fromhex(value[1:])) for value in classes if isinstance(value, str)]
    if getattr(content, "format", None) == "JPEG":
        raise DataError("it is a JPEG, which blurs the values of its classes. Save the mask as PNG.")
    marked = np.zeros(content.shape if isinstance(content, np.ndarray) else content.size[::-1], dtype=bool)
    if indices:
        marked |= np.isin(_indices(content), indices)
    if colours:
        if isinstance(content, np.ndarray) or content.mode in ("I", "F", "I;16", "I;16B", "I;16L"):
            raise DataError("it has numbers, not colours. Name its classes by their numbers.")
        pixels = np.asarray(content.convert("RGBA"))
        for colour in colours:
            marked |= (pixels[..., :3] == colour).all(axis=-1) & (pixels[..., 3] > 0)
    return marked


def _indices(content: Image.Image | np.ndarray) -> np.ndarray:
    if isinstance(content, np.ndarray):
        return content
    values = np.asarray(content)
    if values.ndim == 2:
        return values
    if content.mode in ("LA", "La", "PA"):
        return values[..., 0]
    colours = values[..., :3]
    if (colours != colours[..., :1]).any():
        raise DataError(f"the mask has colours (mode {content.mode}). Name its classes by their colours, '#rrggbb'.")
    return colours[..., 0]
