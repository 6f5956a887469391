"""Encodes batches as an objective asks for, and asks it for its terms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .counting import guided_of
from .forwarding import Encoder
from .objectives import GuidedRows, Objective, Source
from .tasks import Task
from .training_args import SageTrainingArguments


@dataclass
class Guide:
    """
    Guides the batches of one process by an objective.

    Args:
        objective ([`Objective`]): what guides.
        encoder ([`Encoder`]): encodes pictures and views.
        task ([`~sage_hf.tasks.Task`]): what the model is trained for.
        args ([`SageTrainingArguments`]): `guidance_interval`, `guidance_one_in`, `substitution`, and `seed` and
            `process_index`, which the randomness of views and controls follows from.
    """

    objective: Objective
    encoder: Encoder
    task: Task
    args: SageTrainingArguments
    batches: int = 0
    """Guided since the last optimizer step."""

    @property
    def substitution(self) -> float:
        """Probability that a row whose views are not encoded shows x+ in place of x."""
        return self.args.substitution or 0.0

    @property
    def shows_unmarked(self) -> bool:
        """As the objective says; one that is no [`Objective`] by inheritance may not know of it."""
        return bool(getattr(self.objective, "shows_unmarked", False))

    def __call__(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        labels: Tensor,
        saliency: Tensor,
        mask: Tensor,
        step: int,
        known: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Logits of a batch, (batch, labels), and the objective's terms for those of its annotated rows that are guided,
        (rows,) each; no terms at a step, or of a batch, that is not guided.

        Args:
            model (`torch.nn.Module`): the wrapped model.
            inputs (`dict`): the model's inputs, `pixel_values` among them.
            labels (`torch.Tensor`): (batch,) or (batch, labels).
            saliency (`torch.Tensor`): maps, (batch, 1, height, width).
            mask (`torch.Tensor`): which rows have one, (batch,), booleans.
            step (`int`): optimizer steps done so far.
            known (`torch.Tensor`, *optional*): which rows have a map, even a blank one, (batch,), booleans; all if not
                given.
        """
        compared = step % self.args.guidance_interval == 0
        annotated = mask.nonzero().squeeze(1)
        fewest, fewest_annotated = self.objective.fewest_rows
        pixel_values = inputs["pixel_values"]
        # Somebody else's evidence would stand in the views of what nobody has looked at.
        shown = torch.arange(len(pixel_values), device=pixel_values.device)
        if known is not None and self.shows_unmarked:
            shown = known.nonzero().squeeze(1)
        if len(shown) < fewest or len(annotated) < fewest_annotated or not (compared or self.substitution):
            return self.encoder.logits(model, inputs), {}
        generator = self._generator(step, pixel_values.device)
        saliency = self.objective.maps(saliency, annotated, generator)
        rows = self._some(annotated, generator) if compared else annotated[:0]
        # Of the pictures as they are, and before any of them is replaced.
        views = self._views(pixel_values, saliency, rows, shown, generator) if compared else ()
        if self.substitution:
            others = annotated[~torch.isin(annotated, rows)]
            pixel_values = self._substitute(pixel_values, saliency, others, shown, generator)
            inputs = inputs | {"pixel_values": pixel_values}
        if not compared:
            return self.encoder.logits(model, inputs), {}
        pictures = None
        if "input_gradients" in self.objective.needs:
            # The annotated rows alone, so that no gradient is computed of others.
            guided = pixel_values[rows].detach().requires_grad_()
            inputs = inputs | {"pixel_values": pixel_values.index_copy(0, rows, guided)}
            pictures = Source(guided)
        (anchor, *encoded), inside = self.encoder.encode_inside(model, inputs, views, rows, self.objective.needs)
        batch = GuidedRows(
            labels=labels[rows],
            saliency=saliency[rows],
            row_losses=partial(self.task.row_losses, labels=labels[rows]),
            pixel_values=pictures,
            features=None if inside.features is None else Source(inside.features, lambda x: inside.maps(x)[rows]),
            attention=None if inside.attention is None else inside.attention[rows],
        )
        return anchor.logits, self.objective.terms(anchor.select(rows), *encoded, batch=batch)

    def _some(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Of the annotated rows those to guide, in their order."""
        one_in = self.args.guidance_one_in or 1
        if one_in == 1:
            return rows
        drawn = torch.randperm(len(rows), device=rows.device, generator=generator)[: guided_of(len(rows), one_in)]
        return rows[drawn.sort().values]

    def _views(
        self, pixel_values: Tensor, saliency: Tensor, rows: Tensor, shown: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """The objective's views of rows, made of the rows that may be shown, in their order, and of no others."""
        if len(shown) == len(pixel_values):
            return self.objective.views(pixel_values, saliency, rows, generator)
        return self.objective.views(pixel_values[shown], saliency[shown], torch.searchsorted(shown, rows), generator)

    def _substitute(
        self, pixel_values: Tensor, saliency: Tensor, rows: Tensor, shown: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The batch with x+ in place of some of these rows, each with the probability `substitution`."""
        chance = torch.rand(len(rows), device=rows.device, generator=generator)
        rows = rows[chance < self.substitution]
        if not len(rows):
            return pixel_values
        views = self._views(pixel_values, saliency, rows, shown, generator)
        if not views:
            raise ValueError(
                f"substitution={self.substitution} shows the first view of an objective in place of the picture, and "
                f"{type(self.objective).__name__} makes none: leave substitution and the preset out."
            )
        return pixel_values.index_copy(0, rows, views[0])

    def weighted(self, terms: dict[str, Tensor], guided: Tensor | float | None = None) -> Tensor:
        """
        What terms add to the loss: their means over the guided rows times their weights.

        Args:
            terms (`dict[str, torch.Tensor]`): as returned above.
            guided (`torch.Tensor` or `float`, *optional*): how many rows the whole optimizer step guides; those of the
                terms if not given.
        """
        first = next(iter(terms.values()))
        rows = len(first) if guided is None else guided
        weighed = (weight * terms[name].sum() for name, weight in self.objective.weights.items())
        return self.args.guidance_interval * sum(weighed, start=first.new_zeros(())) / rows

    def _generator(self, step: int, device: torch.device) -> torch.Generator:
        """
        The randomness of a batch's views: a function of seed, step, batch and process.

        So views are the same after a resumption, and whatever draws from torch's global generator besides.
        """
        place = (self.args.seed, step, self.batches, self.args.process_index)
        self.batches += 1
        seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)
        return torch.Generator(device).manual_seed(seed)
