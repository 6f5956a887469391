"""A fine annotation made coarser, to ask how fine it need be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import ndimage

from .base import Annotation, Size

Granularity = Literal["box", "area", "feature"]


@dataclass(frozen=True)
class Coarsened:
    """
    An annotation at one of three granularities.

    The three levels, boundary (BOI), area (AOI) and features of interest (FOI), are those that "Grains of Saliency:
    Optimizing Saliency-based Training of Biometric Attack Detection Models" (Crum, Webster and Czajka, 2024,
    arXiv:2405.00650) compares; it found areas often to serve best for iris presentation attacks. How a map becomes
    one level or the other is our own choice here, for want of the paper's exact steps, and so is the threshold:

    - `"box"`: the smallest upright box around everything marked, alike everywhere inside.
    - `"area"`: everything marked, outlines filled, alike everywhere inside.
    - `"feature"`: the map as it is, with its gradations.

    Args:
        annotation ([`Annotation`]): what was marked.
        granularity (`str`): `"box"`, `"area"` or `"feature"`.
        threshold (`float`, *optional*, defaults to 0.5): in (0, 1]; a pixel counts as marked if it has at least this
            share of the map's maximum. At 0.5, that is half the height of a Gaussian, and half the annotators of a
            mean whose maximum all of them share.

    Raises:
        `ValueError`: an unknown `granularity`, a threshold outside (0, 1].
        [`DataError`]: from `saliency`: as the annotation.

    Example:

    ```python
    >>> from sage_hf.data.annotations import Boxes, Coarsened
    >>> corners = Boxes(((0, 0, 1, 1), (2, 1, 3, 2)))
    >>> Coarsened(corners, "area").saliency((4, 2)).tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    >>> Coarsened(corners, "box").saliency((4, 2)).tolist()
    [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]]

    ```
    """

    annotation: Annotation
    granularity: Granularity
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.granularity not in get_args(Granularity):
            raise ValueError(
                f"Unknown granularity {self.granularity!r}. Choose one of {', '.join(get_args(Granularity))}."
            )
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must be above 0 and at most 1.")

    def saliency(self, size: Size) -> np.ndarray | None:
        """See [`Annotation`]."""
        values = self.annotation.saliency(size)
        if values is None or self.granularity == "feature":
            return values
        # Maxima are 1 up to rounding, which must not leave a threshold of 1 without a pixel.
        marked = values >= min(self.threshold, float(values.max()))
        if self.granularity == "area":
            return ndimage.binary_fill_holes(marked).astype(np.float32)
        boxed = np.zeros_like(values)
        boxed[ndimage.find_objects(marked.astype(int))[0]] = 1
        return boxed
