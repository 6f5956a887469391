"""What the Trainer asks of an objective: which views to encode, and what to make of their encodings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from ..controls import SALIENCY_CONTROLS, control_saliency
from ..tasks import MULTI_LABEL, PROBLEM_TYPES, REGRESSION, SINGLE_LABEL
from ..views import MIXING, grow_marks

NEEDS = frozenset({"input_gradients", "features", "attention"})
"""What an objective can ask for beside logits and embeddings, see [`Objective.needs`]."""


class Encoding(NamedTuple):
    """What a model makes of a batch of pictures."""

    logits: Tensor
    """(batch, labels)."""
    embedding: Tensor
    """What enters the classification head, (batch, dimension)."""

    def select(self, rows: Tensor) -> Encoding:
        """The encoding of some rows."""
        return Encoding(self.logits[rows], self.embedding[rows])


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Source:
    """
    A tensor that the logits were computed from, and can be differentiated by.

    Args:
        tensor (`torch.Tensor`): as it stands in the graph.
        arrange (`Callable`, *optional*): selects rows of such a tensor, and lays them out.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.objectives.base import Source
    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> Source(x).gradient((x**2).sum()).tolist()
    [2.0, 4.0]

    ```
    """

    tensor: Tensor
    arrange: Callable[[Tensor], Tensor] = _as_it_is

    @property
    def values(self) -> Tensor:
        """The values of the rows."""
        return self.arrange(self.tensor)

    def gradient(self, output: Tensor) -> Tensor:
        """The gradient of a scalar by the values, in their shape; part of the graph, to be differentiated again."""
        with torch.autocast(self.tensor.device.type, enabled=False):
            (gradient,) = torch.autograd.grad(output, self.tensor, create_graph=True)
        return self.arrange(gradient)


@dataclass(frozen=True)
class GuidedRows:
    """
    The rows of a batch that have a map, as an objective may read them.

    Args:
        labels (`torch.Tensor`): (rows,) or (rows, labels), see [`~sage_hf.tasks.Task`].
        saliency (`torch.Tensor`): their maps as [`Objective.maps`] made them, (rows, 1, height, width), in [0, 1].
        row_losses (`Callable`): the task's loss of each row, (rows,), given logits (rows, labels).
        pixel_values ([`Source`], *optional*): their pictures, (rows, channels, height, width), if the objective needs
            `"input_gradients"`.
        features ([`Source`], *optional*): the last features with a place in the picture, (rows, channels, h, w), if it
            needs `"features"`; see [`~sage_hf.features.last_features`].
        attention (`torch.Tensor`, *optional*): of the last layer, (rows, heads, tokens, tokens), in [0, 1], if it
            needs `"attention"`.
    """

    labels: Tensor
    saliency: Tensor
    row_losses: Callable[[Tensor], Tensor]
    pixel_values: Source | None = None
    features: Source | None = None
    attention: Tensor | None = None


def describe(objective: Objective) -> dict[str, Any]:
    """The settings of an objective, ready for JSON; a callable by its name. Empty if it is no dataclass."""
    if not is_dataclass(objective):
        return {}
    values = {setting.name: getattr(objective, setting.name) for setting in fields(objective)}
    return {name: _name(value) if callable(value) else value for name, value in values.items()}


def _name(value: Any) -> str:
    """Where a function is defined; of any other callable, such as a module, its type."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


class Objective(Protocol):
    """
    Terms beside the classification loss, for the rows of a batch that have a saliency map.

    An objective holds settings and no parameters; it is given tensors and returns tensors, and never sees the model.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """
    What `terms` reads of the pictures beside logits and embeddings: `"input_gradients"` (pixels that logits can be
    differentiated by), `"features"` (the last ones with a place in the picture) or `"attention"` (of the last layer).
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of everything that `terms` returns."""
        ...

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term that takes part in the loss."""
        ...

    @property
    def fewest_rows(self) -> tuple[int, int]:
        """How many rows, and how many annotated rows, a batch needs to be guided."""
        return 1, 1

    @property
    def shows_unmarked(self) -> bool:
        """
        Whether views show what is unmarked of other rows, in the belief that it holds no evidence. `views` is then
        given those rows alone that have a map, even a blank one: of the others nobody has said where theirs is.
        """
        return False

    def maps(self, saliency: Tensor, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The maps that guide, (batch, 1, height, width): those of the data, or others as a control."""
        return saliency

    def views(
        self, pixel_values: Tensor, saliency: Tensor, rows: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """
        Pictures to encode beside the batch itself, each (len(rows), channels, height, width), given what `maps`
        returned. With `substitution`, the first stands in place of the picture in rows that are not guided.
        """
        return ()

    def terms(self, anchor: Encoding, *views: Encoding, batch: GuidedRows) -> dict[str, Tensor]:
        """Named terms and measurements, each (rows,), given the encodings of the annotated rows and of their views."""
        ...


class MapObjective(Objective, Protocol):
    """An objective whose maps may be replaced by those of a control, and grown."""

    saliency_control: str
    saliency_dilation: float = 0.0
    problem_type: str

    @property
    def fewest_rows(self) -> tuple[int, int]:
        """
        Mixing needs a second row: of the batch for the degradation, of the annotated ones for the control "shuffled".
        """
        degradation = getattr(self, "degradation", None)
        return (2 if degradation in MIXING else 1, 2 if self.saliency_control == "shuffled" else 1)

    @property
    def shows_unmarked(self) -> bool:
        """As the degradation `"background"` does."""
        return getattr(self, "degradation", None) == "background"

    def maps(self, saliency: Tensor, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The maps of the batch with their marks grown, or those of the control in place of them."""
        # A control is of the maps that guide: grown after it, an inverted small mark is gone, and areas are not equal.
        return control_saliency(grow_marks(saliency, self.saliency_dilation), rows, self.saliency_control, generator)


@dataclass(frozen=True)
class TermObjective(MapObjective):
    """
    An objective of one weighted term: what all have in common that SAGE is compared with.

    Args:
        guidance_weight (`float`, *optional*, defaults to 1.0): of the term; 0 or more.
        saliency_control (`str`, *optional*, defaults to `"none"`): wrong maps as a control, see
            [`~sage_hf.controls`].
        saliency_dilation (`float`, *optional*, defaults to 0.0): by which share of the shorter side marks are grown,
            see [`~sage_hf.views.grow_marks`].
        problem_type (`str`, *optional*, defaults to `"single_label_classification"`): what the model predicts.

    Raises:
        `ValueError`: an unknown name, a number out of its range, or a regression where classes are needed.
    """

    guidance_weight: float = 1.0
    saliency_control: str = "none"
    saliency_dilation: float = 0.0
    problem_type: str = SINGLE_LABEL

    term: ClassVar[str]
    """The name of the term."""
    of_classes: ClassVar[bool] = False
    """Whether the term is made of classes or their probabilities."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_weights(self, "guidance_weight")
        if self.of_classes and self.problem_type == REGRESSION:
            raise ValueError(
                f"{type(self).__name__} needs classes, and a regression has none. Use guidance='sage' or 'augment'."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """What `terms` returns."""
        return (self.term,)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of the term."""
        return {self.term: self.guidance_weight}


def check_choices(objective: Any, **choices: tuple[str, ...]) -> None:
    """`ValueError` for a setting of an objective that is none of its choices."""
    common = {"saliency_control": SALIENCY_CONTROLS, "problem_type": PROBLEM_TYPES}
    for name, allowed in (common | choices).items():
        if (value := getattr(objective, name)) not in allowed:
            raise ValueError(f"Unknown {name} {value!r}. Choose one of {', '.join(allowed)}.")
    if not 0 <= objective.saliency_dilation < 1:
        raise ValueError(f"saliency_dilation must be at least 0 and below 1, got {objective.saliency_dilation}.")


def check_weights(objective: Any, *names: str) -> None:
    """`ValueError` for a weight that is negative, infinite or no number."""
    for name in names:
        if not 0 <= (value := getattr(objective, name)) < math.inf:
            raise ValueError(f"{name} must be 0 or more and finite, got {value}.")


def true_logits(logits: Tensor, labels: Tensor, problem_type: str) -> tuple[Tensor, Tensor]:
    """
    The logit of each row's class, or the sum of those of all labels that are present, (rows,); and which rows have
    any, (rows,), booleans: with one label a picture, torch ignores -100.
    """
    if problem_type == MULTI_LABEL:
        return (logits * labels).sum(dim=1), labels.sum(dim=1) > 0
    return logits.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1), labels >= 0
