"""Harmonization: where a prediction's gradient is large should be where humans looked, at several resolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tasks import at_least_float32
from .base import Encoding, GuidedRows, TermObjective, true_logits

LEVELS = 5
"""Resolutions that are compared, each half of the one before."""


def standardized_cut(maps: Tensor) -> Tensor:
    """
    What of each map is above its mean, in deviations.

    Args:
        maps (`torch.Tensor`): (rows, height, width).

    Returns:
        `torch.Tensor`: as large, 0 or more; all 0 of a constant map.
    """
    centred = maps - maps.mean(dim=(1, 2), keepdim=True)
    # The root of 0 has no derivative.
    deviation = centred.square().mean(dim=(1, 2), keepdim=True).clamp_min(1e-20).sqrt()
    return (centred / (deviation + 1e-5)).relu()


def halved(maps: Tensor) -> Tensor:
    """
    Maps (rows, height, width) at half the resolution, rounded up: weighted by binomial coefficients over 5x5 pixels,
    with 0 around the picture.
    """
    coefficients = maps.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    padding: list[int] = []
    for size in (maps.shape[2], maps.shape[1]):
        missing = max(0, 2 * ((size + 1) // 2 - 1) + 5 - size)
        padding += [missing // 2, missing - missing // 2]
    kernel = torch.outer(coefficients, coefficients)[None, None]
    return F.conv2d(F.pad(maps.unsqueeze(1), padding), kernel, stride=2).squeeze(1)


@dataclass(frozen=True)
class HarmonizationObjective(TermObjective):
    """
    The neural harmonizer (Fel, Felipe, Linsley, Serre: *Harmonizing the object recognition strategies of deep neural
    networks with humans*, NeurIPS 2022, equation 1; code: serre-lab/Harmonization, MIT).

        loss = task + weight * mean over 5 resolutions of mean((z(g) - z(s) * max z(g) / max z(s))^2)

    g is the gradient of the true class's logit by the picture, a mean over channels; z standardises and keeps what is
    positive; the scale of the human map follows g's without a gradient.

    Where ours differs: rows without a map don't count, where the published code averages over them as well; its weight
    decay and label smoothing are the optimizer's and the task's here. With several labels, logits of all that are
    present are summed, as that code does with one.

    It differentiates twice, see [`GradientObjective`].

    Args:
        guidance_weight (`float`, *optional*, defaults to 1.0): of the term; the published code has 1. 0 or more.
        saliency_control, saliency_dilation: as for [`~sage_hf.objectives.TermObjective`].
        problem_type (`str`, *optional*, defaults to `"single_label_classification"`): or
            `"multi_label_classification"`.

    Raises:
        `ValueError`: an unknown name, a number out of its range, or a regression, which has no true class.
    """

    term: ClassVar[str] = "harmonization"
    of_classes: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"input_gradients"})

    def terms(self, anchor: Encoding, *views: Encoding, batch: GuidedRows) -> dict[str, Tensor]:
        """`harmonization`, (rows,): the distance to the human map, in [0, inf)."""
        assert batch.pixel_values is not None
        of_class, counted = true_logits(at_least_float32(anchor.logits), batch.labels, self.problem_type)
        gradient = at_least_float32(batch.pixel_values.gradient((of_class * counted).sum())).mean(dim=1)
        found, human = standardized_cut(gradient), standardized_cut(batch.saliency.squeeze(1).to(gradient))
        scale = found.detach().amax(dim=(1, 2), keepdim=True) + 1e-6
        human = human / (human.amax(dim=(1, 2), keepdim=True) + 1e-6) * scale
        distances = []
        for _ in range(LEVELS):
            distances.append((found - human).square().mean(dim=(1, 2)))
            found, human = halved(found), halved(human)
        return {self.term: torch.stack(distances).mean(dim=0)}
