"""Several annotators' maps of one picture as a single map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..saliency import DataError, relative_saliency
from .base import Annotation, Size, resized

Combination = Literal["mean", "union", "intersection"]


def combine_saliency(maps: Sequence[np.ndarray | None], how: Combination) -> np.ndarray | None:
    """
    One map of several annotators', relative to its own maximum again.

    Only annotators who marked something count: a blank map says that there is no annotation, not that nothing matters.

    Args:
        maps (`Sequence[numpy.ndarray | None]`): (height, width), in [0, 1], all of one shape; `None` or all 0 from an
            annotator who marked nothing.
        how (`str`): `"mean"`, the average; `"union"`, the highest value of each pixel; `"intersection"`, its lowest.

    Returns:
        `numpy.ndarray`: float32, (height, width), in [0, 1] with a maximum of 1; `None` if nobody marked anything, or
        if an intersection is empty.

    Raises:
        `ValueError`: an unknown `how`.
        [`DataError`]: maps of different shapes.

    Example:

    ```python
    >>> import numpy as np
    >>> from sage_hf.data.annotations import combine_saliency
    >>> maps = [np.array([[0.0, 1.0, 0.5]]), np.array([[1.0, 1.0, 0.0]]), None]
    >>> combine_saliency(maps, "mean").tolist()
    [[0.5, 1.0, 0.25]]
    >>> combine_saliency(maps, "intersection").tolist()
    [[0.0, 1.0, 0.0]]

    ```
    """
    _check(how)
    marked = [values for values in maps if values is not None and values.any()]
    if not marked:
        return None
    shapes = {values.shape for values in marked}
    if len(shapes) > 1:
        raise DataError(f"the maps have different shapes: {sorted(shapes)}. Resize them to the picture's.")
    stack = np.stack(marked)
    if how == "mean":
        return relative_saliency(stack.mean(axis=0))
    return relative_saliency(stack.max(axis=0) if how == "union" else stack.min(axis=0))


@dataclass(frozen=True)
class Combined:
    """
    Several annotators' annotations of one picture as a single map, see [`combine_saliency`].

    Maps of another resolution than the picture's are resized to it first.

    Args:
        annotations (`tuple[Annotation, ...]`): one an annotator.
        how (`str`): `"mean"`, `"union"` or `"intersection"`.

    Raises:
        `ValueError`: an unknown `how`.
        [`DataError`]: from `saliency`: as the annotations; the message says which annotator's.

    Example:

    ```python
    >>> from sage_hf.data.annotations import Boxes, Combined
    >>> both = Combined((Boxes(((0, 0, 2, 1),)), Boxes(((1, 0, 3, 1),))), "mean")
    >>> both.saliency((4, 1)).tolist()
    [[0.5, 1.0, 0.5, 0.0]]

    ```
    """

    annotations: tuple[Annotation, ...]
    how: Combination

    def __post_init__(self) -> None:
        _check(self.how)

    def saliency(self, size: Size) -> np.ndarray | None:
        """See [`Annotation`]."""
        maps = []
        for index, annotation in enumerate(self.annotations):
            try:
                values = annotation.saliency(size)
            except DataError as error:
                raise DataError(f"annotator {index}: {error}") from None
            maps.append(None if values is None else resized(values, size))
        return combine_saliency(maps, self.how)


def _check(how: str) -> None:
    if how not in get_args(Combination):
        raise ValueError(f"Unknown combination {how!r}. Choose one of {', '.join(get_args(Combination))}.")
