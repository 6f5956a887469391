"""Where a classifier looks: class activation maps and input gradients, of any architecture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..forwarding import Encoder

METHODS = ("cam", "gradient")
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


def model_saliency(
    model: nn.Module,
    pixel_values: Tensor,
    targets: Tensor | None = None,
    method: str = "cam",
    *,
    interpolate_pos_encoding: bool = False,
) -> Tensor:
    """
    Where a classifier looks when it gives pictures the logit of a class.

    - `"cam"` is Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) of the model's last features that still have a
      place in the picture: `relu(sum_c a_c A_c)`, with `a_c` the mean over places of the gradient of the logit with
      respect to `A_c`. With global average pooling and a linear head it is the class activation map of Zhou et al.
      2016, without what is negative. It is scaled up bilinearly.
    - `"gradient"` is the magnitude of the logit's gradient with respect to the pixels (Simonyan et al. 2014), summed
      over channels.

    No architecture is named anywhere: the features are the latest output of a layer that lies on every way from the
    pixels to the logits, is laid out as (rows, channels, h, w), (rows, h, w, channels) or (rows, tokens, channels)
    over a grid of the picture's aspect ratio, 2 places or more, perhaps after a class token, distilled tokens or
    registers, and whose gradient is not confined to those. In a ViT that classifies by its class token, this is what
    enters the last block.

    Args:
        model (`torch.nn.Module`): as for [`SageTrainer`]. It runs in evaluation mode, and is left as it was found:
            modes, gradients, hooks and the random state.
        pixel_values (`torch.Tensor`): (rows, channels, height, width), normalised.
        targets (`torch.Tensor`, *optional*): whose logit, (rows,) of indices; the largest logit's if not given.
        method (`str`, *optional*, defaults to `"cam"`): `"cam"` or `"gradient"`.
        interpolate_pos_encoding (`bool`, *optional*, defaults to `False`): ask the model to fit its position encodings
            to the size of the pictures.

    Returns:
        `torch.Tensor`: (rows, height, width), float32 in [0, 1], on the device of the pictures. The largest value of a
        row is 1; a row that nothing speaks for is zero everywhere. Rows don't depend on each other.

    Raises:
        `ValueError`: an unknown method; targets that are no indices of logits; for `"cam"`, a model without such
            features.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.evaluation import model_saliency
    >>> from transformers import ViTConfig, ViTForImageClassification
    >>> config = ViTConfig(
    ...     image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2
    ... )
    >>> where = model_saliency(ViTForImageClassification(config), torch.rand(2, 3, 32, 32))
    >>> where.shape, where.amax(dim=(1, 2))
    (torch.Size([2, 32, 32]), tensor([1., 1.]))

    ```
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}. Choose one of {', '.join(METHODS)}.")
    model = getattr(model, "_orig_mod", model)  # what torch.compile makes of a model runs without new hooks
    with torch.inference_mode(False), torch.enable_grad(), _undisturbed(model):
        pictures = pixel_values.detach().clone().requires_grad_()
        encoder = Encoder(model, interpolate_pos_encoding=interpolate_pos_encoding)
        with _outputs(model) as outputs:
            logits = encoder.logits(model, {"pixel_values": pictures})
        logit = logits.gather(1, _checked(targets, logits).unsqueeze(1)).sum()
        if method == "gradient":
            (gradient,) = torch.autograd.grad(logit, pictures)
            found = gradient.float().abs().sum(dim=1)
        else:
            features = _spatial_features(logit, pictures, outputs)
            if features is None:
                raise ValueError(
                    f"{type(model).__name__} has no features with a place in the picture that its logits depend on, "
                    "so there is no class activation map. Use method='gradient'."
                )
            found = _grad_cam(*features, pictures.shape[-2:])
        largest = found.amax(dim=(1, 2), keepdim=True)
        return torch.where(largest > 0, found / largest, torch.zeros_like(found)).detach()


def _checked(targets: Tensor | None, logits: Tensor) -> Tensor:
    if targets is None:
        return logits.argmax(dim=1)
    rows, classes = logits.shape
    if targets.shape != (rows,) or targets.is_floating_point() or not 0 <= targets.min() <= targets.max() < classes:
        raise ValueError(
            f"targets should hold {rows} class indices in [0, {classes - 1}], got shape {tuple(targets.shape)} of "
            f"{targets.dtype}, values {targets.flatten()[:8].tolist()}."
        )
    return targets.to(logits.device, torch.int64)


def _spatial_features(logit: Tensor, pictures: Tensor, outputs: list[Tensor]) -> tuple[Tensor, Tensor] | None:
    """The last features with a place in the picture and their gradient, both (rows, channels, h, w)."""
    seen = set()
    for features in reversed(outputs):
        node = features.grad_fn
        grid = find_grid(features.shape, len(pictures), *pictures.shape[-2:])
        if node is None or node in seen or grid is None or "Pad" in type(node).__name__:
            continue  # a layer that pads shifts the places
        seen.add(node)
        if not _everything_passes(logit, node, pictures):
            continue
        (gradient,) = torch.autograd.grad(logit, features, retain_graph=True)
        # A picture's whole gradient may be zero. That of its grid alone is so only if nothing reads it.
        if grid.prefix and gradient.any() and not gradient[:, grid.prefix :].any():
            continue
        return grid.maps(features.detach().float()), grid.maps(gradient.float())
    return None


def _grad_cam(activations: Tensor, gradients: Tensor, size: torch.Size) -> Tensor:
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    cam = (weights * activations).sum(dim=1, keepdim=True).relu()
    return F.interpolate(cam, size, mode="bilinear", align_corners=False).squeeze(1)


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
    >>> from sage_hf.evaluation.model_saliency import find_grid
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


@contextmanager
def _outputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """What the layers of a model return, in the order in which they return it."""
    found: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        found.extend(_tensors(output))

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


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
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
