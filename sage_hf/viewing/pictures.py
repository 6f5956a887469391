"""The pictures of a row: itself, its map, its views, what they are made with, and where models look."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from ..data.saliency import DataError
from ..data.transforms import AlignedTransform
from ..visualization import heat_map, overlaid, picture, visible
from .normalisation import normalisation


@dataclass
class RowPictures:
    """
    The pictures of a row, all as large as the (first) model's input.

    Args:
        image (`PIL.Image.Image`): the picture as the (first) model is given it.
        saliency (`PIL.Image.Image`, *optional*): its map, grey.
        marked (`PIL.Image.Image`, *optional*): the map laid over the picture.
        views (`dict[str, PIL.Image.Image]`): `"positive"` (x+) and `"negative"` (x-), of a row with a map.
        degraded (`dict[str, PIL.Image.Image]`): D(x) by the name of the degradation.
        looks (`list[dict[str, PIL.Image.Image]]`): for each model, where it looks by method, laid over the picture.
    """

    image: Image.Image
    saliency: Image.Image | None = None
    marked: Image.Image | None = None
    views: dict[str, Image.Image] = field(default_factory=dict)
    degraded: dict[str, Image.Image] = field(default_factory=dict)
    looks: list[dict[str, Image.Image]] = field(default_factory=list)


class Painter:
    """
    Turns a model's inputs back into pictures, see [`normalisation`].

    Args:
        transform ([`AlignedTransform`]): for one or three channels.

    Raises:
        [`DataError`]: another number of channels, or a processor that does not tell black from white.

    Example:

    ```python
    >>> from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    >>> from sage_hf import AlignedTransform
    >>> from sage_hf.viewing.pictures import Painter
    >>> painter = Painter(AlignedTransform(ViTImageProcessorPil(size={"height": 32, "width": 32})))
    >>> painter.mean, painter.std
    ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])

    ```
    """

    def __init__(self, transform: AlignedTransform):
        if transform.num_channels not in (1, 3):
            raise DataError(f"pictures of {transform.num_channels} channels can't be drawn.")
        self.mean, self.std = normalisation(
            lambda image: transform({transform.image_column: image})["pixel_values"],
            type(transform.processor).__name__,
        )

    def __call__(self, pixel_values: Tensor) -> Image.Image:
        """
        The picture.

        Args:
            pixel_values (`torch.Tensor`): (channels, height, width).
        """
        return picture(pixel_values, self.mean, self.std)

    def row(
        self, pixel_values: Tensor, saliency: Tensor | None, views: dict[str, Tensor], degraded: dict[str, Tensor]
    ) -> RowPictures:
        """
        The pictures of a row but where models look.

        Args:
            pixel_values (`torch.Tensor`): as for a call.
            saliency (`torch.Tensor`, *optional*): (1, height, width) in [0, 1].
            views (`dict[str, torch.Tensor]`): each as `pixel_values`, by name.
            degraded (`dict[str, torch.Tensor]`): likewise.
        """
        image = self(pixel_values)
        return RowPictures(
            image,
            None if saliency is None else heat_map(saliency),
            None if saliency is None else overlaid(image, saliency[0]),
            {name: self(view) for name, view in views.items()},
            {name: self(one) for name, one in degraded.items()},
        )

    @staticmethod
    def looks(image: Image.Image, maps: dict[str, Tensor], row: int) -> dict[str, Image.Image]:
        """
        Where a model looks in a picture, laid over it.

        Args:
            image (`PIL.Image.Image`): of any size; a model may see it at another.
            maps (`dict[str, torch.Tensor]`): (rows, height, width) by method.
            row (`int`): whose.
        """
        found = {}
        for method, values in maps.items():
            one = values[row][None, None]
            if one.shape[-2:] != (image.height, image.width):
                one = torch.nn.functional.interpolate(one, (image.height, image.width), mode="bilinear")
            found[method] = overlaid(image, visible(one[0, 0], method))
        return found
