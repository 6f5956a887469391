"""A classification head for every vision model of transformers, also for those that come without one."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from .models import is_adapted

HUB_ARGUMENTS = (
    "token",
    "cache_dir",
    "local_files_only",
    "force_download",
    "proxies",
    "subfolder",
    "trust_remote_code",
)
"""Arguments that say how to get at a repository's files, wherever files are read."""

ADAPTER_CONFIG = "sage_config.json"
"""Class names, problem type and settings, beside an adapter: what the config of a whole model would hold."""


class BackboneClassifier(PreTrainedModel):
    """
    A backbone of transformers with a linear layer on its pooled output: the base of what
    [`load_image_classifier`] makes for a backbone that transformers has no classifier for, such as DINOv3 and the
    vision towers of CLIP and SigLIP.

    What is pooled is the backbone's own `pooler_output`, or the mean of its last hidden state if it has none.

    It is saved as the backbone itself, with the head's weights beside: `AutoModel.from_pretrained` loads the backbone
    where sage_hf is not installed, and `load_image_classifier` loads both.
    """

    base_model_prefix = "backbone"
    main_input_name = "pixel_values"

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.backbone = AutoModel.from_config(config)
        self.classifier = nn.Linear(_width(self.backbone), int(config.num_labels or 0))
        self.post_init()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any) -> ImageClassifierOutput:
        """Logits, (batch, labels), of pictures (batch, channels, height, width); their loss if labels are given."""
        outputs = self.backbone(pixel_values, **kwargs)
        logits = self.classifier(_pooled(outputs))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=getattr(outputs, "hidden_states", None),
            attentions=getattr(outputs, "attentions", None),
        )

    def save_pretrained(
        self, save_directory: Any, *args: Any, state_dict: dict[str, Tensor] | None = None, **kwargs: Any
    ) -> None:
        """As in `PreTrainedModel`, under the backbone's own names."""
        state = self.state_dict() if state_dict is None else state_dict
        renamed = {name.removeprefix(f"{self.base_model_prefix}."): tensor for name, tensor in state.items()}
        self.backbone.save_pretrained(save_directory, *args, state_dict=renamed, **kwargs)


