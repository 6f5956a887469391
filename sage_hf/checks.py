"""What can be known to go wrong before training starts: the model and the output folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from accelerate import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, logging

from .embeddings import find_classification_heads
from .features import fused_attention_message
from .heads import ADAPTER_CONFIG
from .models import is_adapted, unadapted, why_unsupported
from .objectives import Objective
from .objectives.base import NEEDS
from .training_args import SageTrainingArguments

logger = logging.get_logger(__name__)
RUN_FILES = ("config.json", "model.safetensors", "model.safetensors.index.json", "trainer_state.json", "checkpoint-*")
"""What a run leaves behind."""


def check_output_dir(output_dir: str | Path | None, resume_from_checkpoint: str | bool | None = None) -> None:
    """
    Refuse a folder that holds another run.

    Args:
        output_dir (`str` or `Path`, *optional*): the folder.
        resume_from_checkpoint (`str` or `bool`, *optional*): what training resumes from. A run may go on in its own
            folder, so `True` and a checkpoint in `output_dir` are fine; a checkpoint from elsewhere is another run.

    Raises:
        `FileExistsError`: the message names what was found.
    """
    if output_dir is None or resume_from_checkpoint is True:
        return
    if resume_from_checkpoint and Path(resume_from_checkpoint).resolve().parent == Path(output_dir).resolve():
        return
    found = sorted(path.name for pattern in RUN_FILES for path in Path(output_dir).glob(pattern))
    if found:
        raise FileExistsError(
            f"{output_dir} already holds a run ({', '.join(found[:4])}{', ...' if len(found) > 4 else ''}). Choose "
            "another output_dir, resume with resume_from_checkpoint=True, or move the old run away."
        )


def check_checkpoint(folder: Path, config: PreTrainedConfig) -> None:
    """
    Refuse to resume from a checkpoint of another model.

    Args:
        folder (`Path`): the checkpoint.
        config ([`~transformers.PreTrainedConfig`]): of the model that is to be trained.

    Raises:
        `ValueError`: the message names what differs: the kind of model, its classes, or a size.
    """
    file = next((folder / name for name in (ADAPTER_CONFIG, CONFIG_NAME) if (folder / name).is_file()), None)
    if file is None:
        return
    # Both as JSON, where keys are text and tuples are lists.
    saved, here = json.loads(file.read_text(encoding="utf-8")), json.loads(config.to_json_string(use_diff=False))
    names = ["model_type", "id2label", *(name for name in saved if _is_size(saved[name]))]
    differing = [name for name in names if name in saved and name in here and saved[name] != here[name]]
    if differing:
        said = "; ".join(f"{name} {_short(saved[name])}, here {_short(here[name])}" for name in differing[:3])
        raise ValueError(f"{folder} is a checkpoint of another model: {said}. Give the model that it is of.")


def _is_size(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(one, int) and not isinstance(one, bool) for one in values)


def _short(value: Any) -> str:
    text = ", ".join(map(str, value.values())) if isinstance(value, dict) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_model(
    model: nn.Module, config: PreTrainedConfig, args: SageTrainingArguments, objective: Objective | None
) -> None:
    """
    Refuse a model or a setting that would train wrongly, and warn of one that would guide little.

    Args:
        model (`torch.nn.Module`): the unwrapped model.
        config ([`~transformers.PreTrainedConfig`]): the model's, or one that stands for it; its problem type is set.
        args ([`SageTrainingArguments`]): the settings.
        objective ([`Objective`], *optional*): what guides.

    Raises:
        `ValueError`: the message says what doesn't go together.
    """
    if (reason := why_unsupported(model)) is not None:
        raise ValueError(reason)
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError(
            "Trainer can't resume a model with adapters of its own: use peft.get_peft_model(model, config) in place "
            "of model.add_adapter(config)."
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "No parameter of the model is trainable. Load an adapter with is_trainable=True to go on with it."
        )
    if is_adapted(model):
        if args.freeze_backbone:
            raise ValueError(
                "freeze_backbone would freeze the adapters: leave it out, adapters freeze the backbone too."
            )
        for head in find_classification_heads(model, args.embedding_layer):
            if not hasattr(model.get_submodule(head), "modules_to_save"):
                name = head.removeprefix("base_model.model.")
                raise ValueError(
                    f"The adapter does not save the head {name!r}, so that it would be lost with the checkpoint: give "
                    f"its config modules_to_save=[{name!r}]."
                )
    if objective is None:
        return
    problem_type = getattr(objective, "problem_type", config.problem_type)
    if problem_type != config.problem_type:
        raise ValueError(
            f"The objective is for problem_type={problem_type!r}, the model for {config.problem_type!r}. Give the "
            f"objective problem_type={config.problem_type!r}, or leave it to the arguments."
        )
    batch_size = args.per_device_train_batch_size
    if batch_size < max(objective.fewest_rows):
        raise ValueError(
            f"per_device_train_batch_size={batch_size} is too small: mixing pictures needs another row of the batch. "
            "Use 2 or more, or degradation='blur', 'noise' or 'mean'."
        )
    if args.guidance_interval > 1 and args.max_grad_norm:
        # training/benchmarks/ablations.py: an interval of 4 keeps 0.33 of the gain, and 0.77 without clipping.
        logger.warning(
            "guidance_interval=%d multiplies the guidance's weights at every so many steps, and max_grad_norm=%g cuts "
            "such steps down: set max_grad_norm to 0, or guide some rows of every step by guidance_one_in.",
            args.guidance_interval,
            args.max_grad_norm,
        )
    check_needs(model, args, objective.needs)


def check_needs(model: nn.Module, args: SageTrainingArguments, needs: frozenset[str]) -> None:
    """
    Refuse a model or a way to train that can't give an objective what it needs.

    Args:
        model (`torch.nn.Module`): the unwrapped model.
        args ([`SageTrainingArguments`]): the settings.
        needs (`frozenset[str]`): see [`Objective.needs`].

    Raises:
        `ValueError`: the message says what to change.
    """
    if unknown := needs - NEEDS:
        raise ValueError(f"The objective needs {sorted(unknown)}; what can be asked for is {sorted(NEEDS)}.")
    inner = unadapted(model)
    twice = needs & {"input_gradients", "features"}
    if twice and args.torch_compile:
        raise ValueError("This guidance differentiates twice, which compiled models can't: leave torch_compile out.")
    checkpointing = args.activation_checkpointing_kwargs
    if twice and isinstance(checkpointing, dict) and checkpointing.get("use_reentrant"):
        raise ValueError(
            "This guidance differentiates twice: set activation_checkpointing_kwargs to {'use_reentrant': False}."
        )
    fused = any(
        isinstance(module, PreTrainedModel)
        and module._supports_sdpa
        and module.config._attn_implementation not in (None, "eager")
        for module in inner.modules()
    )
    if "input_gradients" in needs and fused:
        raise ValueError(fused_attention_message(type(inner).__name__))
    if "attention" in needs and not isinstance(inner, PreTrainedModel):
        raise ValueError(f"Of {type(inner).__name__}, no model of transformers, attention can't be read to be guided.")
    if "attention" in needs and fused:
        raise ValueError(
            f"{type(inner).__name__} computes attention in one fused kernel, which does not tell what it attends to. "
            'Load the model with attn_implementation="eager".'
        )


def check_split_model(objective: Objective | None, view_forward: str) -> None:
    """
    Refuse what a model whose weights are split over processes (FSDP, DeepSpeed ZeRO-3) can't do.

    Its processes gather the weights together, so each must call it as often as the others, whatever its rows hold.

    Args:
        objective ([`Objective`], *optional*): what guides.
        view_forward (`str`): of [`~sage_hf.forwarding.Encoder`], which `"auto"` is resolved by.

    Raises:
        `ValueError`: views pass apart from pictures, or the guidance differentiates twice.
    """
    if objective is None:
        return
    if view_forward != "concatenated" and getattr(type(objective), "views", None) is not Objective.views:
        raise ValueError(
            f"Views pass apart from pictures (view_forward={view_forward!r}), and processes that split a model (FSDP, "
            "ZeRO-3) would wait for each other. Use view_forward='concatenated', or copies of the model (DDP)."
        )
    if objective.needs & {"input_gradients", "features"}:
        raise ValueError(
            "This guidance differentiates twice, which a model that is split over processes (FSDP, ZeRO-3) can't. Use "
            "copies of the model (DDP)."
        )


def check_read_apart(**asked: object) -> None:
    """
    Refuse what passes pictures through a split model on some of its processes.

    Args:
        **asked: by the names of arguments, what is to be done after training; nothing if false.

    Raises:
        `ValueError`: one of them was asked for.
    """
    for name, value in asked.items():
        if value:
            raise ValueError(
                f"{name} passes pictures through the model on some processes, and those that split a model (FSDP, "
                "ZeRO-3) would wait for each other. Leave it out: `sage-hf evaluate` and `view` read the saved model."
            )


def check_split_model_is_saved(
    fsdp_plugin: FullyShardedDataParallelPlugin | None, deepspeed_plugin: DeepSpeedPlugin | None = None
) -> None:
    """
    Refuse FSDP and ZeRO-3 that would leave no model behind, and FSDP that was asked for in vain.

    Args:
        fsdp_plugin (`accelerate.FullyShardedDataParallelPlugin`, *optional*): of the accelerator, if it has one.
        deepspeed_plugin (`accelerate.DeepSpeedPlugin`, *optional*): the same.

    Raises:
        `ValueError`: checkpoints are in pieces of which Trainer makes no model; or a launcher was told to split the
            model, and accelerate trains copies of it, as it does on CPUs.
    """
    gathers = "zero_optimization.stage3_gather_16bit_weights_on_model_save"
    zero = None if deepspeed_plugin is None else deepspeed_plugin.hf_ds_config
    if zero is not None and zero.is_zero3() and not zero.is_true(gathers):
        raise ValueError(
            "With ZeRO-3 as it is, checkpoints can be resumed, but no model is saved. Set zero3_save_16bit_model "
            "(--zero3_save_16bit_model true), as training/accelerate/zero3.yaml does."
        )
    if fsdp_plugin is None:
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
            raise ValueError("accelerate splits models (FSDP) over GPUs alone. Leave the CPU out, or FSDP.")
        return
    if "FULL_STATE_DICT" not in str(fsdp_plugin.state_dict_type):
        raise ValueError(
            "With this fsdp_state_dict_type, checkpoints can be resumed, but no model is saved. Set FULL_STATE_DICT "
            "(--fsdp_state_dict_type FULL_STATE_DICT), as training/accelerate/fsdp2.yaml does."
        )
