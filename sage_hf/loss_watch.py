"""Stops a training whose loss is no number any more, and says of which rows and terms; without waiting each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.distributed.tensor import DTensor

from .errors import LossError

CHECK_EVERY = 32
"""Optimizer steps after which losses are looked at, at the latest: reading them waits for the device."""

NEVER = 2**62
"""In the place of a step: none."""

SHOWN_ROWS = 64
"""Rows of a batch that an error names at most."""


@dataclass
class _Batch:
    step: int
    loss: Tensor
    terms: dict[str, Tensor]
    rows: Tensor | None
    readable: Tensor
    """Which rows have finite logits, (rows,)."""


@dataclass
class LossWatch:
    """
    Keeps what the device computed of the last steps, and reads it when that costs nothing: at a log, an evaluation, a
    checkpoint, and every [`CHECK_EVERY`] steps. So a checkpoint is never made of weights that are no numbers.

    Args:
        accelerator (`Accelerator`): of the processes, all of which stop with the same message.
        name_row (`Callable`): names a row, given its place in the dataset.

    Example:

    ```python
    >>> import torch
    >>> from accelerate import Accelerator
    >>> from sage_hf.loss_watch import LossWatch
    >>> watch = LossWatch(Accelerator(cpu=True), name_row=lambda place: f"row {place[0]}")
    >>> terms, rows, logits = {"triplet": torch.tensor([0.1])}, torch.tensor([[7]]), torch.ones(1, 2)
    >>> watch.add(3, torch.tensor(float("nan")), terms, rows, logits)
    >>> watch.check()
    Traceback (most recent call last):
    ...
    sage_hf.errors.LossError: step 3: the loss is nan. Finite: triplet. Rows of the batch: row 7...

    ```
    """

    accelerator: Accelerator
    name_row: Callable[[list[int]], str]
    _batches: list[_Batch] = field(default_factory=list)
    _gradients: list[tuple[int, Tensor]] = field(default_factory=list)

    def add(self, step: int, loss: Tensor, terms: dict[str, Tensor], rows: Tensor | None, logits: Tensor) -> None:
        """
        Remember a batch.

        Args:
            step (`int`): the optimizer step that it belongs to, counted from 1.
            loss (`torch.Tensor`): of the batch, a scalar.
            terms (`dict[str, torch.Tensor]`): what it is made of, by name; of any shape.
            rows (`torch.Tensor`, *optional*): places of the rows in the dataset, (rows, numbers a place).
            logits (`torch.Tensor`): (rows, labels).
        """
        readable = torch.isfinite(logits.detach()).flatten(1).all(dim=1)
        kept = {name: value.detach() for name, value in terms.items()}
        self._batches.append(_Batch(step, loss.detach(), kept, rows, readable))

    def add_gradient(self, step: int, norm: Tensor) -> None:
        """Remember the norm of an optimizer step's gradient."""
        self._gradients.append((step, norm.detach()))

    def clear(self) -> None:
        """Forget what was remembered."""
        self._batches, self._gradients = [], []

    def check(self) -> None:
        """
        Read what was remembered since the last check. To be called on every process.

        Raises:
            [`LossError`]: a loss or a gradient was not finite; the message names the step, the terms and the rows.
        """
        batches, gradients = self._batches, self._gradients
        self.clear()
        device = self.accelerator.device
        # Twice the step, and one more for a gradient: a loss that is no number comes before its own gradient.
        first = torch.full((), NEVER, dtype=torch.int64, device=device)
        for place, values in (
            ([2 * batch.step for batch in batches], [batch.loss for batch in batches]),
            ([2 * step + 1 for step, _ in gradients], [norm for _, norm in gradients]),
        ):
            if values:
                wrong = ~torch.isfinite(
                    torch.stack([_whole(value).float().reshape(()) for value in values]).to(device)
                )
                places = torch.tensor(place, dtype=torch.int64, device=device)
                first = torch.minimum(first, torch.where(wrong, places, NEVER).min())
        found_at = int(self.accelerator.gather(first.reshape(1)).min().item())
        if found_at == NEVER:
            return
        step, of_gradient = divmod(found_at, 2)
        found = [batch for batch in batches if batch.step == step]
        if not of_gradient:
            found = [batch for batch in found if not torch.isfinite(batch.loss).item()]
        said = gather_object([self._describe(found, of_gradient)]) if self.accelerator.num_processes > 1 else None
        lines = [line for line in said or [self._describe(found, of_gradient)] if line]
        raise LossError(
            f"step {step}: {' '.join(lines)}\nNothing was saved since. Look at these rows; if they are sound, lower "
            "learning_rate or the weights of the terms, or train with bf16 or float32 in place of fp16, and go on "
            "from the last checkpoint."
        )

    def _describe(self, batches: list[_Batch], of_gradient: int) -> str:
        if not batches:
            return ""
        if of_gradient:
            text = "the loss is finite, its gradient is not."
        else:
            text = f"the loss is {batches[0].loss.item():.4g}."
            totals = {name: value.float().sum().item() for name, value in batches[0].terms.items()}
            wrong = {name: total for name, total in totals.items() if not math.isfinite(total)}
            text += f" Not finite: {', '.join(f'{name} ({total})' for name, total in wrong.items())}." * bool(wrong)
            text += f" Finite: {', '.join(name for name in totals if name not in wrong)}." * (len(wrong) < len(totals))
        known = [batch for batch in batches if batch.rows is not None]
        if not known:
            return (
                text + " Which rows it was isn't known: a dataset that has pixel_values already doesn't number them."
            )
        places = [place for batch in known if batch.rows is not None for place in batch.rows.tolist()]
        readable = [one for batch in known for one in batch.readable.tolist()]
        text += f" Rows of the batch: {self._names(places)}."
        strange = [place for place, well in zip(places, readable, strict=True) if not well]
        if strange and len(strange) < len(places):
            text += f" Without finite logits: {self._names(strange)}."
        return text

    def _names(self, places: list[list[int]]) -> str:
        more = len(places) - SHOWN_ROWS
        return ", ".join(map(self.name_row, places[:SHOWN_ROWS])) + (f" and {more} more" if more > 0 else "")


def _whole(value: Tensor) -> Tensor:
    """A number that is spread over processes, as the norm of a gradient is with FSDP, in one piece."""
    return value.full_tensor() if isinstance(value, DTensor) else value