def _pooled(outputs: Any) -> Tensor:
    pooled = getattr(outputs, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    last = outputs.last_hidden_state
    return last.mean(dim=1) if last.ndim == 3 else last.mean(dim=(2, 3))


def _width(backbone: PreTrainedModel) -> int:
    """How many numbers a backbone's pooled output has; configs name it differently, so the backbone is asked."""
    config: Any = backbone.config
    size = config.image_size if isinstance(getattr(config, "image_size", None), int) else 224
    was_training = backbone.training
    backbone.eval()
    with torch.no_grad():
        parameter = next(backbone.parameters())
        pictures = torch.zeros(1, config.num_channels, size, size, dtype=parameter.dtype, device=parameter.device)
        outputs = backbone(pictures)
    backbone.train(was_training)
    if getattr(outputs, "mask", None) is not None:
        raise ValueError(
            f"{type(backbone).__name__} hides patches of its pictures at random, in evaluation as well. Load its "
            "weights into the plain architecture, such as ViTForImageClassification for ViT-MAE."
        )
    return _pooled(outputs).shape[1]


def how_to_load(model: nn.Module) -> str:
    """
    What a saved model is loaded with: `"transformers"`, `"backbone"` (a [`BackboneClassifier`]), `"adapter"`, or
    `"module"` for one that is not of transformers.
    """
    if is_adapted(model):
        return "adapter"
    if isinstance(model, BackboneClassifier):
        return "backbone"
    return "transformers" if isinstance(model, PreTrainedModel) else "module"


@cache
def image_classifier_class(kind: type[PreTrainedConfig]) -> type[PreTrainedModel]:
    """
    The class that classifies pictures for a type of config: transformers' own, or its backbone with a head.

    Raises:
        `ValueError`: models of this type don't take pictures.
    """
    if kind in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        found: Any = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[kind]
        return found[0] if isinstance(found, tuple) else found
    backbone: Any = MODEL_MAPPING.get(kind, None)
    if backbone is None or list(inspect.signature(backbone.forward).parameters)[1] != "pixel_values":
        raise ValueError(
            f"Models of the type {kind.model_type!r} don't classify pictures. The types that do are those of "
            f"`sage-hf models`, and vision backbones that take pixel_values."
        )
    attributes = {
        "config_class": kind,
        "supports_gradient_checkpointing": backbone.supports_gradient_checkpointing,
        "_no_split_modules": backbone._no_split_modules,
        "_supports_sdpa": backbone._supports_sdpa,
        "_supports_flash_attn": backbone._supports_flash_attn,
    }
    name = backbone.__name__.removesuffix("Model") + "ForImageClassification"
    return type(name, (BackboneClassifier,), attributes)


def load_image_classifier(path: str | Path, *, revision: str = "main", **kwargs: Any) -> Any:
    """
    Load a checkpoint as an image classifier, with a new head if it has none that fits.

    Where transformers has a classifier for the checkpoint's architecture, this is
    `AutoModelForImageClassification.from_pretrained`. Other vision backbones (DINOv3, the towers of CLIP and SigLIP)
    get a linear layer on their pooled output, see [`BackboneClassifier`]. An adapter that [`SageTrainer`] saved is put
    on its base model, with the classes that it was trained for, as a `peft.PeftModel`.

    Args:
        path (`str` or `Path`): Hub id or folder.
        revision (`str`, *optional*, defaults to `"main"`): branch, tag or commit.
        **kwargs: as for `from_pretrained`: `num_labels`, `id2label`, `problem_type`, `ignore_mismatched_sizes`,
            `token`, ...; for an adapter also `is_trainable`, to go on training it.

    Raises:
        `ValueError`: models of this type don't classify pictures.

    Example:

    ```python
    >>> import tempfile
    >>> from transformers import DINOv3ViTConfig, DINOv3ViTModel
    >>> from sage_hf import load_image_classifier
    >>> config = DINOv3ViTConfig(
    ...     image_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     DINOv3ViTModel(config).save_pretrained(folder)
    ...     model = load_image_classifier(folder, num_labels=3)
    >>> type(model).__name__, model.classifier
    ('DINOv3ViTForImageClassification', Linear(in_features=16, out_features=3, bias=True))

    ```
    """
    hub = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
    lookup = _lookup(hub)
    if find_adapter_config_file(str(path), revision=revision, **lookup) is not None:
        return _load_adapter(str(path), revision, hub, kwargs)
    named = kwargs.get("id2label")
    if named is not None:
        kwargs.pop("num_labels", None)  # said twice, a change of both is warned of
    config: Any
    config, kwargs = AutoConfig.from_pretrained(path, revision=revision, return_unused_kwargs=True, **hub, **kwargs)
    if named is not None:
        config.num_labels = len(named)  # PVT's config keeps the number beside the names
    kind = image_classifier_class(type(config))  # type: ignore[arg-type]  # a type is hashable
    if issubclass(kind, BackboneClassifier):
        return kind.from_pretrained(path, config=config, revision=revision, **lookup, **kwargs)
    return AutoModelForImageClassification.from_pretrained(path, config=config, revision=revision, **hub, **kwargs)


def _lookup(hub: dict[str, Any]) -> dict[str, Any]:
    """What every lookup of files takes; whether to trust code is asked by the auto classes alone."""
    return {name: value for name, value in hub.items() if name != "trust_remote_code"}


def _load_adapter(path: str, revision: str, hub: dict[str, Any], kwargs: dict[str, Any]) -> Any:
    from peft import PeftConfig, PeftModel

    trainable = kwargs.pop("is_trainable", False)
    lookup = _lookup(hub)
    adapter = PeftConfig.from_pretrained(path, revision=revision, **lookup)
    if not adapter.base_model_name_or_path:
        raise ValueError(
            f"The adapter {path} does not say what it was trained on, because its base model was never loaded from a "
            "repository or folder. Make that model again, and use peft.PeftModel.from_pretrained(model, path)."
        )
    file = cached_file(path, ADAPTER_CONFIG, revision=revision, _raise_exceptions_for_missing_entries=False, **lookup)
    if file is not None:
        saved = PreTrainedConfig.from_json_file(file)
        kwargs = {
            "num_labels": saved.num_labels,
            "id2label": saved.id2label,
            "label2id": saved.label2id,
            "problem_type": saved.problem_type,
            "ignore_mismatched_sizes": True,
        } | kwargs
    own = {name: value for name, value in hub.items() if name != "subfolder"}
    base = load_image_classifier(adapter.base_model_name_or_path, revision=adapter.revision or "main", **own, **kwargs)
    if file is not None and hasattr(saved, "sage"):
        base.config.sage = saved.sage
    return PeftModel.from_pretrained(base, path, revision=revision, is_trainable=trainable, **lookup)
