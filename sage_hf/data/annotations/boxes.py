"""Boxes, as detection tools export them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..saliency import DataError, relative_saliency
from .base import Size, coordinate_table, scale_to

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]


@dataclass(frozen=True)
class Boxes:
    """
    Boxes whose inside is salient.

    A pixel's saliency is the share of its area that a box covers, so that edges between pixels keep their place; where
    boxes overlap, the largest share counts. A box that is partly outside the picture is clipped.

    Args:
        boxes (`tuple[tuple[float, float, float, float], ...]`): four numbers a box.
        box_format (`str`, *optional*, defaults to `"xyxy"`):
            What they are: `"xyxy"` (left, top, right, bottom; Pascal VOC, Label Studio), `"xywh"` (left, top, width,
            height; COCO) or `"cxcywh"` (centre, width, height; YOLO).
        normalised (`bool`, *optional*, defaults to `False`): whether they are shares of the picture's width and
            height, in [0, 1], instead of pixels.
        annotated_size (`tuple[int, int]`, *optional*): (width, height) of the picture that the boxes were drawn on, if
            it may have been resized since.

    Raises:
        `ValueError`: an unknown `box_format`.
        [`DataError`]: from `saliency`: a box that is not four finite numbers, without a positive width and height, or
            entirely outside the picture; a picture of another aspect than `annotated_size`.

    Example:

    ```python
    >>> from sage_hf.data.annotations import Boxes
    >>> Boxes(((0.5, 0, 2, 1),)).saliency((3, 2)).tolist()
    [[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]

    ```
    """

    boxes: tuple[tuple[float, float, float, float], ...]
    box_format: BoxFormat = "xyxy"
    normalised: bool = False
    annotated_size: Size | None = None

    def __post_init__(self) -> None:
        if self.box_format not in get_args(BoxFormat):
            raise ValueError(
                f"Unknown box_format {self.box_format!r}. Choose one of {', '.join(get_args(BoxFormat))}."
            )

    def saliency(self, size: Size) -> np.ndarray | None:
        """See [`Annotation`]."""
        scale = scale_to(size, self.annotated_size, self.normalised)
        table = coordinate_table(self.boxes, 4, "box")
        if not len(table):
            return None
        values = np.zeros(size[::-1])
        for index, corners in enumerate(self._corners(table)):
            given = tuple(table[index].tolist())
            if not (corners[0] < corners[1]).all():
                raise DataError(f"box {index}, {given}, has no area as {self.box_format}. Is box_format right?")
            with np.errstate(over="ignore"):
                low, high = np.clip(corners * scale, 0, size)
            if not (low < high).all():
                raise DataError(f"box {index}, {given}, is outside the picture of {size[0]}x{size[1]}.")
            columns, across = _coverage(low[0], high[0])
            rows, down = _coverage(low[1], high[1])
            np.maximum(values[rows, columns], np.outer(down, across), out=values[rows, columns])
        found = relative_saliency(values)
        if found is None:
            raise DataError("the boxes are too small to mark a pixel.")
        return found

    def _corners(self, table: np.ndarray) -> np.ndarray:
        """(boxes, 2, 2): left top, right bottom."""
        first, second = table[:, :2], table[:, 2:]
        with np.errstate(over="ignore"):
            if self.box_format == "xywh":
                second = first + second
            elif self.box_format == "cxcywh":
                first, second = first - second / 2, first + second / 2
        return np.stack([first, second], axis=1)


def _coverage(low: float, high: float) -> tuple[slice, np.ndarray]:
    """The pixels that an interval touches along one axis, and how much of each it covers."""
    pixels = np.arange(int(np.floor(low)), int(np.ceil(high)))
    return slice(pixels[0], pixels[-1] + 1), np.minimum(high, pixels + 1) - np.maximum(low, pixels)
