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


@dataclass
class Guide:
    """
    Guides the batches of one process by an objective.

    Args:
        objective ([`Objective`]): what guides.
        encoder ([`Encoder`]): encodes pictures and views.
        task ([`~sage_hf.tasks.Task`]): what the model is trained for.
        seed (`int`): of the randomness of views and controls.
        process_index (`int`, *optional*, defaults to 0): each process draws its own.
    """

    objective: Objective
    encoder: Encoder
    task: Task
    seed: int
    process_index: int = 0
    batches: int = 0
    """Guided since the last optimizer step."""

    def __call__(
        self, model: nn.Module, inputs: dict[str, Any], labels: Tensor, saliency: Tensor, rows: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Logits of a batch, (batch, labels), and the objective's terms for some of its rows, (rows,) each.

        Args:
            model (`torch.nn.Module`): the wrapped model.
            inputs (`dict`): the model's inputs, `pixel_values` among them.
            labels (`torch.Tensor`): (batch,) or (batch, labels).
            saliency (`torch.Tensor`): maps, (batch, 1, height, width).
            rows (`torch.Tensor`): indices of the rows that have one.
            step (`int`): optimizer steps done so far.
        """
        fewest, fewest_annotated = self.objective.fewest_rows
        pixel_values = inputs["pixel_values"]
        if len(pixel_values) < fewest or len(rows) < fewest_annotated:
            return self.encoder.logits(model, inputs), {}
        generator = self._generator(step, pixel_values.device)
        saliency = self.objective.maps(saliency, rows, generator)
        views = self.objective.views(pixel_values, saliency, rows, generator)
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

    def _generator(self, step: int, device: torch.device) -> torch.Generator:
        """
        The randomness of a batch's views: a function of seed, step, batch and process.

        So views are the same after a resumption, and whatever draws from torch's global generator besides.
        """
        place = (self.seed, step, self.batches, self.process_index)
        self.batches += 1
        seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)
        return torch.Generator(device).manual_seed(seed)
