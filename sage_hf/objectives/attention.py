"""Supervised attention: what a transformer attends to in the end should be what humans attended to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..features import find_grid
from ..tasks import at_least_float32
from .base import Encoding, GuidedRows, TermObjective


def attention_over_grid(attention: Tensor, height: int, width: int) -> Tensor:
    """
    How a transformer's last layer attends to the places of a picture, on average over its heads.

    Args:
        attention (`torch.Tensor`): (rows, heads, tokens, tokens); each row of the last dimension sums up to 1.
        height (`int`): of the pictures, in pixels.
        width (`int`): of the pictures, in pixels.

    Returns:
        `torch.Tensor`: (rows, h, w), summing up to 1: the attention of the class token or, in a model without one, of
        all tokens on average; what goes to the class token itself, or to registers, is left out of the sum.

    Raises:
        `ValueError`: the tokens are no grid over the whole picture.
    """
    tokens = attention.shape[-1]
    grid = find_grid(torch.Size([len(attention), tokens, 1]), len(attention), height, width)
    if attention.shape[-2] != tokens or grid is None:
        raise ValueError(
            f"guidance='attention' needs a last layer whose tokens attend to places of the whole picture; this "
            f"model's attention is {tuple(attention.shape)} for pictures of {height}x{width}. Use another guidance."
        )
    heads = at_least_float32(attention).mean(dim=1)
    looking = heads[:, 0] if grid.prefix else heads.mean(dim=1)
    places = looking[:, grid.prefix :]
    return (places / places.sum(dim=1, keepdim=True)).unflatten(1, (grid.height, grid.width))


@dataclass(frozen=True)
class AttentionObjective(TermObjective):
    """
    Supervised attention (Liu, Mao, Sha, Yuille: *Attention Correctness in Neural Image Captioning*, AAAI 2017, section
    4.1), for vision transformers: the cross-entropy of attention over places relative to the human map.

        loss = task + weight * KL(beta || alpha)        alpha: attention, beta: map / sum(map), over places

    The paper supervises the one attention of a captioning network by - sum beta log alpha; that of vision transformers
    is fine-tuned on human fixations in *Cognitive Alignment At No Cost* (arXiv 2604.20027). Where ours differs: alpha
    is the attention of the class token in the last layer, a mean over heads, relative to what it gives to patches; in
    a model without a class token, it is a mean over all tokens. The divergence has the gradient of the cross-entropy,
    and is 0 where the two agree. The map is brought to the grid by averaging areas.

    A patch's token in the last layer has seen other patches: attention to marked places is no proof that what lies
    there decides.

    Needs a transformer over one grid of patches (ViT, DeiT, DINOv2, ...), loaded with `attn_implementation="eager"`:
    other kernels don't tell what they attend to.

    Args:
        guidance_weight (`float`, *optional*, defaults to 1.0): of the term; 0 or more.
        saliency_control, saliency_dilation, problem_type: as for [`~sage_hf.objectives.TermObjective`].

    Raises:
        `ValueError`: an unknown name, or a number out of its range.
    """

    term: ClassVar[str] = "attention"
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})

    def terms(self, anchor: Encoding, *views: Encoding, batch: GuidedRows) -> dict[str, Tensor]:
        """`attention`, (rows,): KL(map || attention) in nats, in [0, inf)."""
        assert batch.attention is not None
        found = attention_over_grid(batch.attention, *batch.saliency.shape[-2:])
        wanted = F.adaptive_avg_pool2d(batch.saliency.to(found.dtype), (found.shape[1], found.shape[2])).squeeze(1)
        total = wanted.sum(dim=(1, 2), keepdim=True)
        wanted = wanted / torch.where(total > 0, total, torch.ones_like(total))
        tiny = torch.finfo(found.dtype).tiny
        return {self.term: F.kl_div(found.clamp(min=tiny).log(), wanted, reduction="none").sum(dim=(1, 2))}
