"""SAGE: a triplet of embeddings and a check that the predictions move as the views say they should."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, at_least_float32
from ..views import Degradation, get_degradation, make_views
from .base import Encoding, GuidedRows, MapObjective, check_choices, check_weights

DISTANCES = ("cosine", "euclidean")
CONSISTENCIES = ("both", "positive", "uniform", "none")
DIVERGENCES = ("jsd", "kl")


def jensen_shannon_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """
    Jensen-Shannon divergence of rows of log-probabilities, (..., outcomes) each, in nats: (...), in [0, ln 2].
    """
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    return 0.5 * (kullback_leibler_divergence(log_p, log_mean) + kullback_leibler_divergence(log_q, log_mean))


def kullback_leibler_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of rows of log-probabilities, (..., outcomes) each, in nats: (...), in [0, inf)."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)


def log_probabilities(logits: Tensor, problem_type: str) -> Tensor:
    """
    What logits (batch, labels) predict, as log-probabilities (batch, distributions, outcomes): one distribution over
    the labels (softmax), or one of two outcomes, present and absent, for each label (sigmoid).
    """
    if problem_type == MULTI_LABEL:
        return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=-1)
    return logits.log_softmax(-1).unsqueeze(1)


def distance(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """Distance of two rows of embeddings, (batch, dimension) each: (batch,); in [0, 2] or [0, inf)."""
    if kind == "cosine":
        return 1 - F.cosine_similarity(a, b, dim=-1)
    return torch.linalg.vector_norm(a - b, dim=-1)


@dataclass(frozen=True)
class SageObjective(MapObjective):
    r"""
    SAGE's terms (Crum, Sweet, Czajka: *Saliency-Guided Contrastive Embeddings*, arXiv 2511.12744).

    With embeddings \(z, z^+, z^-\) of picture, salient-preserving and saliency-degrading view, and
    \(p, p^+, p^-\) the softmax of their logits / T:

        triplet     = max(0, d(z, z+) - d(z, z-) + margin)
        consistency = JSD(p, p+) + (ln 2 - JSD(p, p-))            ("both")
                    = JSD(p, p+)                                  ("positive")
                    = JSD(p, p+) + JSD(uniform, p-)               ("uniform")

    The paper names a triplet loss on embeddings, augmentations that preserve or degrade what is salient, and a check
    of the logits' Jensen-Shannon divergence at a temperature. Its equations and settings were not available to us: the
    formulas above, the uniform form, `divergence="kl"` and every default are our own choice.

    `divergence="kl"` replaces JSD(p, p+) by KL(stop(p) || p+) and JSD(uniform, p-) by KL(uniform || p-): the
    picture's own prediction is the target, and gradients don't vanish when a confident shortcut has made p and p+
    disjoint (JSD is bounded by ln 2, and flat there). ln 2 - JSD(p, p-) stays, because a KL to be enlarged has no
    bound.

    The consistency of other problem types (ours as well; the paper's is for one label):

    - several labels: each label l is a distribution of its own over present and absent, with p_l the sigmoid of its
      logit / T. Independent labels add up, KL(p || p+) = sum_l KL(p_l || p+_l), and the mean over labels is taken, as
      their binary cross-entropy is. What is said of x- holds for labels that are present, as removing evidence can't
      undo an absence: there each label's divergence is multiplied by stop(p_l).
    - regression: an output f is the mean of a normal distribution of deviation T. With equal deviations,
      KL(N(f, T^2) || N(f+, T^2)) = (f - f+)^2 / 2T^2; twice that, (f - f+)^2 / T^2, is on the scale of the squared
      error that f itself is trained by. The mean over outputs is taken; `divergence="kl"` stops f, `"jsd"` does not (a
      normal mixture's divergence has no closed form). A squared difference to be enlarged has no bound, and outputs
      have no uniform distribution: `"both"` and `"uniform"` are refused.

    Args:
        degradation (`str` or callable, *optional*, defaults to `"shuffle"`): see [`make_views`].
        distance (`str`, *optional*, defaults to `"cosine"`): `"cosine"` (1 - similarity) or `"euclidean"`.
        margin (`float`, *optional*, defaults to 0.2): by how much x- must be farther from x than x+ is.
        triplet_weight (`float`, *optional*, defaults to 1.0): 0 leaves the term out.
        consistency (`str`, *optional*, defaults to `"positive"`): `"both"`, `"positive"`, `"uniform"` or `"none"`.
        divergence (`str`, *optional*, defaults to `"kl"`): `"jsd"` or `"kl"`.
        temperature (`float`, *optional*, defaults to 1.0): T above; above 0.
        consistency_weight (`float`, *optional*, defaults to 1.0): 0 leaves the term out.
        saliency_control (`str`, *optional*, defaults to `"none"`):
            `"inverted"` (1 - s), `"shuffled"` (the map of another annotated row), `"center_gaussian"` or
            `"random_blobs"` (of equal area) replaces each map by a wrong one: a control, see [`~sage_hf.controls`]. A
            gain that stays under it did not come from where humans looked.
        saliency_dilation (`float`, *optional*, defaults to 0.0): by which share of the shorter side marks are grown,
            see [`~sage_hf.views.grow_marks`].
        problem_type (`str`, *optional*, defaults to `"single_label_classification"`): what the model predicts, as in
            its config; `"multi_label_classification"` or `"regression"` otherwise.

    Raises:
        `ValueError`: an unknown name, or a number out of its range.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.objectives import Encoding, SageObjective
    >>> x = Encoding(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    >>> opposite = Encoding(torch.tensor([[0.0, 2.0]]), torch.tensor([[-1.0, 0.0]]))
    >>> terms = SageObjective(margin=0.5).terms(x, x, opposite)
    >>> {name: values.item() for name, values in terms.items()}
    {'triplet': 0.0, 'consistency': 0.0, 'satisfied_triplets': 1.0}

    ```
    """

    degradation: str | Degradation = "shuffle"
    distance: str = "cosine"
    margin: float = 0.2
    triplet_weight: float = 1.0
    consistency: str = "positive"
    divergence: str = "kl"
    temperature: float = 1.0
    consistency_weight: float = 1.0
    saliency_control: str = "none"
    saliency_dilation: float = 0.0
    problem_type: str = SINGLE_LABEL

    def __post_init__(self) -> None:
        get_degradation(self.degradation)
        check_choices(self, distance=DISTANCES, consistency=CONSISTENCIES, divergence=DIVERGENCES)
        check_weights(self, "margin", "triplet_weight", "consistency_weight")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be above 0 and finite, got {self.temperature}.")
        if self.problem_type == REGRESSION and self.consistency in ("both", "uniform"):
            raise ValueError(
                f"consistency={self.consistency!r} needs probabilities, and a regression has none. Use 'positive' or "
                "'none'."
            )

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term in the loss; a term without weight is still measured."""
        weights = {"triplet": self.triplet_weight}
        if self.consistency != "none":
            weights["consistency"] = self.consistency_weight
        return weights

    @property
    def names(self) -> tuple[str, ...]:
        """What `terms` returns."""
        return ("triplet", *(["consistency"] if self.consistency != "none" else []), "satisfied_triplets")

    def views(
        self, pixel_values: Tensor, saliency: Tensor, rows: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """
        x+ and x- of the given rows, each (len(rows), channels, height, width); see [`make_views`] for the arguments.
        """
        return make_views(pixel_values, saliency, self.degradation, rows=rows, generator=generator)

    def terms(self, anchor: Encoding, *views: Encoding, batch: GuidedRows | None = None) -> dict[str, Tensor]:
        """
        The terms for each row, unweighted, and whether its triplet is satisfied: d(z, z+) < d(z, z-).

        Args:
            anchor ([`Encoding`]): of the pictures, logits (rows, labels) and embedding (rows, dimension).
            *views ([`Encoding`]): of x+ and of x-, the same shapes.
            batch ([`GuidedRows`], *optional*): not read; the views hold all that the maps say.

        Returns:
            `dict[str, torch.Tensor]`: `triplet`, `consistency` (unless `"none"`), `satisfied_triplets`; each (rows,).
        """
        x, positive, negative = (Encoding(*map(at_least_float32, encoding)) for encoding in (anchor, *views))
        to_positive = distance(x.embedding, positive.embedding, self.distance)
        to_negative = distance(x.embedding, negative.embedding, self.distance)
        terms = {"triplet": F.relu(to_positive - to_negative + self.margin)}
        if self.consistency != "none":
            terms["consistency"] = self._consistency(x.logits, positive.logits, negative.logits)
        terms["satisfied_triplets"] = (to_positive < to_negative).to(to_positive.dtype)
        return terms

    def _consistency(self, x: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        x, positive, negative = (logits / self.temperature for logits in (x, positive, negative))
        if self.problem_type == REGRESSION:
            return ((x.detach() if self.divergence == "kl" else x) - positive).square().mean(dim=1)
        p, p_positive, p_negative = (
            log_probabilities(logits, self.problem_type) for logits in (x, positive, negative)
        )
        # (rows, distributions) from here on
        if self.divergence == "kl":
            loss = kullback_leibler_divergence(p.detach(), p_positive)
        else:
            loss = jensen_shannon_divergence(p, p_positive)
        present = p[..., 0].detach().exp() if self.problem_type == MULTI_LABEL else 1.0
        if self.consistency == "both":
            loss = loss + present * (math.log(2) - jensen_shannon_divergence(p, p_negative))
        elif self.consistency == "uniform":
            uniform = torch.full_like(p_negative, -math.log(p_negative.shape[-1]))
            divergence = kullback_leibler_divergence if self.divergence == "kl" else jensen_shannon_divergence
            loss = loss + present * divergence(uniform, p_negative)
        return loss.mean(dim=1)
