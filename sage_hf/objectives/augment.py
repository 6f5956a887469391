"""The obvious baseline: the views that keep what humans marked, as more training pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..views import Degradation, get_degradation, make_views
from .base import Encoding, GuidedRows, TermObjective


@dataclass(frozen=True)
class AugmentObjective(TermObjective):
    """
    The task's loss on x+ beside that on x: saliency as mere augmentation.

        loss = task(logits(x), y) + weight * task(logits(x+), y)

    It is the baseline that anything cleverer has to beat, and close to what others call counterfactual or background
    augmentation (Chang et al.: *Towards Robust Classification Model by Counterfactual and Invariant Data Generation*,
    CVPR 2021, whose counterfactual pictures, without the object, we leave out; Xiao et al.: *Noise or Signal*, ICLR
    2021). The views are SAGE's own, see [`make_views`]. Class weights and label smoothing are those of the task.

    Args:
        degradation (`str` or callable, *optional*, defaults to `"shuffle"`): see [`make_views`].
        guidance_weight (`float`, *optional*, defaults to 1.0): of the loss on x+; 0 or more.
        saliency_control, saliency_dilation, problem_type: as for [`~sage_hf.objectives.TermObjective`].

    Raises:
        `ValueError`: an unknown name, or a number out of its range.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.objectives import AugmentObjective
    >>> x, s = torch.tensor([[[[4.0, 8.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    >>> (preserved,) = AugmentObjective(degradation="mean").views(x, s, torch.tensor([0]))
    >>> preserved.flatten().tolist()
    [4.0, 6.0]

    ```
    """

    degradation: str | Degradation = "shuffle"

    term: ClassVar[str] = "augmented"

    def __post_init__(self) -> None:
        get_degradation(self.degradation)
        super().__post_init__()

    def views(
        self, pixel_values: Tensor, saliency: Tensor, rows: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """x+ of the given rows, (len(rows), channels, height, width); see [`make_views`] for the arguments."""
        return make_views(pixel_values, saliency, self.degradation, rows=rows, generator=generator)[:1]

    def terms(self, anchor: Encoding, *views: Encoding, batch: GuidedRows) -> dict[str, Tensor]:
        """`augmented`, (rows,): the task's loss on x+."""
        (preserved,) = views
        return {self.term: batch.row_losses(preserved.logits)}
