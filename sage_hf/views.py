r"""
Views of a picture that keep or remove what a human marked: tensors in, tensors out.

For an image \(x\), a saliency map \(s \in [0, 1]\) and a degradation \(D\):

    x+ = s * x + (1 - s) * D(x)        salient-preserving: what humans marked is intact
    x- = (1 - s) * x + s * D(x)        saliency-degrading: what humans marked is gone

Salient-preserving and saliency-degrading augmentations are the paper's (arXiv 2511.12744); the degradations below and
their settings are our own choice, because the paper's were not available to us.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Degradation = Callable[[Tensor, torch.Generator | None], Tensor]
"""Takes `pixel_values` (batch, channels, height, width) and a generator (or `None`), gives a tensor of that shape."""

MapDegradation = Callable[[Tensor, Tensor, torch.Generator | None], Tensor]
"""As [`Degradation`], but knows what is marked: its second argument is the maps, (batch, 1, height, width)."""

BLUR_SIGMA = 0.1
"""Standard deviation of the blur as a fraction of the picture's shorter side."""


def degrade_blur(pixel_values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Gaussian blur with `sigma = 0.1 * min(height, width)`. Colour and coarse layout survive."""
    return _gaussian_blur(pixel_values, BLUR_SIGMA * min(pixel_values.shape[-2:]))


def _gaussian_blur(values: Tensor, sigma: float) -> Tensor:
    from kornia.filters import gaussian_blur2d

    # Three sigma on either side; reflection can't reach further than the picture itself.
    reach = min(math.ceil(3 * sigma), min(values.shape[-2:]) - 1)
    return gaussian_blur2d(values, (2 * reach + 1, 2 * reach + 1), (sigma, sigma))


def degrade_mean(pixel_values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Each picture's own mean colour everywhere."""
    return pixel_values.mean(dim=(-2, -1), keepdim=True).expand_as(pixel_values)


def degrade_noise(pixel_values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Gaussian noise with each picture's own mean and deviation per channel, clamped to its own range of values."""
    noise = torch.randn(pixel_values.shape, generator=generator, device=pixel_values.device, dtype=pixel_values.dtype)
    mean = pixel_values.mean(dim=(-2, -1), keepdim=True)
    deviation = pixel_values.std(dim=(-2, -1), keepdim=True, correction=0)
    lowest, highest = pixel_values.amin(dim=(-2, -1), keepdim=True), pixel_values.amax(dim=(-2, -1), keepdim=True)
    return (mean + deviation * noise).clamp(lowest, highest)


def degrade_shuffle(pixel_values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """
    The same pixels of another picture of the batch, each picture being used once and never for itself.

    It removes what blur leaves alive: colour, and anything else that gives the class away outside the marked region.
    """
    return pixel_values[partners(len(pixel_values), pixel_values.device, generator)]


def degrade_background(pixel_values: Tensor, saliency: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """
    As [`degrade_shuffle`], but what is marked in the other picture is filled in from around: see [`fill_marks`].

    Where evidence is a small part of the picture, as a lesion is of a leaf, shuffling puts the evidence of other
    classes into the views: x+ then shows two diseases and has the label of one. Rows with a blank map are taken as
    they are; in training, rows without a map are not taken at all, as their evidence may lie anywhere, unless their
    class is one of `unmarked_classes`.
    """
    order = partners(len(pixel_values), pixel_values.device, generator)
    return fill_marks(pixel_values, saliency)[order]


NEARBY = 1e-3
"""Where the unmarked pixels around weigh less than this, their place is taken by the mean of all unmarked ones."""


def fill_marks(pixel_values: Tensor, saliency: Tensor) -> Tensor:
    """
    Pictures whose marked places are filled in from the unmarked ones around them.

    With w = 1 - s, G a Gaussian blur with `sigma = 0.1 * min(height, width)`, m the mean of the picture weighted by w
    and eps = 0.001, each channel becomes

        w * x + s * (G(w * x) + eps * m) / (G(w) + eps)

    A picture that is marked all over has no unmarked pixels, and becomes 0.

    Args:
        pixel_values (`torch.Tensor`): (batch, channels, height, width).
        saliency (`torch.Tensor`): (batch, 1, height, width), in [0, 1].

    Returns:
        `torch.Tensor`: (batch, channels, height, width).

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.views import fill_marks
    >>> x, s = torch.tensor([[[[3.0, 3.0], [9.0, 3.0]]]]), torch.tensor([[[[0.0, 0.0], [1.0, 0.0]]]])
    >>> [round(value, 4) for value in fill_marks(x, s).flatten().tolist()]
    [3.0, 3.0, 3.0, 3.0]

    ```
    """
    unmarked = 1 - saliency.to(pixel_values.dtype)
    kept = unmarked * pixel_values
    sigma = BLUR_SIGMA * min(pixel_values.shape[-2:])
    total = unmarked.sum(dim=(-2, -1), keepdim=True)
    mean = kept.sum(dim=(-2, -1), keepdim=True) / torch.where(total > 0, total, torch.ones_like(total))
    around = (_gaussian_blur(kept, sigma) + NEARBY * mean) / (_gaussian_blur(unmarked, sigma) + NEARBY)
    return torch.lerp(around, pixel_values, unmarked)


def grow_marks(saliency: Tensor, share: float) -> Tensor:
    """
    Maps whose marks are grown by a share of the picture's shorter side, with a soft edge.

    A mark that ends where the evidence ends cuts its edge and its surroundings off, and at the resolution of a model a
    small one is a few pixels. Each value spreads to a square of `share * min(height, width)` pixels, 1 at least, on
    either side (a dilation), then a Gaussian blur of half as many pixels softens the edge; no value becomes smaller
    than it was.

    Args:
        saliency (`torch.Tensor`): (batch, 1, height, width), in [0, 1].
        share (`float`): in [0, 1); 0 leaves the maps as they are.

    Returns:
        `torch.Tensor`: (batch, 1, height, width), in [0, 1]; a blank map stays blank.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.views import grow_marks
    >>> s = torch.zeros(1, 1, 5, 5)
    >>> s[0, 0, 2, 2] = 1
    >>> [round(value, 2) for value in grow_marks(s, 0.2)[0, 0, 2].tolist()]
    [0.21, 0.89, 1.0, 0.89, 0.21]

    ```
    """
    if share == 0:
        return saliency
    reach = max(1, round(share * min(saliency.shape[-2:])))
    grown = F.max_pool2d(saliency, 2 * reach + 1, stride=1, padding=reach)
    return torch.maximum(_gaussian_blur(grown, reach / 2), saliency).clamp(max=1)


def partners(count: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """
    A random permutation of `range(count)` without a fixed point, (count,): each row gets another row as its partner.

    Raises:
        `ValueError`: fewer than two rows.
    """
    if count < 2:
        raise ValueError(
            f"Shuffling needs another row of the batch, got a batch of {count}. Use a batch size of 2 or more."
        )
    order = torch.randperm(count, device=device, generator=generator)
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return partner


DEGRADATIONS: dict[str, Degradation] = {
    "blur": degrade_blur,
    "noise": degrade_noise,
    "mean": degrade_mean,
    "shuffle": degrade_shuffle,
}


MAP_DEGRADATIONS: dict[str, MapDegradation] = {"background": degrade_background}

MIXING = ("shuffle", "background")
"""Degradations that take other pictures of the batch, and so need two rows."""


def get_degradation(degradation: str | Degradation) -> MapDegradation:
    """
    The degradation of that name, or the callable, as a function of pictures, maps and generator. `ValueError` for an
    unknown name.
    """
    if isinstance(degradation, str) and degradation in MAP_DEGRADATIONS:
        return MAP_DEGRADATIONS[degradation]
    blind = DEGRADATIONS.get(degradation) if isinstance(degradation, str) else degradation
    if blind is None:
        names = ", ".join([*DEGRADATIONS, *MAP_DEGRADATIONS])
        raise ValueError(f"Unknown degradation {degradation!r}. Choose one of {names}, or pass a callable.")
    return lambda pixel_values, saliency, generator: blind(pixel_values, generator)


def make_views(
    pixel_values: Tensor,
    saliency: Tensor,
    degradation: str | Degradation = "shuffle",
    *,
    rows: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """
    The salient-preserving view x+ and the saliency-degrading view x-.

    Every pixel of a view lies between the picture's pixel and the degraded picture's pixel, so views stay in the value
    range of real pictures whenever the degradation does (the named ones do).

    Args:
        pixel_values (`torch.Tensor`): pictures, (batch, channels, height, width), in any normalisation.
        saliency (`torch.Tensor`): maps, (batch, 1, height, width), in [0, 1].
        degradation (`str` or callable, *optional*, defaults to `"shuffle"`):
            `"blur"`, `"noise"`, `"mean"`, `"shuffle"` (other pictures of the batch), `"background"` (other pictures of
            the batch, without what is marked in them; a blank map says that nothing is), or a callable that takes
            `pixel_values` and a generator and returns a tensor of the same shape.
        rows (`torch.Tensor`, *optional*): indices of the rows to make views of; all of them if not given. `"shuffle"`
            and `"background"` draw their other pictures from the whole batch either way.
        generator (`torch.Generator`, *optional*): source of randomness, on the device of `pixel_values`; torch's
            global one if not given.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: x+ and x-, each (rows, channels, height, width).

    Raises:
        `ValueError`: shapes that don't fit, an unknown degradation, or one that returns another shape.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf import make_views
    >>> x, s = torch.ones(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0], [0.5, 0.0]]]])
    >>> positive, negative = make_views(x, s, degradation=lambda x, generator: torch.zeros_like(x))
    >>> positive.flatten().tolist(), negative.flatten().tolist()
    ([1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 0.5, 1.0])

    ```
    """
    if pixel_values.ndim != 4:
        raise ValueError(f"pixel_values must be (batch, channels, height, width), got {tuple(pixel_values.shape)}.")
    expected = (len(pixel_values), 1, *pixel_values.shape[-2:])
    if tuple(saliency.shape) != expected:
        raise ValueError(f"saliency must be {expected} to match pixel_values, got {tuple(saliency.shape)}.")
    degraded = get_degradation(degradation)(pixel_values, saliency, generator)
    if degraded.shape != pixel_values.shape:
        raise ValueError(
            f"The degradation must keep the shape {tuple(pixel_values.shape)}, it returned {tuple(degraded.shape)}."
        )
    saliency = saliency.to(pixel_values.dtype)
    if rows is not None:
        pixel_values, saliency, degraded = pixel_values[rows], saliency[rows], degraded[rows]
    return torch.lerp(degraded, pixel_values, saliency), torch.lerp(pixel_values, degraded, saliency)
