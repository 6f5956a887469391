"""Fixation points of an eye tracker."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np

from ..saliency import DataError, relative_saliency
from .base import Size, coordinate_table, scale_to


def sigma_of_visual_angle(degrees: float, distance: float, pixel_pitch: float) -> float:
    """
    How many pixels of a screen a visual angle spans: `2 * distance * tan(degrees / 2) / pixel_pitch`.

    Fixation maps usually take one degree as sigma, about the width of the fovea's sharpest part and the accuracy of an
    eye tracker (Le Meur and Baccino, "Methods for comparing scanpaths and saliency maps", 2013).

    Args:
        degrees (`float`): the visual angle, above 0 and below 180.
        distance (`float`): from the eye to the screen, in any unit of length.
        pixel_pitch (`float`): width of a pixel on the screen, in the same unit; the picture is shown pixel by pixel.

    Returns:
        `float`: pixels.

    Raises:
        `ValueError`: an argument outside its range.

    Example:

    ```python
    >>> from sage_hf.data.annotations import sigma_of_visual_angle
    >>> round(sigma_of_visual_angle(1, distance=600, pixel_pitch=0.27), 2)  # millimetres
    38.79

    ```
    """
    if not (0 < degrees < 180 and 0 < distance < math.inf and 0 < pixel_pitch < math.inf):
        raise ValueError(
            f"degrees must lie between 0 and 180, distance and pixel_pitch above 0; got {degrees}, {distance}, "
            f"{pixel_pitch}."
        )
    return 2 * distance * math.tan(math.radians(degrees) / 2) / pixel_pitch


@dataclass(frozen=True)
class Fixations:
    """
    Fixation points, each spread by a Gaussian: the fixation map of eye-tracking research.

    Every point counts at the pixel it lies in, weighted by its duration; the sum of the Gaussians around these pixels
    is the map. Points outside the picture, where an eye left it, count nothing.

    Args:
        points (`tuple[tuple[float, float], ...]`): (x, y) of each.
        sigma (`float`): standard deviation of the Gaussian, in pixels of the picture that was looked at (of
            `annotated_size` if given); see [`sigma_of_visual_angle`].
        durations (`tuple[float, ...]`, *optional*): weight of each point, from 0 on, in any unit of time. All alike
            if not given.
        annotated_size (`tuple[int, int]`, *optional*): (width, height) of the picture as it was shown, if it may have
            been resized since.
        normalised (`bool`, *optional*, defaults to `False`): whether points are shares of the picture's width and
            height, in [0, 1], instead of pixels.

    Raises:
        [`DataError`]: from `saliency`: a point that is not two finite numbers, all points outside the picture, a
            sigma that is not above 0, durations that don't fit; a picture of another aspect than `annotated_size`.

    Example:

    ```python
    >>> from sage_hf.data.annotations import Fixations
    >>> Fixations(((1.5, 0.5),), sigma=1).saliency((3, 1)).round(3)
    array([[0.607, 1.   , 0.607]], dtype=float32)

    ```
    """

    points: tuple[tuple[float, float], ...]
    sigma: float
    durations: tuple[float, ...] | None = None
    annotated_size: Size | None = None
    normalised: bool = False

    def saliency(self, size: Size) -> np.ndarray | None:
        """See [`Annotation`]."""
        scale = scale_to(size, self.annotated_size, self.normalised)
        table = coordinate_table(self.points, 2, "point")
        if not isinstance(self.sigma, Real) or not 0 < self.sigma < math.inf:
            raise DataError(f"sigma is {self.sigma!r}; it must be a number above 0.")
        weights = self._weights(len(table))
        if not len(table):
            return None
        with np.errstate(over="ignore"):
            places = table * scale
        inside = ((places >= 0) & (places <= size)).all(axis=1)
        if not (weights[inside] > 0).any():
            raise DataError(
                f"all {len(table)} points are outside the picture of {size[0]}x{size[1]}, or last no time. Are they "
                "shares (normalised), or of a picture of another size (annotated_size)?"
            )
        # A point on the right or lower edge counts at the last pixel.
        pixels = np.minimum(places[inside].astype(int), np.array(size) - 1)
        spread = float(self.sigma) * scale_to(size, self.annotated_size)
        columns, column_of = np.unique(pixels[:, 0], return_inverse=True)
        rows, row_of = np.unique(pixels[:, 1], return_inverse=True)
        impulses = np.zeros((len(rows), len(columns)))
        np.add.at(impulses, (row_of, column_of), weights[inside])
        # Gaussians are separable and points are few, so this costs the same whatever sigma is; a filter does not.
        values = _gaussians(rows, size[1], spread[1]).T @ impulses @ _gaussians(columns, size[0], spread[0])
        return relative_saliency(values)

    def _weights(self, count: int) -> np.ndarray:
        if self.durations is None:
            return np.ones(count)
        weights = coordinate_table([(duration,) for duration in self.durations], 1, "duration")[:, 0]
        if len(weights) != count:
            raise DataError(f"there are {count} points, but {len(weights)} durations.")
        if (weights < 0).any():
            raise DataError(f"durations can't be negative; the lowest is {weights.min():g}.")
        highest = weights.max(initial=0.0)
        return weights / highest if highest > 0 else weights


def _gaussians(centres: np.ndarray, length: int, sigma: float) -> np.ndarray:
    """(centres, length): a Gaussian around each, 1 at its centre."""
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(-0.5 * ((np.arange(length) - centres[:, None]) / sigma) ** 2)
