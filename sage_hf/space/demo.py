"""What the Space computes: predictions, where the model looks, and what a region of the picture does to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from ..problem_types import MULTI_LABEL, REGRESSION
from ..viewing.normalisation import normalisation
from ..viewing.subjects import Subject
from ..views import make_views
from ..visualization import overlaid, picture, visible

LEAST_SIDE = 320
"""Pictures are drawn at least as large, in pixels, by whole multiples."""


@dataclass
class Comparison:
    """
    A picture, and its views without and with nothing but a region.

    Args:
        region (`PIL.Image.Image`): the region laid over the picture.
        removed (`PIL.Image.Image`): x-, without it.
        kept (`PIL.Image.Image`): x+, with nothing else.
        predictions (`dict[str, dict[str, float]]`): of `"anchor"`, `"negative"` and `"positive"`, see
            [`Demo.predict`].
        share (`float`): of the picture that the region covers, in [0, 1].
    """

    region: Image.Image
    removed: Image.Image
    kept: Image.Image
    predictions: dict[str, dict[str, float]]
    share: float


class Demo:
    """
    A classifier for visitors to try.

    Args:
        subject ([`Subject`]): the model, of one or three channels.
        seed (`int`, *optional*, defaults to 0): of noise.

    Raises:
        `ValueError`: the model takes other pictures.
    """

    def __init__(self, subject: Subject, seed: int = 0):
        if subject.num_channels not in (1, 3):
            raise ValueError(
                f"{subject.name} takes pictures of {subject.num_channels} channels, which visitors can't upload."
            )
        self.subject, self.seed = subject, seed
        # Gradio asks for several visitors at once, and what is captured in a model's layers would be mixed up.
        self._one_at_a_time = Lock()

    @cached_property
    def _normalisation(self) -> tuple[list[float], list[float]]:
        return normalisation(lambda image: self.seen(image)[0], type(self.subject.processor).__name__)

    def seen(self, image: Image.Image) -> Tensor:
        """
        The model's input, (1, channels, height, width).

        Args:
            image (`PIL.Image.Image`): of any size and mode, turned as its EXIF data says.
        """
        image = ImageOps.exif_transpose(image)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            # What is transparent is white, not whatever colour lies below.
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        colour = self.subject.num_channels == 3
        values = np.array(image.convert("RGB" if colour else "L"))
        processor: Any = self.subject.processor
        output = processor(
            images=values if colour else values[None],
            input_data_format="channels_last" if colour else "channels_first",
            return_tensors="pt",
        )
        return output["pixel_values"].float()

    def drawn(self, pixel_values: Tensor) -> Image.Image:
        """
        The picture as the model sees it, large enough to look at.

        Args:
            pixel_values (`torch.Tensor`): (1, channels, height, width).
        """
        return _enlarged(picture(pixel_values[0], *self._normalisation).convert("RGB"))

    def predict(self, pixel_values: Tensor) -> dict[str, float]:
        """
        The probability of each class, in [0, 1]; of a regression its numbers.

        Args:
            pixel_values (`torch.Tensor`): as for [`Demo.drawn`].
        """
        with self._one_at_a_time:
            (outputs,), _ = self.subject.outputs(pixel_values)
        return dict(zip(self.subject.classes, map(float, outputs), strict=True))

    @property
    def gives_probabilities(self) -> bool:
        """Whether predictions are probabilities."""
        return self.subject.problem_type != REGRESSION

    @property
    def says_several(self) -> bool:
        """Whether each class is predicted for itself, so that several of them or none can be there."""
        return self.subject.problem_type == MULTI_LABEL

    def look(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """
        Where the model looks, by method: (height, width) in [0, 1]. Without `"cam"` for a model that has none.

        Args:
            pixel_values (`torch.Tensor`): as for [`Demo.drawn`].
        """
        with self._one_at_a_time:
            found = self.subject.looks(pixel_values)
        return {method: maps[0] for method, maps in found.items()}

    def laid_over(self, pixel_values: Tensor, saliency: Tensor, method: str = "cam") -> Image.Image:
        """
        Where the model looks, laid over the picture.

        Args:
            pixel_values (`torch.Tensor`): as for [`Demo.drawn`].
            saliency (`torch.Tensor`): (height, width) in [0, 1].
            method (`str`, *optional*, defaults to `"cam"`): that made it.
        """
        image = picture(pixel_values[0], *self._normalisation)
        return _enlarged(overlaid(image, visible(saliency, method)))

    def compare(self, pixel_values: Tensor, region: Tensor, degradation: str = "mean") -> Comparison:
        """
        What the model predicts without a region of the picture, and with nothing else.

        Args:
            pixel_values (`torch.Tensor`): as for [`Demo.drawn`].
            region (`torch.Tensor`): (height, width) in [0, 1].
            degradation (`str`, *optional*, defaults to `"mean"`): what is put in the place of what is removed, as for
                [`make_views`]; not `"shuffle"`, which takes several pictures.
        """
        generator = torch.Generator().manual_seed(self.seed)
        kept, removed = make_views(pixel_values, region[None, None], degradation, generator=generator)
        views = {"anchor": pixel_values, "negative": removed, "positive": kept}
        return Comparison(
            self.laid_over(pixel_values, region),
            self.drawn(removed),
            self.drawn(kept),
            {view: self.predict(values) for view, values in views.items()},
            float(region.mean()),
        )


def most_looked_at(saliency: Tensor, share: float) -> Tensor:
    """
    The region that a model looks at most.

    Args:
        saliency (`torch.Tensor`): (height, width), not negative.
        share (`float`): of the picture that it covers at most, in [0, 1]; where the map is 0 is never part of it.

    Returns:
        `torch.Tensor`: (height, width), 1 inside and 0 outside.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.space.demo import most_looked_at
    >>> most_looked_at(torch.tensor([[0.1, 0.9], [0.0, 0.5]]), 0.5)
    tensor([[0., 1.],
            [0., 1.]])

    ```
    """
    count = min(round(share * saliency.numel()), int((saliency > 0).sum()))
    region = torch.zeros(saliency.numel())
    # Stable, so that of equal places those further up and left are taken, wherever it is computed.
    region[saliency.flatten().cpu().argsort(descending=True, stable=True)[:count]] = 1
    return region.view(saliency.shape)


def brushed(layers: list[np.ndarray], size: tuple[int, int]) -> Tensor:
    """
    The region that a visitor has brushed.

    Args:
        layers (`list[numpy.ndarray]`): what was brushed, (height, width, 4) each, transparent where it was not.
        size (`tuple[int, int]`): (height, width) of the model's input.

    Returns:
        `torch.Tensor`: (height, width), the share of each pixel that was brushed, in [0, 1].
    """
    region = torch.zeros(size)
    for layer in layers:
        opaque = torch.from_numpy(np.asarray(layer)[..., 3] > 0).float()[None, None]
        region = torch.maximum(region, F.interpolate(opaque, size, mode="area")[0, 0])
    return region


def _enlarged(image: Image.Image) -> Image.Image:
    """With its own pixels visible."""
    factor = max(1, -(-LEAST_SIDE // max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
