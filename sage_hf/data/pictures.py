"""Picture files on their way into a dataset: read whole, checked, and left as they are."""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .annotations import check_pixels
from .formats import picture_formats
from .map_png import grey_png
from .saliency import DataError

FILE_BYTES = 512_000_000
"""Largest picture file: above it, a file is not what it claims, and would not fit a row of Parquet."""
ORIENTATION = 0x0112


def read_file(path: Path) -> bytes:
    """
    A regular file's content.

    Raises:
        [`DataError`]: it can't be read, has become a pipe or device, or is too large.
    """
    try:
        # Not blocking: a pipe that was put in the place of a file would wait for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{path.name} is not a regular file.")
            if status.st_size > FILE_BYTES:
                raise DataError(f"{path.name} has {status.st_size} bytes, more than the {FILE_BYTES} that fit a row.")
            return file.read()
    except OSError as error:
        raise DataError(f"{path.name} can't be read: {error.strerror or error}.") from None


def check_picture(content: bytes, name: str) -> tuple[int, int]:
    """
    Decode a picture file.

    Args:
        content (`bytes`): the file.
        name (`str`): what errors call it.

    Returns:
        `tuple[int, int]`: (width, height) as a reader sees it: `datasets` applies the EXIF rotation when it decodes.

    Raises:
        [`DataError`]: it is damaged, no picture, or declares more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            # Of too many pixels, refused below, and of odd metadata, which the pixels don't suffer from.
            warnings.simplefilter("ignore")
            image: Image.Image = Image.open(io.BytesIO(content), formats=picture_formats())
            check_pixels(image.size, "the picture")
            image.load()
            if image.getexif().get(ORIENTATION) is not None:
                image = ImageOps.exif_transpose(image)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except Exception as error:  # decoders raise anything on a damaged file
        raise DataError(f"{name} can't be read: {type(error).__name__}: {error}") from error
    return image.size


def open_picture(content: bytes) -> Image.Image:
    """A picture file that [`check_picture`] has let pass."""
    return Image.open(io.BytesIO(content), formats=picture_formats())


def encoded_map(values: np.ndarray, notes: dict[str, str] | None = None) -> bytes:
    """
    A map as an 8-bit grey PNG file.

    Args:
        values (`numpy.ndarray`): (height, width), in [0, 1].
        notes (`dict[str, str]`, *optional*): texts to be kept in the file.
    """
    return grey_png(np.round(values * 255).astype(np.uint8), notes)
