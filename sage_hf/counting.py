"""How many rows an optimizer step has: what sums of losses are divided by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .data.unusable import REFUSED
from .tasks import Task


class StepCounts(NamedTuple):
    """Counts of one optimizer step, over its accumulation steps and all processes."""

    rows: Tensor | float
    weight: Tensor | float
    """Sum of the rows' weights, see [`Task.row_weights`]; the number of rows if classes are not weighted."""
    items: Tensor | float
    """Labels, which are as many as rows if each row has one."""
    annotated: Tensor | float
    """Rows with a map."""
    guided: Tensor | float
    """Annotated rows of batches that are large enough to be guided: those that are, or that one in k is drawn of."""
    refused: Tensor | float
    """Rows that were left out because they can't be used."""


def know_unmarked(batches: list[dict[str, Any]], classes: Tensor) -> None:
    """
    Count rows of classes with nothing to mark among those whose marks are known.

    Args:
        batches (`list[dict]`): as the collator makes them; `saliency_known` changes.
        classes (`torch.Tensor`): indices of the classes; without any, labels may be of any kind.
    """
    if not len(classes):
        return
    for batch in batches:
        if "saliency_known" in batch and "labels" in batch:
            known, labels = batch["saliency_known"], batch["labels"]
            batch["saliency_known"] = known | torch.isin(labels, classes.to(labels.device))


def count_rows(
    batches: list[dict[str, Any]],
    task: Task,
    device: torch.device,
    guidable: Callable[[Tensor, Tensor | None], Tensor] | None = None,
) -> Tensor:
    """
    [`StepCounts`] of the batches of this process, as a tensor (6,): no count leaves the device.

    Args:
        batches (`list[dict]`): with `labels` and, if maps are read, `saliency_mask`; and what was left out.
        task ([`Task`]): weighs the rows.
        device (`torch.device`): of the counts.
        guidable (`Callable`, *optional*): [`~sage_hf.guidance.Guide.guidable`]; if not given, none are guided.
    """
    counts = torch.zeros(len(StepCounts._fields), device=device)
    for batch in batches:
        counts[5] += len(batch.get(REFUSED, ()))
        if "labels" not in batch:
            continue
        counts[0] += len(batch["labels"])
        counts[1] += task.row_weights(batch["labels"]).sum()
        counts[2] += batch["labels"].numel()
        if "saliency_mask" in batch:
            annotated = batch["saliency_mask"].sum()
            counts[3] += annotated
            if guidable is not None:
                counts[4] += annotated * guidable(batch["saliency_mask"], batch.get("saliency_known"))
    return counts
