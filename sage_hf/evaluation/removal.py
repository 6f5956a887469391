"""What becomes of a prediction when pixels are removed: deletion, insertion, and the marked region alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..tasks import at_least_float32
from ..views import degrade_blur, degrade_mean, make_views

STEPS = 16
"""Shares of the picture at which the curves of deletion and insertion are measured, beside none at all."""

Predict = Callable[[Tensor], Tensor]
"""Takes `pixel_values` (rows, _, height, width), gives probabilities (rows, classes)."""


def deletion_insertion(
    predict: Predict, pixel_values: Tensor, maps: Tensor, targets: Tensor, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """
    Deletion and insertion of Petsiuk et al. 2018 (RISE, section 4.3): areas under the probability of a class.

    Deletion puts the picture's mean colour in the place of its pixels, those with the largest value in the map first;
    a map that found what the prediction rests on gives a small area. Insertion starts from the blurred picture and
    puts pixels back in that order; a good map gives a large area. Both areas are by the trapezoidal rule over the
    share of pixels. Pixels of equal value, of which a binary map has many, are taken in an order that is drawn once,
    the same for every picture.

    Args:
        predict (`Callable`): the model, in evaluation mode.
        pixel_values (`torch.Tensor`): (rows, _, height, width), normalised.
        maps (`torch.Tensor`): (rows, height, width), on any scale.
        targets (`torch.Tensor`): the class of each row, (rows,).
        steps (`int`, *optional*, defaults to 16): shares of the picture to measure at, beside 0.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: deletion and insertion of each row, (rows,), in [0, 1].

    Raises:
        `ValueError`: less than one step, or maps that don't fit the pictures.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.evaluation.removal import deletion_insertion
    >>> picture = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    >>> bright = lambda x: torch.stack([x[:, 0, 0, 0], 1 - x[:, 0, 0, 0]], dim=1)  # looks at one pixel alone
    >>> deletion, _ = deletion_insertion(bright, picture, picture[:, 0], torch.tensor([0]), steps=4)
    >>> deletion  # (1 + 0.25) / 2 / 4 until the pixel is its mean, 0.25 from there on
    tensor([0.3438])

    ```
    """
    rows, _, height, width = pixel_values.shape
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected 1 or more.")
    if tuple(maps.shape) != (rows, height, width):
        raise ValueError(f"maps must be {(rows, height, width)} to match pixel_values, got {tuple(maps.shape)}.")
    ties = torch.randperm(height * width, generator=torch.Generator().manual_seed(0)).to(maps.device)
    by_value = maps.flatten(1)[:, ties].argsort(dim=1, descending=True, stable=True)
    # The place of each pixel in its picture's order, the most important one first.
    place = torch.empty_like(by_value).scatter_(
        1, ties[by_value], torch.arange(height * width, device=maps.device).expand(rows, -1)
    )
    place = place.view(rows, 1, height, width)
    curves: tuple[list[Tensor], list[Tensor]] = ([], [])
    mean, blurred = degrade_mean(pixel_values), degrade_blur(pixel_values)
    for step in range(steps + 1):
        chosen = place < round(step * height * width / steps)
        for curve, pictures in zip(
            curves,
            (torch.where(chosen, mean, pixel_values), torch.where(chosen, pixel_values, blurred)),
            strict=True,
        ):
            curve.append(at_least_float32(predict(pictures)).gather(1, targets.unsqueeze(1)).squeeze(1))
    deletion, insertion = (torch.trapezoid(torch.stack(curve), dx=1 / steps, dim=0) for curve in curves)
    return deletion.to(pixel_values.dtype), insertion.to(pixel_values.dtype)


def without_marked_region(
    predict: Predict, pixel_values: Tensor, saliency: Tensor, targets: Tensor
) -> dict[str, Tensor]:
    """
    What a prediction loses without the marked region, and with nothing else (DeYoung et al. 2020, ERASER, section 4).

    The picture's mean colour takes the place of what is removed, as much of it as the map says.

    Args:
        predict (`Callable`): the model, in evaluation mode.
        pixel_values (`torch.Tensor`): (rows, _, height, width), normalised.
        saliency (`torch.Tensor`): human maps, (rows, 1, height, width), in [0, 1].
        targets (`torch.Tensor`): the class of each row, (rows,).

    Returns:
        `dict[str, torch.Tensor]`, (rows,) each:
        - `comprehensiveness`: the class's probability minus that without the marked region, in [-1, 1]; large if the
          prediction rests on what is marked.
        - `sufficiency`: the class's probability minus that of the marked region alone, in [-1, 1]; 0 or less if what
          is marked is enough.
        - `predicted_without_marked`, `predicted_marked_only`: the class that is predicted then.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.evaluation.removal import without_marked_region
    >>> picture = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    >>> bright = lambda x: torch.stack([x[:, 0, 0, 0], 1 - x[:, 0, 0, 0]], dim=1)
    >>> found = without_marked_region(bright, picture, picture, torch.tensor([0]))
    >>> found["comprehensiveness"], found["sufficiency"]  # 1 - 0.25, and nothing
    (tensor([0.7500]), tensor([0.]))

    ```
    """
    kept, removed = make_views(pixel_values, saliency, "mean")
    whole, marked, rest = predict(pixel_values), predict(kept), predict(removed)
    chosen = targets.unsqueeze(1)
    return {
        "comprehensiveness": (whole - rest).gather(1, chosen).squeeze(1),
        "sufficiency": (whole - marked).gather(1, chosen).squeeze(1),
        "predicted_without_marked": rest.argmax(dim=1),
        "predicted_marked_only": marked.argmax(dim=1),
    }
