"""Forward pictures and their views through one model, in one pass or several, without disturbing batch
normalisation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .embeddings import EmbeddingCapture
from .objectives import Encoding
from .objectives.base import at_least_float32

VIEW_FORWARDS = ("auto", "concatenated", "separate")
VIEW_STATISTICS = ("anchor", "running", "batch")


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
    view_statistics: str = "anchor",
    unwrapped_model: nn.Module | None = None,
) -> list[Encoding]:
    """
    Encodings of a batch and of views of some of its rows.

    `"concatenated"` is one pass over `[x, x+, x-]`: the cheapest, and the only pass that DDP, FSDP and activation
    checkpointing see. With batch normalisation it changes what x itself is normalised by, so `"auto"` uses it for
    models without and `"separate"`, one pass for x and one for the views, for models with. There `view_statistics`
    says what views are normalised by in training mode; running statistics are updated by x alone in each case:

    - `"anchor"`: the batch statistics of x. The views see the very network that x saw, even if just one row has a map.
    - `"running"`: the running statistics, as in evaluation.
    - `"batch"`: the views' own batch statistics.

    Which of them the paper used is not known to us; all three are ours.

    Args:
        model (`torch.nn.Module`): the wrapped model, which is called on x.
        capture ([`EmbeddingCapture`]): registered on the unwrapped model.
        inputs (`dict`): the model's inputs, `pixel_values` (batch, channels, height, width) among them. Other tensors
            with `batch` rows are indexed like it, the rest is passed on as it is.
        views (`tuple[torch.Tensor, ...]`): each (len(rows), channels, height, width).
        rows (`torch.Tensor`): the rows of the batch that the views were made of, (len(rows),).
        view_forward (`str`, *optional*, defaults to `"auto"`): `"auto"`, `"concatenated"` or `"separate"`.
        view_statistics (`str`, *optional*, defaults to `"anchor"`): `"anchor"`, `"running"` or `"batch"`.
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
        with _anchor_pass(model, view_statistics) as for_views:
            anchor = _call(model, capture, inputs)
            with for_views():
                both = _call(
                    model if unwrapped_model is None else unwrapped_model,
                    capture,
                    _stack(inputs, views, rows, with_anchor=False),
                )
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
def _anchor_pass(model: nn.Module, view_statistics: str) -> Iterator[Any]:
    """Around the pass over x; yields the context manager to put around the pass over its views."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    if view_statistics == "running":
        yield lambda: _evaluating(layers)
    elif view_statistics == "batch":
        yield lambda: _without_running_statistics(layers)
    else:
        with ExitStack() as hooks:
            statistics: dict[nn.Module, tuple[Tensor, Tensor]] = {}

            def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                x = at_least_float32(args[0].detach())
                variance, mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
                statistics[module] = (mean, variance)

            handles = [hooks.enter_context(layer.register_forward_pre_hook(keep)) for layer in layers]

            def for_views() -> Any:
                for handle in handles:
                    handle.remove()
                return _normalising_by(statistics)

            yield for_views


@contextmanager
def _evaluating(layers: Iterable[nn.Module]) -> Iterator[None]:
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


@contextmanager
def _without_running_statistics(layers: list[Any]) -> Iterator[None]:
    """In training mode a layer that tracks no running statistics normalises by its batch and updates nothing."""
    tracking = [layer.track_running_stats for layer in layers]
    buffers = [(layer.running_mean, layer.running_var) for layer in layers]
    for layer in layers:
        layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    try:
        yield
    finally:
        for layer, tracked, (mean, variance) in zip(layers, tracking, buffers, strict=True):
            layer.track_running_stats, layer.running_mean, layer.running_var = tracked, mean, variance


@contextmanager
def _normalising_by(statistics: dict[Any, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """
    Normalise by the given mean and variance of each layer.

    The running buffers are put aside and brought back as the same tensors: autograd and DDP hold on to them.
    """
    buffers = {layer: (layer.running_mean, layer.running_var) for layer in statistics}
    for layer, (mean, variance) in statistics.items():
        layer.running_mean, layer.running_var = mean, variance
    try:
        with _evaluating(statistics):
            yield
    finally:
        for layer, (mean, variance) in buffers.items():
            layer.running_mean, layer.running_var = mean, variance
