"""CYBORG: the class activation map of the true class should look like the human's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tasks import at_least_float32
from .base import Encoding, GuidedRows, TermObjective, true_logits

TINY = 1e-6
"""Maps whose values differ by less than this share of their size are constant."""


def min_max(values: Tensor) -> tuple[Tensor, Tensor]:
    """
    Each map scaled to [0, 1], and whether it varies at all; a constant one comes out as zeros, without a gradient.

    Args:
        values (`torch.Tensor`): (rows, height, width).

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: (rows, height, width) and (rows,), booleans.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.objectives.cyborg import min_max
    >>> scaled, varies = min_max(torch.tensor([[[1.0, 2.0, 5.0]], [[3.0, 3.0, 3.0]]]))
    >>> scaled.tolist(), varies.tolist()
    ([[[0.0, 0.25, 1.0]], [[0.0, 0.0, 0.0]]], [True, False])

    ```
    """
    low, high = values.amin(dim=(1, 2), keepdim=True), values.amax(dim=(1, 2), keepdim=True)
    spread = high - low
    varies = spread > TINY * torch.maximum(low.abs(), high.abs())
    scaled = (values - low) / torch.where(varies, spread, torch.ones_like(spread))
    return torch.where(varies, scaled, torch.zeros_like(scaled)), varies.flatten()


@dataclass(frozen=True)
class CyborgObjective(TermObjective):
    r"""
    CYBORG (Boyd, Tinsley, Bowyer, Czajka: *CYBORG: Blending Human Saliency Into the Loss Improves Deep Learning-Based
    Synthetic Face Detection*, WACV 2023): the squared difference of model's and human's map, a mean over places.

        loss = task + weight * mean((min_max(cam) - min_max(map at the cam's size))^2)

    Where ours differs:

    - the paper's \(\alpha\) CE + (1 - \(\alpha\)) MSE is \(\alpha\) times this with a weight of
      (1 - \(\alpha\)) / \(\alpha\): its \(\alpha\) = 0.5 is our weight of 1. So rows without a map keep their
      full loss;
    - the paper's CAM is that of networks with global average pooling and a linear head. Ours is Grad-CAM (Selvaraju
      et al. 2017) without its rectifier, `sum_c mean(d logit / d A_c) A_c` with A the last features that still have a
      place in the picture. For the paper's networks it is the same up to a constant, which min-max scaling removes,
      and it exists for every architecture that has such features, token models included. It is differentiated in full,
      the weights of the features as well;
    - the class is the true one (the published code takes the predicted one). With several labels, it is the sum of the
      logits of those that are present, and rows without any have no term;
    - the map is brought to the CAM's size by averaging areas. A map that is then constant says nothing of where to
      look, and has no term; a constant CAM counts as zero everywhere. The published code divides by zero there.

    Args:
        guidance_weight (`float`, *optional*, defaults to 1.0): of the term; 0 or more.
        saliency_control, saliency_dilation: as for [`~sage_hf.objectives.TermObjective`].
        problem_type (`str`, *optional*, defaults to `"single_label_classification"`): or
            `"multi_label_classification"`.

    Raises:
        `ValueError`: an unknown name, a number out of its range, or a regression, which has no classes.
    """

    term: ClassVar[str] = "cam"
    of_classes: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def terms(self, anchor: Encoding, *views: Encoding, batch: GuidedRows) -> dict[str, Tensor]:
        """`cam`, (rows,): the mean squared difference of the two maps, in [0, 1]."""
        assert batch.features is not None
        of_class, counted = true_logits(at_least_float32(anchor.logits), batch.labels, self.problem_type)
        activations = at_least_float32(batch.features.values)
        importance = at_least_float32(batch.features.gradient(of_class.sum())).mean(dim=(2, 3), keepdim=True)
        found, _ = min_max((importance * activations).sum(dim=1))
        size = (found.shape[1], found.shape[2])
        wanted, says_where = min_max(F.adaptive_avg_pool2d(batch.saliency.to(found.dtype), size).squeeze(1))
        difference = (found - wanted).square().mean(dim=(1, 2))
        return {self.term: difference * (says_where & counted)}
