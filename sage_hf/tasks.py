"""What a model predicts: one label, several, or numbers; and the loss of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .problem_types import MULTI_LABEL, PROBLEM_TYPES, REGRESSION, SINGLE_LABEL

__all__ = ["MULTI_LABEL", "PROBLEM_TYPES", "REGRESSION", "SINGLE_LABEL", "Task", "at_least_float32"]


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision loses the small differences that losses are made of; other precisions stay as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


@dataclass(frozen=True)
class Task:
    """
    The loss of a problem type, as transformers' own models compute it, but as a sum over rows.

    - single label: cross-entropy of the softmax. Weighted rows are averaged as `torch.nn.CrossEntropyLoss` does: the
      sum of the rows' losses over the sum of their classes' weights.
    - several labels: the mean over labels of the binary cross-entropy of the sigmoid; `class_weights` are its
      `pos_weight`.
    - regression: the mean over outputs of the squared error.

    Label smoothing by e replaces the target y by (1 - e) y + e / labels with a softmax, as in
    `torch.nn.CrossEntropyLoss`, and by (1 - e) y + e / 2 with sigmoids, whose outcomes are two.

    Args:
        problem_type (`str`): one of `PROBLEM_TYPES`.
        num_labels (`int`): classes, labels or outputs.
        class_weights (`tuple[float, ...]`, *optional*): one for each label, above 0.
        label_smoothing (`float`, *optional*, defaults to 0.0): in [0, 1).

    Raises:
        `ValueError`: settings that don't fit the problem.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.tasks import Task
    >>> task = Task("multi_label_classification", num_labels=2)
    >>> task.total_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor(0.6931)

    ```
    """

    problem_type: str
    num_labels: int
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.problem_type not in PROBLEM_TYPES:
            raise ValueError(f"Unknown problem_type {self.problem_type!r}. Choose one of {', '.join(PROBLEM_TYPES)}.")
        if self.problem_type == SINGLE_LABEL and self.num_labels < 2:
            raise ValueError(
                "Single-label classification needs two classes or more: load the model with num_labels=2."
            )
        if self.problem_type == REGRESSION and (self.class_weights is not None or self.label_smoothing):
            raise ValueError("A regression has no classes: leave class_weights and label_smoothing_factor out.")
        if self.class_weights is not None and len(self.class_weights) != self.num_labels:
            raise ValueError(
                f"class_weights has {len(self.class_weights)} numbers, the model {self.num_labels} labels."
            )

    @property
    def loss_name(self) -> str:
        """What logs call the loss."""
        names = {SINGLE_LABEL: "cross_entropy", MULTI_LABEL: "binary_cross_entropy", REGRESSION: "squared_error"}
        return names[self.problem_type]

    def total_loss(self, logits: Tensor, labels: Tensor, *, smooth: bool = True) -> Tensor:
        """
        The sum of the rows' losses, a scalar; divide it by the sum of `row_weights` for the mean.

        Args:
            logits (`torch.Tensor`): (batch, labels).
            labels (`torch.Tensor`): class indices (batch,); or targets (batch, labels), in [0, 1] for several labels;
                (batch,) as well for a regression with one output.
            smooth (`bool`, *optional*, defaults to `True`): whether to smooth labels; evaluation does not.

        Raises:
            `ValueError`: labels of another problem type, which torch would make something else of.
        """
        loss = self._losses(logits, labels, smooth, "sum")
        return loss if self.problem_type == SINGLE_LABEL else loss / self.num_labels

    def row_losses(self, logits: Tensor, labels: Tensor, *, smooth: bool = True) -> Tensor:
        """The loss of each row, (batch,); their sum is `total_loss`. The arguments are those of `total_loss`."""
        losses = self._losses(logits, labels, smooth, "none")
        return losses if self.problem_type == SINGLE_LABEL else losses.mean(dim=1)

    def _losses(self, logits: Tensor, labels: Tensor, smooth: bool, reduction: str) -> Tensor:
        self._check_labels(logits, labels)
        logits, smoothing = at_least_float32(logits), self.label_smoothing if smooth else 0.0
        weight = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        if self.problem_type == SINGLE_LABEL:
            return F.cross_entropy(logits, labels, weight=weight, label_smoothing=smoothing, reduction=reduction)
        targets = labels.to(logits.dtype).view_as(logits)
        if self.problem_type == REGRESSION:
            return F.mse_loss(logits, targets, reduction=reduction)
        targets = (1 - smoothing) * targets + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction=reduction)

    def row_weights(self, labels: Tensor) -> Tensor:
        """
        What each row counts in a mean, (batch,): its class's weight with a single label, otherwise 1; nothing with the
        label -100, which torch ignores.
        """
        if self.problem_type != SINGLE_LABEL:
            return torch.ones(len(labels), device=labels.device)
        counted = (labels != -100).float()
        if self.class_weights is None:
            return counted
        return counted * torch.tensor(self.class_weights, device=labels.device)[labels.clamp(min=0)]

    def _check_labels(self, logits: Tensor, labels: Tensor) -> None:
        if self.problem_type == SINGLE_LABEL:
            fits = labels.ndim == 1 and not labels.is_floating_point()
        else:
            fits = labels.numel() == logits.numel() and (self.problem_type == REGRESSION or labels.ndim == 2)
        if not fits:
            raise ValueError(
                f"Labels of {tuple(labels.shape)} and {labels.dtype} don't fit problem_type={self.problem_type!r} and "
                f"logits of {tuple(logits.shape)}. Set the model's config.problem_type to one of "
                f"{', '.join(PROBLEM_TYPES)}."
            )
