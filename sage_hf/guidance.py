"""Encodes batches as an objective asks for, and asks it for its terms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
    def one_in(self) -> int:
        """One in so many annotated rows of a batch is guided."""
        return self.args.guidance_one_in or 1

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
        if not self.guidable(mask, known):
            return self.encoder.logits(model, inputs), {}
        annotated, shown = mask.nonzero().squeeze(1), self._shown(mask, known).nonzero().squeeze(1)
        pixel_values = inputs["pixel_values"]
        number = self._how_many(len(annotated), step)
        generator = self._generator(step, pixel_values.device)
        if not (number or self.substitution):
            return self.encoder.logits(model, inputs), {}
        saliency = self.objective.maps(saliency, annotated, generator)
        rows = self._some(annotated, number, generator)
        # Of the pictures as they are, and before any of them is replaced.
        views = self._views(pixel_values, saliency, rows, shown, generator) if number else ()
        if self.substitution:
            others = annotated[~torch.isin(annotated, rows)]
            pixel_values = self._substitute(pixel_values, saliency, others, shown, generator)
            inputs = inputs | {"pixel_values": pixel_values}
        if not number:
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

    def guidable(self, mask: Tensor, known: Tensor | None) -> Tensor:
        """Whether a batch has as many rows as the objective needs, a boolean (); arguments as above."""
        fewest, fewest_annotated = self.objective.fewest_rows
        return (self._shown(mask, known).sum() >= fewest) & (mask.sum() >= fewest_annotated)

    def _shown(self, mask: Tensor, known: Tensor | None) -> Tensor:
        """
        The rows that may be shown in views of others, (batch,), booleans.

        Somebody else's evidence would stand in the views of what nobody has looked at.
        """
        return torch.ones_like(mask) if known is None or not self.shows_unmarked else known

    def _how_many(self, annotated: int, step: int) -> int:
        """
        Of a batch's annotated rows: none at steps between, or one in k.

        That is rounded up at some batches and down at others: with n rows each, k successive ones (steps, batches of a
        step, or processes) guide floor(n / k) + floor((n + 1) / k) + ... + floor((n + k - 1) / k) = n rows (Hermite's
        identity).
        """
        turn, between = divmod(step, self.args.guidance_interval)
        turn += self.batches + self.args.process_index
        return 0 if between else (annotated + turn % self.one_in) // self.one_in

    def _some(self, rows: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """So many of the annotated rows, drawn, in their order."""
        if number in (0, len(rows)):
            return rows[:number]
        drawn = torch.randperm(len(rows), device=rows.device, generator=generator)[:number]
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

    def weighted(self, terms: dict[str, Tensor], rows: Tensor | float) -> Tensor:
        """
        What terms add to the loss: their means times their weights, estimated from the rows and steps that are guided.

        What is guided counts for what is not, so that the weight is the same however few rows a batch has.

        Args:
            terms (`dict[str, torch.Tensor]`): as returned above.
            rows (`torch.Tensor` or `float`): annotated rows of the whole optimizer step, in batches that are guided.
        """
        first = next(iter(terms.values()))
        weighed = (weight * terms[name].sum() for name, weight in self.objective.weights.items())
        return self.args.guidance_interval * self.one_in * sum(weighed, start=first.new_zeros(())) / rows

    def _generator(self, step: int, device: torch.device) -> torch.Generator:
        """
        The randomness of a batch's views: a function of seed, step, batch and process.

        So views are the same after a resumption, and whatever draws from torch's global generator besides.
        """
        place = (self.args.seed, step, self.batches, self.args.process_index)
        self.batches += 1
        seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)
        return torch.Generator(device).manual_seed(seed)
