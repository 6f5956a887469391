"""Controls: wrong maps in place of those that humans drew. A gain that stays under them did not come from the maps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .views import partners

BLOB_GRID = 5
"""Random blobs are as coarse as a grid of this many places a side."""


def inverted(saliency: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """What was marked is left out, and what was left out is marked: 1 - s."""
    return 1 - saliency


def shuffled(saliency: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The map of another picture, each used once and never for its own. Needs two maps or more."""
    return saliency[partners(len(saliency), saliency.device, generator)]


def center_gaussian(saliency: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """
    A Gaussian in the middle of the picture, with a maximum of 1 and the map's own area (the sum of its values), as far
    as whole pixels allow.

    Its deviations are the same share of height and width. It is what a model of the bias of human gaze towards the
    centre knows of a picture: nothing but where its middle is.
    """
    height, width = saliency.shape[-2:]
    precision = torch.float32 if saliency.device.type == "mps" else torch.float64  # which MPS does not have
    area = saliency.to(precision).mean(dim=(1, 2, 3))
    rows, columns = (
        (torch.arange(size, device=saliency.device, dtype=precision) - (size - 1) / 2) / size
        for size in (height, width)
    )
    # The area grows with the deviation: halve the interval that it lies in, on a logarithmic scale.
    low, high = (torch.full_like(area, math.log(end)) for end in (1e-3, 1e3))
    for _ in range(60):
        middle = (low + high) / 2
        vertical, horizontal = _bell(rows, middle.exp()), _bell(columns, middle.exp())
        too_small = vertical.mean(dim=1) * horizontal.mean(dim=1) < area
        low, high = torch.where(too_small, middle, low), torch.where(too_small, high, middle)
    return (vertical.unsqueeze(2) * horizontal.unsqueeze(1)).unsqueeze(1).to(saliency.dtype)


def _bell(places: Tensor, deviation: Tensor) -> Tensor:
    """A Gaussian for each deviation, 1 at the places nearest to the middle."""
    squares = places.square()
    return torch.exp(-0.5 * (squares - squares.min()) / deviation.square().unsqueeze(1))


def random_blobs(saliency: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """
    Smooth blobs at random places, with the very values of the map: its area and its softness are the same.

    A coarse grid of noise is scaled up; the pixel where it is highest gets the map's highest value, and so on.
    """
    rows, _, height, width = saliency.shape
    noise = torch.randn(rows, 1, BLOB_GRID, BLOB_GRID, generator=generator, device=saliency.device)
    field = F.interpolate(noise, (height, width), mode="bicubic", align_corners=True).flatten(1)
    values = saliency.flatten(1).sort(dim=1).values
    return torch.empty_like(values).scatter_(1, field.argsort(dim=1), values).view_as(saliency)


CONTROLS: dict[str, Callable[[Tensor, torch.Generator | None], Tensor]] = {
    "inverted": inverted,
    "shuffled": shuffled,
    "center_gaussian": center_gaussian,
    "random_blobs": random_blobs,
}
"""Each takes maps (rows, 1, height, width) in [0, 1] and a generator (or `None`), and gives as many maps."""

SALIENCY_CONTROLS = ("none", *CONTROLS)


def control_saliency(saliency: Tensor, rows: Tensor, control: str, generator: torch.Generator | None = None) -> Tensor:
    """
    The maps of a batch, those of some rows replaced as a control says.

    Args:
        saliency (`torch.Tensor`): maps of the batch, (batch, 1, height, width), in [0, 1].
        rows (`torch.Tensor`): indices of the rows that have a map, (rows,).
        control (`str`): `"none"` or one of `CONTROLS`.
        generator (`torch.Generator`, *optional*): source of randomness, on the device of the maps.

    Returns:
        `torch.Tensor`: (batch, 1, height, width).

    Raises:
        `ValueError`: an unknown control, or `"shuffled"` with a single map.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.controls import control_saliency
    >>> saliency = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]]])
    >>> control_saliency(saliency, torch.tensor([0]), "inverted").flatten().tolist()
    [0.0, 1.0, 0.0, 0.0]

    ```
    """
    if control == "none":
        return saliency
    if control not in CONTROLS:
        raise ValueError(f"Unknown saliency_control {control!r}. Choose one of {', '.join(SALIENCY_CONTROLS)}.")
    return saliency.index_copy(0, rows, CONTROLS[control](saliency[rows], generator))
