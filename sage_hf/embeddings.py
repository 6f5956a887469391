"""Find the layer that makes the logits and capture what enters it: that is the embedding, for every architecture."""

from __future__ import annotations

import torch
from torch import nn


def _output_size(module: nn.Module) -> int | None:
    """Number of outputs of a layer that could make logits, `None` for any other layer."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
        return module.out_channels
    return None


def find_classification_head(model: nn.Module, name: str | None = None) -> str:
    """
    Name of the layer that makes the logits of an image-classification model.

    A head is a linear layer (or 1x1 convolution) with `config.num_labels` outputs. Layers outside the backbone
    (`model.base_model`) are preferred, because a layer inside it can have that many outputs by chance; the backbone is
    searched only if nothing outside it qualifies.

    Args:
        model (`torch.nn.Module`):
            The *unwrapped* model (not inside DDP, FSDP or `torch.compile`).
        name (`str`, *optional*):
            A name from `model.named_modules()`, which is then only checked to exist. Needed when there are several
            candidates, and for a model without a `config`.

    Returns:
        `str`: a name from `model.named_modules()`.

    Raises:
        `ValueError`: no candidate, several candidates, or an unknown `name`. The message lists what was found.

    Example:

    ```python
    >>> from transformers import ResNetConfig, ResNetForImageClassification
    >>> from sage_hf import find_classification_head
    >>> config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    >>> find_classification_head(ResNetForImageClassification(config))
    'classifier.1'

    ```
    """
    modules = dict(model.named_modules())
    layers = {path: size for path, module in modules.items() if (size := _output_size(module)) is not None}
    if name is not None:
        if name in modules and name:
            return name
        raise ValueError(
            f"embedding_layer={name!r} is not a layer of {type(model).__name__}. Its last linear layers are: "
            f"{_listing(layers)}."
        )
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    if num_labels is None:
        raise ValueError(
            f"{type(model).__name__} has no `config.num_labels`, so its classification head can't be found. Name it "
            f"with embedding_layer=...; its last linear layers are: {_listing(layers)}."
        )

    backbone = getattr(model, "base_model", None)
    inside = set() if backbone is None or backbone is model else {id(module) for module in backbone.modules()}
    candidates = [path for path, size in layers.items() if size == num_labels]
    candidates = [path for path in candidates if id(modules[path]) not in inside] or candidates
    if len(candidates) == 1:
        return candidates[0]
    found = "none" if not candidates else ", ".join(repr(path) for path in candidates)
    raise ValueError(
        f"{type(model).__name__} should have exactly one linear layer with config.num_labels={num_labels} outputs, "
        f"found {len(candidates)}: {found}. Name the layer that makes the logits with embedding_layer=...; the last "
        f"linear layers are: {_listing(layers)}."
    )


def _listing(layers: dict[str, int], limit: int = 6) -> str:
    return ", ".join(f"{path!r} ({size} outputs)" for path, size in list(layers.items())[-limit:]) or "none"


class EmbeddingCapture:
    """
    Keeps what enters the classification head in the latest forward pass of a model.

    The hook must be registered before `torch.compile`; later ones are ignored there. It needs no per-architecture
    code: pooled features, class tokens and (batch, channels, 1, 1) maps all come out as (batch, dimension).

    Args:
        model (`torch.nn.Module`): the unwrapped model.
        layer (`str`, *optional*): name of the head, found by [`find_classification_head`] if not given.

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

    def __init__(self, model: nn.Module, layer: str | None = None):
        self.layer = find_classification_head(model, layer)
        self._embedding: torch.Tensor | None = None
        self._handle = model.get_submodule(self.layer).register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self._embedding = args[0].flatten(1)

    def take(self) -> torch.Tensor:
        """
        The embedding of the latest forward pass, (batch, dimension), and forget it.

        Forgetting keeps no autograd graph alive between steps, and the model can be deep-copied.

        Raises:
            `RuntimeError`: the head has not run since the last call, so it does not make this model's logits.
        """
        if self._embedding is None:
            raise RuntimeError(
                f"The layer {self.layer!r} did not run in this forward pass; name another embedding_layer."
            )
        embedding, self._embedding = self._embedding, None
        return embedding

    def clear(self) -> None:
        """Forget the latest embedding."""
        self._embedding = None

    def remove(self) -> None:
        """Detach from the model."""
        self._handle.remove()
        self._embedding = None
