"""Drawn maps on their way between page and store: bytes of grey values, deflated, never a picture to be decoded."""

from __future__ import annotations

import zlib

import numpy as np

from ..data.annotations.map_file import MapFile
from ..data.map_png import grey_png
from ..data.saliency import DataError

Size = tuple[int, int]


def packed(values: np.ndarray) -> bytes:
    """
    A map as a page reads it.

    Args:
        values (`numpy.ndarray`): (height, width), uint8 or floating-point numbers in [0, 1].

    Example:

    ```python
    >>> import numpy as np
    >>> from sage_hf.annotate.maps import packed, unpacked
    >>> unpacked(packed(np.eye(2)), (2, 2)).tolist()
    [[255, 0], [0, 255]]

    ```
    """
    if values.dtype != np.uint8:
        values = np.round(values * 255).astype(np.uint8)
    return zlib.compress(np.ascontiguousarray(values).tobytes(), 3)


def unpacked(content: bytes, size: Size) -> np.ndarray:
    """
    A map as a page sends it; no more memory is spent than the picture's size asks for.

    Args:
        content (`bytes`): zlib data of one byte a pixel, row by row.
        size (`tuple[int, int]`): (width, height).

    Returns:
        `numpy.ndarray`: uint8, (height, width).

    Raises:
        [`~sage_hf.data.DataError`]: it is damaged, or of another size.
    """
    width, height = size
    reader = zlib.decompressobj()
    try:
        values = reader.decompress(content, width * height + 1)
    except zlib.error as error:
        raise DataError(f"the map is damaged: {error}.") from None
    if len(values) != width * height or not reader.eof:
        raise DataError(f"the map does not have the {width}x{height} values of its picture.")
    return np.frombuffer(values, np.uint8).reshape(height, width)


def png_of(values: np.ndarray) -> bytes | None:
    """A map as a grey PNG file, `None` if it is blank."""
    if not values.any():
        return None
    return grey_png(values)


def values_of(png: bytes, size: Size) -> np.ndarray:
    """
    The values of a stored map as they were drawn.

    Raises:
        [`~sage_hf.data.DataError`]: it can't be read, or is not of that size.
    """
    from ..data.annotations.map_file import read_map

    picture = read_map(png)
    values = np.asarray(picture)
    if values.dtype != np.uint8 or values.shape != size[::-1]:
        raise DataError(f"the map is {values.dtype} of {values.shape[::-1]}, its picture has {size} pixels.")
    return values


def full_size(annotation: MapFile, size: Size) -> np.ndarray | None:
    """A map that exists already, at its picture's resolution: float32 in [0, 1]; `None` if it is blank."""
    from ..data.annotations.base import resized

    values = annotation.saliency(size)
    return None if values is None else resized(values, size)
