"""Right for the Right Reasons: predictions should not change with pixels that humans found irrelevant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..tasks import at_least_float32
from .base import Encoding, GuidedRows, TermObjective
from .sage import log_probabilities


@dataclass(frozen=True)
class GradientObjective(TermObjective):
    """
    RRR (Ross, Hughes, Doshi-Velez: *Right for the Right Reasons: Training Differentiable Models by Constraining their
    Explanations*, IJCAI 2017, equation 1; code: dtak/rrr, MIT).

        loss = task + weight * sum over pixels ((1 - s) * d (sum over classes log p) / dx)^2

    Where ours differs: the paper's mask of irrelevant pixels is binary, 1 - s may be anything in [0, 1]; the paper's
    weight decay is the optimizer's here; both terms are means over rows, where the published code has sums. Gradients
    are by `pixel_values`, that is by normalised pixels: with a deviation of d in the image processor they are d times
    those by pixels in [0, 1], and the published weight of 1,000, for pixels in [0, 255], is one of 0.015 for [0, 1].
    With several labels, log p is summed over both outcomes of each.

    It differentiates twice: a step costs two to three times that of plain training, models need
    `attn_implementation="eager"`, and `torch_compile` can't be used.

    Args:
        guidance_weight (`float`, *optional*, defaults to 1.0): the paper's lambda_1; 0 or more.
        saliency_control, saliency_dilation: as for [`~sage_hf.objectives.TermObjective`].
        problem_type (`str`, *optional*, defaults to `"single_label_classification"`): or
            `"multi_label_classification"`.

    Raises:
        `ValueError`: an unknown name, a number out of its range, or a regression, which has no probabilities.
    """

    term: ClassVar[str] = "input_gradient"
    of_classes: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"input_gradients"})

    def terms(self, anchor: Encoding, *views: Encoding, batch: GuidedRows) -> dict[str, Tensor]:
        """`input_gradient`, (rows,): the squared norm of the gradient over what the map leaves out, in [0, inf)."""
        assert batch.pixel_values is not None
        log_p = log_probabilities(at_least_float32(anchor.logits), self.problem_type)
        gradient = at_least_float32(batch.pixel_values.gradient(log_p.sum()))
        return {self.term: ((1 - batch.saliency) * gradient).square().sum(dim=(1, 2, 3))}
