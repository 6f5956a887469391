"""Regions as COCO stores them: polygons and run lengths."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..saliency import DataError, relative_saliency
from .base import Size, check_pixels, coordinate_table, resized, scale_to

FARTHEST = 1e9
"""Polygon coordinates beyond this many pixels are no slip of the hand; clipping them would lose all precision."""


@dataclass(frozen=True)
class CocoRegions:
    """
    Regions in the forms of COCO's `segmentation`, drawn by pycocotools.

    Polygons are scaled to the picture and drawn at its resolution; masks in run lengths are decoded as they are and
    resized. A polygon that is partly outside the picture is clipped.

    Args:
        segmentations (`tuple`):
            One a region: a list of polygons (`[[x1, y1, x2, y2, ...], ...]`, in pixels), or run lengths
            (`{"size": [height, width], "counts": ...}`), uncompressed (a list) or compressed (a string).
        annotated_size (`tuple[int, int]`): (width, height) of the picture that they refer to, as COCO's `images` say.

    Raises:
        [`DataError`]: from `saliency`: a region in none of these forms, polygons with less than three corners or
            entirely outside the picture, run lengths that don't fit their size, regions too small to mark a pixel; a
            picture of another aspect than `annotated_size`.

    Example:

    ```python
    >>> from sage_hf.data.annotations import CocoRegions
    >>> square, column = [[0, 0, 2, 0, 2, 2, 0, 2]], {"size": [2, 4], "counts": [6, 2]}
    >>> CocoRegions((square, column), (4, 2)).saliency((4, 2)).tolist()
    [[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0]]

    ```
    """

    segmentations: tuple[Any, ...]
    annotated_size: Size

    def saliency(self, size: Size) -> np.ndarray | None:
        """See [`Annotation`]."""
        scale = scale_to(size, self.annotated_size)
        if not self.segmentations:
            return None
        values = np.zeros(size[::-1], dtype=np.float32)
        for index, region in enumerate(self.segmentations):
            try:
                drawn = self._decoded(region, size) if isinstance(region, dict) else _drawn(region, scale, size)
            except DataError as error:
                raise DataError(f"region {index}: {error}") from None
            np.maximum(values, drawn, out=values)
        found = relative_saliency(values)
        if found is None:
            raise DataError("the regions are empty, or too small to mark a pixel.")
        return found

    def _decoded(self, region: dict[str, Any], size: Size) -> np.ndarray:
        from pycocotools import mask

        width, height = check_pixels(self.annotated_size, "the mask")
        declared, counts = region.get("size"), region.get("counts")
        if not isinstance(declared, Sequence) or list(declared) != [height, width]:
            raise DataError(f"its size is {declared}, not [{height}, {width}] (height, width) as its picture's.")
        runs = run_lengths(counts) if isinstance(counts, (str, bytes)) else counts
        if not isinstance(runs, Sequence) or not all(type(run) is int and run >= 0 for run in runs):
            raise DataError("its counts are neither whole numbers from 0 on nor compressed run lengths.")
        # pycocotools leaves memory as it was where counts end too early.
        if sum(runs) != width * height:
            raise DataError(f"its run lengths cover {sum(runs)} pixels, its size has {width * height}.")
        encoded = mask.frPyObjects({"size": [height, width], "counts": list(runs)}, height, width)
        return resized(_pixels(encoded), size)


def run_lengths(counts: str | bytes) -> list[int]:
    """
    The run lengths in COCO's compressed string.

    Six bits a character from ASCII 48 on: five of the number, least significant first, and one that says that it goes
    on; the last one's highest bit is the sign. From the fourth on, a number is the difference to the run two before
    (rleToString in pycocotools' maskApi.c).

    Raises:
        [`DataError`]: characters that don't occur in such a string, or a string that ends inside a number.

    Example:

    ```python
    >>> from sage_hf.data.annotations.coco import run_lengths
    >>> run_lengths("62P1")
    [6, 2, 32]

    ```
    """
    runs: list[int] = []
    value = shift = 0
    try:
        codes = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        codes = b"\0"
    for code in codes:
        if not 48 <= code < 112:
            raise DataError("its counts are no compressed run lengths: they hold other characters.")
        bits = code - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise DataError("its counts end inside a number. Were they cut off?")
    return runs


def _drawn(region: Any, scale: np.ndarray, size: Size) -> np.ndarray:
    from pycocotools import mask

    if not isinstance(region, Sequence) or isinstance(region, (str, bytes)):
        raise DataError(f"{type(region).__name__} is neither a list of polygons nor run lengths.")
    if not region:
        raise DataError("it has no polygon. If it has a box, use that (Boxes).")
    polygons = []
    for index, numbers in enumerate(region):
        if not isinstance(numbers, Sequence) or isinstance(numbers, (str, bytes)):
            raise DataError(f"polygon {index} is {numbers!r}, not a list of numbers.")
        if len(numbers) % 2 or len(numbers) < 6:
            raise DataError(
                f"polygon {index} has {len(numbers)} numbers; it needs two for each of three or more corners."
            )
        polygon = coordinate_table([numbers], len(numbers), "polygon")[0].reshape(-1, 2) * scale
        if np.abs(polygon).max() > FARTHEST:
            raise DataError(f"polygon {index} has coordinates beyond {FARTHEST:g} pixels.")
        if (polygon.max(axis=0) <= 0).any() or (polygon.min(axis=0) >= size).any():
            raise DataError(f"polygon {index} is outside the picture of {size[0]}x{size[1]}.")
        polygon = _clipped(polygon, size)
        if len(polygon) > 2:
            polygons.append(polygon.ravel().tolist())
    if not polygons:
        raise DataError(f"it is outside the picture of {size[0]}x{size[1]}.")
    runs = mask.frPyObjects(polygons, size[1], size[0])
    return _pixels(mask.merge(runs))


def _pixels(encoded: dict[str, Any]) -> np.ndarray:
    from pycocotools import mask

    with warnings.catch_warnings():
        # Its result still has the __array__ of numpy 1 (seen in 2.0.11).
        warnings.simplefilter("ignore", DeprecationWarning)
        return mask.decode(encoded).astype(np.float32)


def _clipped(polygon: np.ndarray, size: Size) -> np.ndarray:
    """
    A polygon cut to the picture and a margin of one pixel, by Sutherland and Hodgman's algorithm.

    pycocotools clips by itself, but only after it has stepped along every edge, whatever its length.
    """
    for axis in (0, 1):
        for bound, sign in ((-1.0, 1.0), (size[axis] + 1.0, -1.0)):
            inside = (polygon[:, axis] - bound) * sign >= 0
            if inside.all():
                continue
            kept = []
            for index, corner in enumerate(polygon):
                before = polygon[index - 1]
                if inside[index] != inside[index - 1]:
                    share = (bound - before[axis]) / (corner[axis] - before[axis])
                    kept.append(before + share * (corner - before))
                if inside[index]:
                    kept.append(corner)
            polygon = np.array(kept).reshape(-1, 2)
    return polygon
