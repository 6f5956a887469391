"""Find what in a model still has a place in the picture: features of its last layers, of any architecture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

MOST_PREFIX_TOKENS = 16
"""How many tokens may stand before those of the grid: a class token, a distilled one, registers."""
MOST_PLACES_OFF = 2
"""By how many places convolutions that fill nothing up may spoil the aspect ratio of a picture."""


class Grid(NamedTuple):
    """How the places of a picture are laid out in a tensor of features."""

    layout: str
    """`"chw"`, `"hwc"`, or `"nc"` for tokens, after the rows."""
    height: int
    width: int
    prefix: int
    """Tokens before those of the grid."""

    def maps(self, features: Tensor) -> Tensor:
        """The features as (rows, channels, height, width), without the prefix tokens."""
        if self.layout == "chw":
            return features
        if self.layout == "hwc":
            return features.permute(0, 3, 1, 2)
        return features[:, self.prefix :].transpose(1, 2).unflatten(2, (self.height, self.width))


class Output(NamedTuple):
    """A tensor that a layer returned."""

    tensor: Tensor
    layer: nn.Module
    call: int
    """How often the layer had been called before in this forward pass."""
    position: int
    """Among the tensors that the layer returned."""


def find_grid(shape: torch.Size, rows: int, height: int, width: int) -> Grid | None:
    """
    The grid over a picture that features of a shape have; `None` if they have none.

    A grid has 2 places or more, and the aspect ratio of the picture, roughly if it shows in the shape, as for the
    features of convolutions. Of several that fit, it is the nearest one, or the one with the fewest prefix tokens.

    Args:
        shape (`torch.Size`): of the features, rows first.
        rows (`int`): pictures in the batch.
        height (`int`): of the pictures, in pixels.
        width (`int`): of the pictures, in pixels.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.features import find_grid
    >>> find_grid(torch.Size([2, 197, 768]), 2, 224, 224)  # a class token, then 14 x 14 patches
    Grid(layout='nc', height=14, width=14, prefix=1)

    ```
    """
    if len(shape) not in (3, 4) or shape[0] != rows:
        return None
    if len(shape) == 4:
        mismatch = {
            Grid(layout, *places, prefix=0): _mismatch(*places, height, width)
            for layout, places in (("chw", shape[2:]), ("hwc", shape[1:3]))
        }
        found = min(mismatch, key=lambda grid: mismatch[grid])
        return found if mismatch[found] <= MOST_PLACES_OFF else None
    grids = _grids(height, width)
    fitting = [Grid("nc", h, w, prefix=shape[1] - h * w) for h, w in grids]
    fitting = [grid for grid in fitting if 0 <= grid.prefix <= min(MOST_PREFIX_TOKENS, grid.height * grid.width)]
    return min(fitting, key=lambda grid: grid.prefix, default=None)


def _mismatch(h: int, w: int, height: int, width: int) -> float:
    """By how many places a grid misses the aspect ratio of a picture."""
    if h > height or w > width or h * w == 1:
        return math.inf
    return min(abs(height * w / width - h), abs(width * h / height - w))


def _grids(height: int, width: int) -> set[tuple[int, int]]:
    """What windows of each stride make of a picture, whether those at its edge are cut off or filled up."""
    strides = range(1, max(height, width) + 1)
    cut = {(height // stride, width // stride) for stride in strides}
    filled = {(-(-height // stride), -(-width // stride)) for stride in strides}
    return {(h, w) for h, w in cut | filled if h * w > 1}


@contextmanager
def layer_outputs(model: nn.Module) -> Iterator[list[Output]]:
    """What the layers of a model return, in the order in which they return it."""
    found: list[Output] = []
    calls: dict[nn.Module, int] = {}

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        call = calls.get(module, 0)
        calls[module] = call + 1
        found.extend(Output(tensor, module, call, position) for position, tensor in enumerate(_tensors(output)))

    handles = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list)):
        for part in output:
            yield from _tensors(part)
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))


def last_features(logit: Tensor, pictures: Tensor, outputs: list[Output]) -> tuple[Output, Grid] | None:
    """
    The last features with a place in the picture that a logit depends on; `None` if there are none.

    They lie on every way from the pixels to the logit, over a grid of the picture's aspect ratio, perhaps after a
    class token, distilled tokens or registers, and the logit's gradient is not confined to those. In a ViT that
    classifies by its class token, this is what enters the last block.

    Args:
        logit (`torch.Tensor`): a scalar.
        pictures (`torch.Tensor`): what entered the model, (rows, channels, height, width); a leaf with a gradient.
        outputs (`list[Output]`): of the layers on the way, see [`layer_outputs`].
    """
    seen = set()
    for output in reversed(outputs):
        node = output.tensor.grad_fn
        grid = find_grid(output.tensor.shape, len(pictures), *pictures.shape[-2:])
        if node is None or node in seen or grid is None or "Pad" in type(node).__name__:
            continue  # a layer that pads shifts the places
        seen.add(node)
        if not _everything_passes(logit, node, pictures):
            continue
        (gradient,) = torch.autograd.grad(logit, output.tensor, retain_graph=True)
        # A picture's whole gradient may be zero. That of its grid alone is so only if nothing reads it.
        if grid.prefix and gradient.any() and not gradient[:, grid.prefix :].any():
            continue
        # Where it first comes up: an outer layer returns it again when others have read it already.
        return next(one for one in outputs if one.tensor is output.tensor), grid
    return None


def _everything_passes(logit: Tensor, node: Any, pictures: Tensor) -> bool:
    """Whether each way through the autograd graph from the logit back to the pictures leads through a node."""
    leaf: Any = pictures.view_as(pictures).grad_fn
    goal = leaf.next_functions[0][0]
    seen, waiting = {node}, [logit.grad_fn]
    while waiting:
        current = waiting.pop()
        if current is None or current in seen:
            continue
        if current is goal:
            return False
        seen.add(current)
        waiting.extend(following for following, _ in current.next_functions)
    return True


class FeatureCapture:
    """
    Keeps the last features with a place in the picture of each forward pass of a model; see [`last_features`].

    Which layer returns them is found by a pass of its own over some pictures, in evaluation mode, that leaves the
    model and the random state as they were.

    Args:
        model (`torch.nn.Module`): the unwrapped model.
        logits (`Callable`): logits (rows, labels) of the unwrapped model, of a dictionary of its inputs.
        inputs (`dict`): the model's inputs, `pixel_values` among them; two pictures do.

    Raises:
        `ValueError`: the model has no such features, or they can't be differentiated by twice.
    """

    def __init__(self, model: nn.Module, logits: Any, inputs: dict[str, Any]):
        pictures = inputs["pixel_values"].detach().clone().requires_grad_()
        with undisturbed(model), torch.enable_grad(), layer_outputs(model) as outputs:
            logit = logits(inputs | {"pixel_values": pictures}).float().sum()
        found = last_features(logit, pictures, outputs)
        kind = type(model).__name__
        if found is None:
            raise ValueError(
                f"{kind} has no features with a place in the picture that its logits depend on, so there is no class "
                "activation map to guide. Use another guidance."
            )
        output, self.grid = found
        check_differentiable_twice(kind, logit, output.tensor)
        self._call, self._position = output.call, output.position
        self._calls: int | None = None
        self._features: Tensor | None = None
        self._handle = output.layer.register_forward_hook(partial(_keep, self))

    def start(self) -> None:
        """To be called before a forward pass."""
        self._calls, self._features = 0, None

    def take(self) -> Tensor:
        """The features of the latest forward pass as the layer returned them; `grid` lays them out. Forgets them."""
        features, self._calls, self._features = self._features, None, None
        if features is None:
            raise RuntimeError("The layer whose features are guided did not run in this forward pass.")
        return features

    def remove(self) -> None:
        """Detach from the model."""
        self._handle.remove()


def _keep(capture: FeatureCapture, module: nn.Module, args: Any, output: Any) -> None:
    if capture._calls is None:  # recomputed activations come by again in the backward pass
        return
    if capture._calls == capture._call:
        features = list(_tensors(output))[capture._position]
        # Of a frozen backbone, nothing is a function of parameters that learn.
        capture._features = features if features.requires_grad else features.requires_grad_()
    capture._calls += 1


def check_differentiable_twice(kind: str, logit: Tensor, tensor: Tensor) -> None:
    """
    Try whether the gradient of a logit by a tensor can be differentiated again.

    Args:
        kind (`str`): the model's type, for the message.
        logit (`torch.Tensor`): a scalar.
        tensor (`torch.Tensor`): what it was computed from.

    Raises:
        `ValueError`: an operation of the model has no second derivative.
    """
    try:
        (gradient,) = torch.autograd.grad(logit, tensor, create_graph=True)
        if gradient.requires_grad:
            torch.autograd.grad(gradient.square().sum(), tensor, allow_unused=True)
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        if "scaled_dot_product" in str(error):
            raise ValueError(fused_attention_message(kind)) from None
        raise ValueError(
            f"{kind} has an operation that can't be differentiated twice, as this guidance needs: "
            f"{str(error).splitlines()[0]} Use another guidance."
        ) from None


def fused_attention_message(kind: str) -> str:
    """What to say of a model whose attention can't be differentiated twice."""
    return (
        f"{kind} computes attention in one fused kernel, which can't be differentiated twice, as this guidance needs. "
        'Load the model with attn_implementation="eager".'
    )


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, and afterwards each layer in its own, with the random state as it was."""
    training = [module for module in model.modules() if module.training]
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    model.eval()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for module in training:
            module.training = True
