"""Find the layers that make the logits and capture what enters them: that is the embedding, for every architecture."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from transformers import PreTrainedConfig

from .models import backbone_of, output_size, unadapted, why_unsupported


def _linear_layers(model: nn.Module) -> dict[str, int]:
    """The outermost layers that could make logits, by name, with their numbers of outputs."""
    layers: dict[str, int] = {}
    for path, module in model.named_modules():
        inside_another = any(path.startswith(f"{layer}.") for layer in layers)
        if path and not inside_another and (size := output_size(module)) is not None:
            layers[path] = size
    return layers


def find_classification_heads(model: nn.Module, names: str | None = None) -> list[str]:
    """
    Names of the layers that make the logits of an image-classification model.

    A head is a linear layer (or 1x1 convolution) with `config.num_labels` outputs outside the backbone
    (`model.base_model`). Most models have one; those that were distilled have two, whose logits they average. If
    nothing outside the backbone qualifies, or the model names no backbone, there must be just one such layer in all,
    because any layer can have that many outputs by chance.

    Args:
        model (`torch.nn.Module`):
            The *unwrapped* model (not inside DDP, FSDP or `torch.compile`). A `peft.PeftModel` is fine.
        names (`str`, *optional*):
            Names from `model.named_modules()`, separated by commas, which are then only checked to exist. Needed for a
            model without a `config`, and where the backbone has several candidates.

    Returns:
        `list[str]`: names from `model.named_modules()`.

    Raises:
        `ValueError`: no candidate, several candidates in the backbone, or an unknown name, and the message lists what
            was found; or a model that doesn't take pictures.

    Example:

    ```python
    >>> from transformers import ResNetConfig, ResNetForImageClassification
    >>> from sage_hf import find_classification_heads
    >>> config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    >>> find_classification_heads(ResNetForImageClassification(config))
    ['classifier.1']

    ```
    """
    if (reason := why_unsupported(model)) is not None:
        raise ValueError(reason)
    kind, layers = type(model).__name__, _linear_layers(model)
    if names is not None:
        modules, heads = dict(model.named_modules()), []
        for name in (name.strip() for name in names.split(",")):
            adapted = f"base_model.model.{name}"  # the same layer, in a model that peft has wrapped
            if not name or not (name in modules or adapted in modules):
                raise ValueError(
                    f"embedding_layer={name!r} is not a layer of {kind}. Its last linear layers are: "
                    f"{_listing(layers)}."
                )
            heads.append(name if name in modules else adapted)
        return heads
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    if num_labels is None:
        raise ValueError(
            f"{kind} has no `config.num_labels`, so its classification head can't be found. Name it with "
            f"embedding_layer=...; its last linear layers are: {_listing(layers)}."
        )

    inside = {id(module) for module in backbone_of(model).modules()}
    candidates = [path for path, size in layers.items() if size == num_labels]
    heads = [path for path in candidates if id(model.get_submodule(path)) not in inside]
    if heads and len(inside) > 1:  # a model that names no backbone has but the one empty module
        return heads
    if len(candidates) == 1:
        return candidates
    found = "none" if not candidates else ", ".join(repr(path) for path in candidates)
    raise ValueError(
        f"{kind} should have a linear layer with config.num_labels={num_labels} outputs as its head, found "
        f"{len(candidates)}: {found}. Load a backbone without a head with sage_hf.load_image_classifier, or name the "
        f"layer that makes the logits with embedding_layer=...; the last linear layers are: {_listing(layers)}."
    )


def config_of(model: nn.Module, names: str | None = None) -> PreTrainedConfig:
    """
    The model's config or, of a module without, one that says as much as can be known: the outputs of its head.

    Args:
        model (`torch.nn.Module`): the unwrapped model.
        names (`str`, *optional*): as for [`find_classification_heads`].
    """
    config = getattr(unadapted(model), "config", None)
    if isinstance(config, PreTrainedConfig):
        return config
    head = model.get_submodule(find_classification_heads(model, names)[-1])
    outputs = output_size(head)
    if outputs is None:
        raise ValueError(
            f"embedding_layer should name a linear layer or a 1x1 convolution, got {type(head).__name__}."
        )
    config = PreTrainedConfig(architectures=[type(unadapted(model)).__name__])
    config.num_labels = outputs
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    config.num_channels = 3 if first is None else first.in_channels
    return config


def _listing(layers: dict[str, int], limit: int = 6) -> str:
    return ", ".join(f"{path!r} ({size} outputs)" for path, size in list(layers.items())[-limit:]) or "none"


class EmbeddingCapture:
    """
    Keeps what enters the classification head in the latest forward pass of a model.

    The hook must be registered before `torch.compile`; later ones are ignored there. It needs no per-architecture
    code: pooled features, class tokens and (batch, channels, 1, 1) maps all come out as (batch, dimension). What
    enters several heads is put side by side.

    Args:
        model (`torch.nn.Module`): the unwrapped model.
        layers (`str`, *optional*): names of the heads, separated by commas; found by [`find_classification_heads`] if
            not given.

    Example:

    ```python
    >>> import torch
    >>> from transformers import ViTConfig, ViTForImageClassification
    >>> from sage_hf import EmbeddingCapture
    >>> config = ViTConfig(
    ...     image_size=32, patch_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2
    ... )
    >>> model = ViTForImageClassification(config)
    >>> capture = EmbeddingCapture(model)
    >>> _ = model(torch.zeros(4, 3, 32, 32))
    >>> capture.take().shape
    torch.Size([4, 16])

    ```
    """

    def __init__(self, model: nn.Module, layers: str | None = None):
        self.model, self.layers = model, find_classification_heads(model, layers)
        self._embeddings: dict[str, torch.Tensor] = {}
        self._handles = [
            # No closure, so that a model with the hook can be pickled.
            model.get_submodule(layer).register_forward_pre_hook(partial(self._keep, layer))
            for layer in self.layers
        ]

    def _keep(self, layer: str, module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self._embeddings[layer] = args[0].flatten(1)

    def take(self) -> torch.Tensor:
        """
        The embedding of the latest forward pass, (batch, dimension), and forget it.

        Forgetting keeps no autograd graph alive between steps, and the model can be deep-copied.

        Raises:
            `RuntimeError`: a head has not run since the last call, so it does not make this model's logits.
        """
        missing = [layer for layer in self.layers if layer not in self._embeddings]
        if missing:
            raise RuntimeError(
                f"The layer {missing[0]!r} did not run in this forward pass; name another embedding_layer."
            )
        parts = [self._embeddings[layer] for layer in self.layers]
        self.clear()
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def clear(self) -> None:
        """Forget the latest embedding."""
        self._embeddings = {}

    def remove(self) -> None:
        """Detach from the model."""
        for handle in self._handles:
            handle.remove()
        self.clear()


def release_captures(model: nn.Module) -> None:
    """Detach every [`EmbeddingCapture`] from a model, such as those of trainers that had it before."""
    for module in model.modules():
        for hook in list(module._forward_pre_hooks.values()):
            capture = getattr(getattr(hook, "func", None), "__self__", None)
            if isinstance(capture, EmbeddingCapture):
                capture.remove()
