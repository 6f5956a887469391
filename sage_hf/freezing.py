"""Layers that keep their weights, and work as they do in evaluation while the others train."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .embeddings import find_classification_heads
from .models import backbone_of, is_adapted


class FrozenLayers:
    """
    Freezes the backbone if asked to, and keeps frozen layers in evaluation mode.

    The backbone is what transformers calls the base model or, in a model that has none, everything but the head. Its
    parameters take no gradient, and it stays in evaluation mode: batch normalisation would otherwise go on changing
    its running statistics, and dropout would make the fixed features noisy.

    In a model with adapters, batch normalisation stays in evaluation mode as well: neither peft's checkpoints nor the
    base model's would hold the running statistics that it would come to have.

    Args:
        model (`torch.nn.Module`): the unwrapped model.
        heads (`str`, *optional*): names of the layers that make the logits, as for [`find_classification_heads`].
        backbone (`bool`, *optional*, defaults to `False`): whether to freeze the backbone.

    Raises:
        `ValueError`: nothing would be left to train.

    Example:

    ```python
    >>> from transformers import ResNetConfig, ResNetForImageClassification
    >>> from sage_hf.freezing import FrozenLayers
    >>> config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    >>> model = ResNetForImageClassification(config)
    >>> frozen = FrozenLayers(model, backbone=True)
    >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    ['classifier.1.weight', 'classifier.1.bias']

    ```
    """

    def __init__(self, model: nn.Module, heads: str | None = None, *, backbone: bool = False):
        self.modules: list[nn.Module] = []
        if backbone:
            self.modules = self._freeze(model, heads)
        elif is_adapted(model):
            self.modules = [module for module in model.modules() if isinstance(module, _BatchNorm)]

    def evaluate(self) -> None:
        """Put the frozen layers into evaluation mode; to be called after `model.train()`."""
        for module in self.modules:
            module.eval()

    @staticmethod
    def _freeze(model: nn.Module, heads: str | None) -> list[nn.Module]:
        found = find_classification_heads(model, heads)
        kept = {id(module) for head in found for module in model.get_submodule(head).modules()}
        base = backbone_of(model)
        if list(base.parameters()) and not any(id(module) in kept for module in base.modules()):
            base.requires_grad_(False)
            frozen = [base]
        else:
            trained = {id(parameter) for head in found for parameter in model.get_submodule(head).parameters()}
            for parameter in model.parameters():
                parameter.requires_grad_(id(parameter) in trained and parameter.requires_grad)
            frozen = _without(model, kept)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError("freeze_backbone leaves nothing to train: the head's own parameters are frozen.")
        return frozen


def _without(module: nn.Module, kept: set[int]) -> list[nn.Module]:
    """The largest parts of a module that hold parameters or statistics, and none of the modules to keep."""
    if id(module) in kept:
        return []
    if not any(id(part) in kept for part in module.modules()):
        return [module] if [*module.parameters(), *module.buffers()] else []
    return [part for child in module.children() for part in _without(child, kept)]
