"""Training the head alone: the backbone keeps its weights and works as it does in evaluation."""

from __future__ import annotations

from torch import nn

from .embeddings import find_classification_heads
from .models import backbone_of, unadapted


class FrozenBackbone:
    """
    Freezes what transformers calls the base model or, in a model that has none, everything but the head.

    Frozen parameters take no gradient. Frozen layers stay in evaluation mode: batch normalisation would otherwise go
    on changing its running statistics, and dropout would make the fixed features noisy.

    Args:
        model (`torch.nn.Module`): the unwrapped model.
        heads (`str`, *optional*): names of the layers that make the logits, as for [`find_classification_heads`].

    Raises:
        `ValueError`: nothing would be left to train.

    Example:

    ```python
    >>> from transformers import ResNetConfig, ResNetForImageClassification
    >>> from sage_hf.freezing import FrozenBackbone
    >>> config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    >>> model = ResNetForImageClassification(config)
    >>> frozen = FrozenBackbone(model)
    >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    ['classifier.1.weight', 'classifier.1.bias']

    ```
    """

    def __init__(self, model: nn.Module, heads: str | None = None):
        found = find_classification_heads(model, heads)
        kept = {id(module) for head in found for module in model.get_submodule(head).modules()}
        backbone = backbone_of(model)
        if list(backbone.parameters()) and not any(id(module) in kept for module in backbone.modules()):
            self.modules = [backbone]
        else:
            self.modules = _without(unadapted(model), kept)
        for module in self.modules:
            module.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError("freeze_backbone leaves nothing to train: the head's own parameters are frozen.")

    def evaluate(self) -> None:
        """Put the frozen layers into evaluation mode; to be called after `model.train()`."""
        for module in self.modules:
            module.eval()


def _without(module: nn.Module, kept: set[int]) -> list[nn.Module]:
    """The largest parts of a module that hold parameters and none of the modules to keep."""
    if id(module) in kept:
        return []
    if not any(id(part) in kept for part in module.modules()):
        return [module] if list(module.parameters()) else []
    return [part for child in module.children() for part in _without(child, kept)]
