"""How an image processor normalises, found out by giving it black and white."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from torch import Tensor

from ..data.saliency import DataError


def normalisation(process: Callable[[Image.Image], Tensor], name: str) -> tuple[list[float], list[float]]:
    """
    Mean and deviation of each channel, pictures being in [0, 1]. Some processors normalise twice, some not at all,
    whatever their settings say.

    Args:
        process (`Callable`): makes (channels, height, width) of an RGB picture.
        name (`str`): what errors call it.

    Raises:
        [`DataError`]: it does not tell black from white.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.viewing.normalisation import normalisation
    >>> def process(image):
    ...     return torch.full((1, 8, 8), (image.getpixel((0, 0))[0] / 255 - 0.5) / 0.25)
    >>> normalisation(process, "mine")
    ([0.5], [0.25])

    ```
    """
    black, white = (
        values[:, values.shape[-2] // 2, values.shape[-1] // 2]
        for values in (process(Image.new("RGB", (64, 64), shade)) for shade in ("black", "white"))
    )
    if not (white > black).all():
        raise DataError(f"{name} does not tell black from white: there is nothing to draw.")
    std = 1 / (white - black)
    return [round(float(value), 6) for value in -black * std], [round(float(value), 6) for value in std]
