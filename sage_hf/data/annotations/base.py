"""What an annotation is: something that can make the saliency map of a picture, given the picture's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..saliency import DataError, same_aspect

Size = tuple[int, int]
"""(width, height) in pixels."""


class Annotation(Protocol):
    """
    What somebody marked on one picture.

    Annotations are small, can be pickled, and do their work in `saliency`, so that processes share it. Coordinates are
    continuous: pixel 0 reaches from 0 to 1, its centre lies at 0.5, and the picture's right edge at its width.
    """

    def saliency(self, size: Size) -> np.ndarray | None:
        """
        The map of what is marked.

        Args:
            size (`tuple[int, int]`): (width, height) of the picture in pixels, after EXIF rotation.

        Returns:
            `numpy.ndarray`: float32, (height, width), in [0, 1] with a maximum of 1; `None` if nothing is marked. Map
            files keep their own resolution, everything else has exactly the picture's.

        Raises:
            [`DataError`]: an annotation that can't be right; the message says why.
        """
        ...


def check_pixels(size: Sequence[int], what: str) -> Size:
    """
    Refuse what has too many pixels before memory is spent on them.

    Args:
        size (`Sequence[int]`): (width, height), as a header or an annotation declares them.
        what (`str`): what has that size, for the message.

    Returns:
        `tuple[int, int]`: the size.

    Raises:
        [`DataError`]: sides that are no whole numbers above 0, or more pixels than `PIL.Image.MAX_IMAGE_PIXELS`, the
            limit that PIL warns of (set it higher, or to `None`, for larger pictures).

    Example:

    ```python
    >>> from sage_hf.data.annotations import check_pixels
    >>> check_pixels((640, 480), "the picture")
    (640, 480)
    >>> check_pixels((640, 0), "the picture")
    Traceback (most recent call last):
    ...
    sage_hf.data.saliency.DataError: the picture can't be (640, 0) pixels large.

    ```
    """
    width, height = _whole(size, what)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise DataError(
            f"{what} has {width}x{height} pixels, more than the {limit} of PIL.Image.MAX_IMAGE_PIXELS. Make it "
            "smaller, or raise that limit if you trust the file."
        )
    return width, height


def _whole(size: Sequence[int], what: str) -> Size:
    try:
        width, height = (int(side) for side in size)
        whole = 0 < width < 2**31 and 0 < height < 2**31 and (width, height) == tuple(size)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise DataError(f"{what} can't be {size} pixels large.")
    return width, height


def coordinate_table(rows: Any, columns: int, what: str) -> np.ndarray:
    """
    Numbers of an annotation as a table.

    Args:
        rows (`Sequence[Sequence[float]]`): may be empty.
        columns (`int`): numbers in each row.
        what (`str`): name of a row, for the message.

    Returns:
        `numpy.ndarray`: float64, (rows, columns), finite.

    Raises:
        [`DataError`]: a row of another length, or with something that is no finite number.
    """
    table = np.empty((len(rows), columns))
    for index, row in enumerate(rows):
        try:
            values = np.array([float(value) for value in row])
        except (TypeError, ValueError, OverflowError):
            raise DataError(f"{what} {index} is {row!r}, not {columns} numbers.") from None
        if len(values) != columns:
            raise DataError(f"{what} {index} has {len(values)} numbers, not {columns}.")
        if not np.isfinite(values).all():
            raise DataError(f"{what} {index} has NaN or infinite coordinates: {tuple(values.tolist())}.")
        table[index] = values
    return table


def scale_to(size: Size, annotated_size: Size | None = None, normalised: bool = False) -> np.ndarray:
    """
    What coordinates are multiplied by to become pixels of a picture.

    Args:
        size (`tuple[int, int]`): (width, height) of the picture.
        annotated_size (`tuple[int, int]`, *optional*): of the picture that the coordinates refer to; `size` if not
            given.
        normalised (`bool`, *optional*, defaults to `False`): whether coordinates are shares of the width and height.

    Returns:
        `numpy.ndarray`: (2,), of x and of y.

    Raises:
        [`DataError`]: the aspects of the two sizes differ.
    """
    width, height = check_pixels(size, "the picture")
    # Not held against the limit: nothing of that size is made.
    annotated = (width, height) if annotated_size is None else _whole(annotated_size, "the annotated picture")
    if not same_aspect(annotated, (width, height)):
        raise DataError(
            f"the annotation is of a picture of {annotated[0]}x{annotated[1]}, its image has {width}x{height}: their "
            "aspects differ. Was the image cropped, or rotated by an EXIF tag, since it was annotated?"
        )
    return np.array([width, height]) / (1 if normalised else np.array(annotated))


def resized(values: np.ndarray, size: Size) -> np.ndarray:
    """
    A map at another resolution, bilinearly sampled, relative to its maximum again.

    Args:
        values (`numpy.ndarray`): float32, (height, width).
        size (`tuple[int, int]`): (width, height).

    Returns:
        `numpy.ndarray`: float32, of that size; values as they were if the size was that already.
    """
    if values.shape[::-1] == tuple(size):
        return values
    image = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    # A lone pixel of a large map is spread thin, and rounding may leave the least below 0.
    sampled = np.clip(np.asarray(image), 0, None)
    return sampled / sampled.max() if sampled.max() > 0 else sampled
