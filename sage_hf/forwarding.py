"""Forward pictures and their views through one model, in one pass or several, without disturbing batch
normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .embeddings import EmbeddingCapture
from .objectives import Encoding

VIEW_FORWARDS = ("auto", "concatenated", "separate")


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any layer normalises by statistics of its batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def encode(
    model: nn.Module,
    capture: EmbeddingCapture,
    inputs: dict[str, Any],
    views: tuple[Tensor, ...],
    rows: Tensor,
    *,
    view_forward: str = "auto",
    unwrapped_model: nn.Module | None = None,
) -> list[Encoding]:
    """
    Encodings of a batch and of views of some of its rows.

    `"concatenated"` is one pass over `[x, x+, x-]`: the cheapest, and the only pass that DDP, FSDP and activation
    checkpointing see. With batch normalisation it changes what x itself is normalised by, so `"auto"` uses it for
    models without, and `"separate"` for models with: one pass for x as in plain training, and one for the views, which
    are normalised by the statistics of their own batch and leave the running ones alone.

    Normalising views by statistics that carry no gradient, be it those of x or the running ones, is not offered: tried
    on a pretrained EfficientNet, the weights' scale drifted away from the running statistics, and evaluation came out
    at chance. What the paper does about batch normalisation is not known to us.

    Args:
        model (`torch.nn.Module`): the wrapped model, which is called on x.
        capture ([`EmbeddingCapture`]): registered on the unwrapped model.
        inputs (`dict`): the model's inputs, `pixel_values` (batch, channels, height, width) among them. Other tensors
            with `batch` rows are indexed like it, the rest is passed on as it is.
        views (`tuple[torch.Tensor, ...]`): each (len(rows), channels, height, width).
        rows (`torch.Tensor`): the rows of the batch that the views were made of, (len(rows),).
        view_forward (`str`, *optional*, defaults to `"auto"`): `"auto"`, `"concatenated"` or `"separate"`.
        unwrapped_model (`torch.nn.Module`, *optional*): what the views go through in separate passes; `model` if not
            given. DDP broadcasts buffers at each call, which would hang ranks that call it a different number of
            times.

    Returns:
        `list[Encoding]`: that of x (batch rows), then that of each view (len(rows) rows).
    """
    if view_forward == "auto":
        view_forward = "separate" if has_batch_norm(model) else "concatenated"
    sizes = [len(inputs["pixel_values"]), *(len(view) for view in views)]
    if view_forward == "concatenated" or not views:
        encoded = _call(model, capture, _stack(inputs, views, rows, with_anchor=True))
    else:
        anchor = _call(model, capture, inputs)
        with _frozen_running_statistics(model):
            view_model = model if unwrapped_model is None else unwrapped_model
            both = _call(view_model, capture, _stack(inputs, views, rows, with_anchor=False))
        encoded = Encoding(*(torch.cat(pair) for pair in zip(anchor, both, strict=True)))
    return [Encoding(*parts) for parts in zip(*(tensor.split(sizes) for tensor in encoded), strict=True)]


def _call(model: nn.Module, capture: EmbeddingCapture, inputs: dict[str, Any]) -> Encoding:
    logits = model(**inputs).logits
    return Encoding(logits, capture.take())


def _stack(inputs: dict[str, Any], views: tuple[Tensor, ...], rows: Tensor, *, with_anchor: bool) -> dict[str, Any]:
    """The inputs of one pass over the views, with or without the batch itself before them."""
    batch = len(inputs["pixel_values"])
    stacked = {}
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.ndim > 0 and len(value) == batch:
            parts = list(views) if name == "pixel_values" else [value[rows]] * len(views)
            stacked[name] = torch.cat([value, *parts] if with_anchor else parts)
        else:
            stacked[name] = value
    return stacked


@contextmanager
def _frozen_running_statistics(model: nn.Module) -> Iterator[None]:
    """In training mode a layer that tracks no running statistics normalises by its batch and updates nothing."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    tracking = [layer.track_running_stats for layer in layers]
    buffers = [(layer.running_mean, layer.running_var) for layer in layers]
    for layer in layers:
        layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    try:
        yield
    finally:
        for layer, tracked, (mean, variance) in zip(layers, tracking, buffers, strict=True):
            layer.track_running_stats, layer.running_mean, layer.running_var = tracked, mean, variance
