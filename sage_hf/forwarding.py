"""Forward pictures and their views through one model, in one pass or several, without disturbing batch
normalisation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers import PreTrainedModel

from .embeddings import EmbeddingCapture
from .features import FeatureCapture, Grid, check_differentiable_twice, undisturbed
from .freezing import FrozenLayers
from .models import logits_of, takes_interpolation, unadapted
from .objectives import Encoding

VIEW_FORWARDS = ("auto", "concatenated", "separate", "recomputed")
RECOMPUTED_PARTS = 2
"""Views are recomputed half a batch at a time: their activations and the gradients of the weights then fit where the
activations of x were. Smaller parts save little more, and are slower."""


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any layer normalises by statistics of its batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


class Inside(NamedTuple):
    """What an objective asked to see of a forward pass, `None` where it did not."""

    features: Tensor | None = None
    """The last ones with a place in the picture, as their layer returned them."""
    grid: Grid | None = None
    attention: Tensor | None = None
    """Of the last layer, (batch, heads, tokens, tokens)."""

    def maps(self, features: Tensor) -> Tensor:
        """Features, or their gradient, as (batch, channels, height, width)."""
        assert self.grid is not None
        return self.grid.maps(features)


class Encoder:
    """
    Calls a model on pictures and on their views.

    - `"concatenated"` is one pass over `[x, x+, x-]`: the cheapest, and the only pass that DDP, FSDP and activation
      checkpointing see.
    - `"separate"` is one pass for x as in plain training, and one for the views. With batch normalisation,
      concatenation would change what x itself is normalised by; here views are normalised by the statistics of their
      own batch and leave the running ones alone.
    - `"recomputed"` is first the views, half a batch at a time, whose activations are thrown away and computed again
      in the backward pass, as in activation checkpointing; then one pass for x. The backward pass goes the other way:
      it has let go of the activations of x when it computes those of the views. So the peak of memory is hardly above
      that of plain training, for one more forward pass of the views; gradients are the same. Gradient caching (Gao et
      al., *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup*, 2021) saves as much and computes
      x again as well. Not for batch normalisation, where a part of a batch is normalised otherwise.
    - `"auto"` is separate for models with batch normalisation, and concatenated for all others.

    Normalising views by statistics that carry no gradient, be it those of x or the running ones, is not offered: tried
    on a pretrained EfficientNet, the weights' scale drifted away from the running statistics, and evaluation came out
    at chance. What the paper does about batch normalisation is not known to us.

    Args:
        model (`torch.nn.Module`): the unwrapped model, of transformers, adapted by peft, or any module that takes
            pictures as its first argument.
        capture ([`EmbeddingCapture`], *optional*): registered on it; needed for views.
        view_forward (`str`, *optional*, defaults to `"auto"`): see above.
        interpolate_pos_encoding (`bool`, *optional*, defaults to `False`): ask the model to fit its position encodings
            to the size of the pictures.
        frozen ([`FrozenLayers`], *optional*): layers that stay in evaluation mode while the model trains.

    Raises:
        `ValueError`: the model can't interpolate its position encodings, or can't take views in parts.
    """

    def __init__(
        self,
        model: nn.Module,
        capture: EmbeddingCapture | None = None,
        *,
        view_forward: str = "auto",
        interpolate_pos_encoding: bool = False,
        frozen: FrozenLayers | None = None,
    ):
        self.model, self.capture, self.frozen = model, capture, frozen
        self._positional = not isinstance(unadapted(model), PreTrainedModel)
        self._extra: dict[str, Any] = {}
        if interpolate_pos_encoding:
            if not takes_interpolation(unadapted(model)):
                raise ValueError(
                    f"{type(unadapted(model)).__name__} takes no interpolate_pos_encoding: leave it out. Models "
                    "without fixed position encodings take pictures of any size as they are."
                )
            self._extra["interpolate_pos_encoding"] = True
        if view_forward == "auto":
            view_forward = "separate" if has_batch_norm(model) else "concatenated"
        if view_forward == "recomputed" and has_batch_norm(model):
            raise ValueError(
                f"view_forward='recomputed' passes views in parts of a batch, and {type(unadapted(model)).__name__} "
                "has batch normalisation, which depends on the batch. Use gradient_checkpointing=True to save memory."
            )
        self.view_forward = view_forward
        self._running_statistics: list[tuple[Tensor, Tensor]] = []
        self._features: FeatureCapture | None = None
        self._ready: frozenset[str] = frozenset()

    def logits(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """
        Logits of a batch, (batch, labels).

        Args:
            model (`torch.nn.Module`): the wrapped model.
            inputs (`dict`): as for [`Encoder.encode`].
        """
        logits = self._call(model, inputs)
        if self.capture is not None:
            self.capture.clear()  # or it would keep the autograd graph alive, and the model could not be copied
        self._remember_running_statistics()
        return logits

    def idle_logits(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """[`Encoder.logits`] of a pass that is made for other processes' sake: running statistics stay as they are."""
        with _spare_running_statistics(self.model):
            return self.logits(model, inputs)

    def encode(
        self, model: nn.Module, inputs: dict[str, Any], views: tuple[Tensor, ...], rows: Tensor
    ) -> list[Encoding]:
        """
        Encodings of a batch and of views of some of its rows.

        Args:
            model (`torch.nn.Module`): the wrapped model. Views in separate passes go through the unwrapped one: DDP
                broadcasts buffers at each call, which would hang ranks that call it a different number of times.
            inputs (`dict`): the model's inputs, `pixel_values` (batch, channels, height, width) among them. Other
                tensors with `batch` rows are indexed like it, the rest is passed on as it is.
            views (`tuple[torch.Tensor, ...]`): each (len(rows), channels, height, width).
            rows (`torch.Tensor`): the rows of the batch that the views were made of, (len(rows),).

        Returns:
            `list[Encoding]`: that of x (batch rows), then that of each view (len(rows) rows).
        """
        return self.encode_inside(model, inputs, views, rows)[0]

    def encode_inside(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        views: tuple[Tensor, ...],
        rows: Tensor,
        needs: frozenset[str] = frozenset(),
    ) -> tuple[list[Encoding], Inside]:
        """
        As [`Encoder.encode`], and what an objective needs to see of the pass over x.

        Args:
            model, inputs, views, rows: as for [`Encoder.encode`].
            needs (`frozenset[str]`, *optional*): `"features"` and `"attention"`, see
                [`~sage_hf.objectives.Objective`].

        Raises:
            `ValueError`: the model has no such thing.
        """
        self._prepare(inputs, needs)
        if self.view_forward == "recomputed" and views:
            # Before x: autograd takes last what was made first.
            of_views = self._encode_recomputed(inputs, views, rows)
            anchor, inside = self._encode(model, inputs, needs)
            return [anchor, *of_views], inside
        sizes = [len(inputs["pixel_values"]), *(len(view) for view in views)]
        if self.view_forward == "concatenated" or not views:
            encoded, inside = self._encode(model, _stack(inputs, views, rows, with_anchor=True), needs)
            self._remember_running_statistics()
            return _split(encoded, sizes), inside
        anchor, inside = self._encode(model, inputs, needs)
        self._remember_running_statistics()
        with _spare_running_statistics(self.model):
            both, _ = self._encode(self.model, _stack(inputs, views, rows, with_anchor=False))
        return [anchor, *_split(both, sizes[1:])], inside

    def _prepare(self, inputs: dict[str, Any], needs: frozenset[str]) -> None:
        """Find out once, by a pass over two pictures, how the model can give what an objective needs."""
        new = (needs & {"features", "input_gradients"}) - self._ready
        if not new:
            return
        self._ready |= new
        two = _rows_of(inputs, torch.arange(min(2, len(inputs["pixel_values"]))))
        if "features" in new:
            self._features = FeatureCapture(self.model, lambda some: logits_of(self._outputs(self.model, some)), two)
        if "input_gradients" in new:
            pictures = two["pixel_values"].detach().clone().requires_grad_()
            with undisturbed(self.model), torch.enable_grad():
                logits = logits_of(self._outputs(self.model, two | {"pixel_values": pictures}))
            check_differentiable_twice(type(self.model).__name__, logits.float().log_softmax(1).sum(), pictures)

    def release(self) -> None:
        """Detach from the model what [`Encoder.encode_inside`] has put on it."""
        if self._features is not None:
            self._features.remove()
            self._features = None
            self._ready = frozenset()

    def restore_running_statistics(self) -> None:
        """
        Undo what recomputing activations did to running statistics; to be called after the backward pass.

        A recomputed layer of batch normalisation counts its batch a second time, and would count the views as well.
        """
        with torch.no_grad():
            for buffer, value in self._running_statistics:
                buffer.copy_(value)
        self._running_statistics = []

    def _encode(
        self, model: nn.Module, inputs: dict[str, Any], needs: frozenset[str] = frozenset()
    ) -> tuple[Encoding, Inside]:
        assert self.capture is not None
        extra = {"output_attentions": True} if "attention" in needs else {}
        features = self._features if "features" in needs else None
        if features is not None:
            features.start()
        outputs = self._outputs(model, inputs | extra)
        inside = Inside(
            None if features is None else features.take(),
            None if features is None else features.grid,
            _last_attention(outputs, len(inputs["pixel_values"])) if extra else None,
        )
        return Encoding(logits_of(outputs), self.capture.take()), inside

    def _encode_recomputed(self, inputs: dict[str, Any], views: tuple[Tensor, ...], rows: Tensor) -> list[Encoding]:
        """The encodings of each view, in parts whose activations the backward pass computes again."""

        def encode(part: slice) -> Encoding:
            # Stacked in here, so that no copy of the views is kept.
            some = tuple(view[part] for view in views)
            return self._encode(self.model, _stack(inputs, some, rows[part], with_anchor=False))[0]

        size = math.ceil(len(inputs["pixel_values"]) / RECOMPUTED_PARTS / len(views))
        parts = []
        # The whole function has to run again, or the capture would keep the recomputed graph alive.
        with set_checkpoint_early_stop(False):
            for start in range(0, len(rows), size):
                part = slice(start, min(start + size, len(rows)))
                encoded = checkpoint(encode, part, use_reentrant=False)
                parts.append(_split(encoded, [part.stop - part.start] * len(views)))
        return [Encoding(*map(torch.cat, zip(*of_view, strict=True))) for of_view in zip(*parts, strict=True)]

    def _call(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        return logits_of(self._outputs(model, inputs))

    def _outputs(self, model: nn.Module, inputs: dict[str, Any]) -> Any:
        if self.frozen is not None and model.training:
            self.frozen.evaluate()
        inputs = inputs | self._extra
        # A module of the user's own may call its pictures what it likes.
        pictures = [inputs.pop("pixel_values")] if self._positional else []
        return model(*pictures, **inputs)

    def _remember_running_statistics(self) -> None:
        layers = _normalising_layers(self.model) if torch.is_grad_enabled() else []
        if layers and any(getattr(module, "gradient_checkpointing", False) for module in self.model.modules()):
            buffers = [buffer for layer in layers for buffer in layer.buffers()]
            self._running_statistics = [(buffer, buffer.clone()) for buffer in buffers]


def _last_attention(outputs: Any, batch: int) -> Tensor:
    attentions = getattr(outputs, "attentions", None)
    last = attentions[-1] if attentions else None
    if not isinstance(last, Tensor) or last.ndim != 4 or len(last) != batch:
        found = f"a tensor of {tuple(last.shape)}" if isinstance(last, Tensor) else "none"
        raise ValueError(
            f"guidance='attention' needs a model that returns the attention of its last layer, (batch, heads, tokens, "
            f"tokens), for output_attentions=True; this one returned {found}. Use another guidance."
        )
    return last


def _rows_of(inputs: dict[str, Any], rows: Tensor | slice) -> dict[str, Any]:
    batch = len(inputs["pixel_values"])
    return {name: value[rows] if _is_rows(value, batch) else value for name, value in inputs.items()}


def _is_rows(value: Any, batch: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == batch


def _stack(inputs: dict[str, Any], views: tuple[Tensor, ...], rows: Tensor, *, with_anchor: bool) -> dict[str, Any]:
    """The inputs of one pass over the views, with or without the batch itself before them."""
    if not views:
        return inputs
    batch = len(inputs["pixel_values"])
    stacked = {}
    for name, value in inputs.items():
        if _is_rows(value, batch):
            parts = list(views) if name == "pixel_values" else [value[rows]] * len(views)
            stacked[name] = torch.cat([value, *parts] if with_anchor else parts)
        else:
            stacked[name] = value
    return stacked


def _split(encoding: Encoding, sizes: list[int]) -> list[Encoding]:
    return [Encoding(*parts) for parts in zip(*(tensor.split(sizes) for tensor in encoding), strict=True)]


def _normalising_layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]


@contextmanager
def _spare_running_statistics(model: nn.Module) -> Iterator[None]:
    """Layers in training mode normalise by their batch and update copies of their running statistics."""
    kept = [
        (layer, name, buffer)
        for layer in _normalising_layers(model)
        for name, buffer in layer.named_buffers(recurse=False)
    ]
    for layer, name, buffer in kept:
        setattr(layer, name, buffer.clone())
    try:
        yield
    finally:
        # The very tensors: DDP holds on to them.
        for layer, name, buffer in kept:
            setattr(layer, name, buffer)
