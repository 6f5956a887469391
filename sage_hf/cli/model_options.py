"""What the command line changes of a checkpoint before training: the size of its pictures, low-rank adapters."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..embeddings import find_classification_heads
from ..models import takes_interpolation


def resize_inputs(processor: Any, side: int) -> None:
    """
    Make an image processor give square pictures of another size, with the share that it crops away unchanged.

    Args:
        processor ([`~transformers.BaseImageProcessor`]): changed in place.
        side (`int`): of the pictures, in pixels.

    Raises:
        `ValueError`: a processor without a size, or with one of a form that is not known here.

    Example:

    ```python
    >>> from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    >>> from sage_hf.cli.model_options import resize_inputs
    >>> processor = CLIPImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})
    >>> resize_inputs(processor, 448)
    >>> processor.size["shortest_edge"], processor.crop_size["height"]
    (512, 448)

    ```
    """
    size, crop = (
        {key: value for key, value in dict(getattr(processor, name, None) or {}).items() if value is not None}
        for name in ("size", "crop_size")
    )
    crops = bool(crop) and bool(getattr(processor, "do_center_crop", False))
    if side < 1 or set(size) not in ({"height", "width"}, {"shortest_edge"}):
        raise ValueError(f"image_size={side}: {type(processor).__name__} has the size {size}, which can't be set so.")
    factor = side / crop["height"] if crops else side / max(size.values())
    processor.size = (
        {name: round(value * factor) for name, value in size.items()} if crops else dict.fromkeys(size, side)
    )
    if crops:
        processor.crop_size = {"height": side, "width": side}


def needs_interpolation(model: PreTrainedModel, side: int) -> bool:
    """Whether a model has to be asked to fit its position encodings to square pictures of this side."""
    config: Any = model.config
    own = getattr(config, "image_size", None) or getattr(getattr(config, "vision_config", None), "image_size", None)
    if own is None or not takes_interpolation(model):
        return False
    return own not in (side, [side, side], (side, side))


def add_adapters(
    model: PreTrainedModel, rank: int, embedding_layer: str | None = None, *, revision: str | None = None
) -> nn.Module:
    """
    A model whose linear layers get low-rank adapters (LoRA), by peft, and whose head is trained in full.

    Args:
        model ([`~transformers.PreTrainedModel`]): its own weights are frozen.
        rank (`int`): of the adapters; their scale is twice the rank over the rank, 2.
        embedding_layer (`str`, *optional*): as for [`find_classification_heads`].
        revision (`str`, *optional*): of the model, which the adapter notes beside its name.

    Raises:
        `ImportError`: peft is not installed.
        `ValueError`: there is no linear layer but the head.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise ImportError("lora_rank needs peft: pip install peft.") from None
    heads = find_classification_heads(model, embedding_layer)
    if not any(isinstance(layer, nn.Linear) and name not in heads for name, layer in model.named_modules()):
        raise ValueError(
            f"lora_rank adapts linear layers, and {type(model).__name__} has none but its head. Leave it out; from "
            "Python, peft's LoraConfig can adapt convolutions by name."
        )
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", modules_to_save=heads)
    return get_peft_model(model, config, revision=revision)
