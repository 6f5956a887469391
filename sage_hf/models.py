"""What users bring as models: transformers' own, adapted by peft, or any module; and how each is read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel


def unadapted(model: nn.Module) -> nn.Module:
    """The model inside a `peft.PeftModel`, any other model as it is."""
    get_base_model: Any = getattr(model, "get_base_model", None)
    return model if get_base_model is None else get_base_model()


def backbone_of(model: nn.Module) -> nn.Module:
    """What transformers calls the base model; an empty module if the model says nothing of it."""
    model = unadapted(model)
    backbone = getattr(model, "base_model", model)
    return nn.Module() if backbone is model else backbone


def is_adapted(model: nn.Module) -> bool:
    """Whether a model is a `peft.PeftModel`."""
    return unadapted(model) is not model


def output_names(config: PreTrainedConfig) -> list[str]:
    """What a model's outputs are called, in the order of their indices; `LABEL_0`, ... if its config does not say."""
    outputs = int(config.num_labels or 0)
    names = [str(label) for _, label in sorted((config.id2label or {}).items())]
    # PVT's config keeps the number of labels beside their names, which may be missing.
    return names if len(names) == outputs else [f"LABEL_{index}" for index in range(outputs)]


def output_size(module: nn.Module) -> int | None:
    """Number of outputs of a linear layer or 1x1 convolution, which could make logits; `None` for other layers."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
        return module.out_channels
    # peft wraps the layers that it adapts, and those that it trains in full: the wrapper stands for the layer.
    wrapped = getattr(module, "base_layer", None) or getattr(module, "original_module", None)
    return output_size(wrapped) if isinstance(wrapped, nn.Module) else None


def why_unsupported(model: nn.Module | type[nn.Module]) -> str | None:
    """
    Why a model, or a class of models, can't be guided by maps over pixels; `None` if nothing speaks against it.

    Example:

    ```python
    >>> from transformers import ImageGPTForImageClassification
    >>> from sage_hf.models import why_unsupported
    >>> why_unsupported(ImageGPTForImageClassification)
    'ImageGPTForImageClassification takes tokens (input_ids), not pictures, so there are no pixels to guide.'

    ```
    """
    kind = model if isinstance(model, type) else type(unadapted(model))
    if not issubclass(kind, PreTrainedModel):
        return None
    parameters = inspect.signature(kind.forward).parameters
    if kind.main_input_name == "input_ids":
        return f"{kind.__name__} takes tokens (input_ids), not pictures, so there are no pixels to guide."
    if "spatial_shapes" in parameters:
        return (
            f"{kind.__name__} takes pictures cut into lists of patches (spatial_shapes), which views can't be made of."
        )
    return None


def takes_interpolation(model: nn.Module) -> bool:
    """
    Whether a model fits its position encodings to the size of its pictures when it is asked to: by an argument of its
    own, or by one that it passes on to a part of it.
    """
    parameters = inspect.signature(model.forward).parameters
    if "interpolate_pos_encoding" in parameters:
        return True
    passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return passes_on and any(
        takes_interpolation(child) for child in model.children() if isinstance(child, PreTrainedModel)
    )


def logits_of(output: Any) -> Tensor:
    """
    The logits, (batch, labels), in whatever a model returns: transformers' outputs, a mapping with `logits`, a tuple
    that starts with them, or a bare tensor.

    Raises:
        `TypeError`: there are none.
    """
    logits = output
    if isinstance(output, Mapping):
        # PP-LCNet calls its logits the last hidden state.
        logits = output["logits"] if "logits" in output else output.get("last_hidden_state")
    elif not isinstance(output, Tensor):
        logits = output[0] if isinstance(output, (tuple, list)) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise TypeError(f"The model returned {type(output).__name__} without logits of (batch, labels).")
    return logits
