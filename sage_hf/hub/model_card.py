"""The model card, written from the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, StrictUndefined
from transformers import PreTrainedConfig

from ..training_args import SageTrainingArguments

MARKER = "<!-- Written by sage_hf. Remove this line to keep your own edits: the card is then left alone. -->"


def template_path() -> Path:
    """The template, from the wheel or from the source tree."""
    packed = Path(__file__).with_name("model_card.md")
    return packed if packed.is_file() else Path(__file__).parents[2] / "model_cards" / "model_card.md"


def write_model_card(
    folder: str | Path,
    *,
    model_name: str,
    repo_id: str,
    classes: list[str],
    sage: dict[str, Any],
    hyperparameters: dict[str, Any],
    metrics: dict[str, dict[str, float]],
    annotated: float | None = None,
    base_model: str | None = None,
    dataset: str | None = None,
    license: str | None = None,
    tags: list[str] | None = None,
    loading: str = "transformers",
) -> Path | None:
    """
    Write `README.md` into a checkpoint's folder.

    Args:
        folder (`str` or `Path`): the checkpoint.
        model_name (`str`): the title.
        repo_id (`str`): what the card's example loads.
        classes (`list[str]`): names in the order of their indices.
        sage (`dict`): the `sage` key of the model's config.
        hyperparameters (`dict`): what else was set.
        metrics (`dict[str, dict[str, float]]`): measured values by split and metric; nothing that was not measured.
        annotated (`float`, *optional*): share of trained rows that had a map, in [0, 1].
        base_model (`str`, *optional*): Hub id of the model that was fine-tuned.
        dataset (`str`, *optional*): Hub id of the dataset.
        license (`str`, *optional*): identifier of the licence.
        tags (`list[str]`, *optional*): tags on the Hub.
        loading (`str`, *optional*, defaults to `"transformers"`): what it is loaded with, see [`how_to_load`].

    Returns:
        `Path`: the card; `None` if there is one that a person has made their own, which is left alone.
    """
    path = Path(folder) / "README.md"
    if path.exists() and MARKER not in path.read_text(encoding="utf-8"):
        return None
    settings = {name: value for name, value in sage.items() if name != "versions"}
    guidance = settings["guidance"]
    source = f"[{base_model}](https://huggingface.co/{base_model})" if base_model else "A local model"
    trained_on = f"[{dataset}](https://huggingface.co/datasets/{dataset})" if dataset else "local data"
    how = "without saliency guidance" if guidance == "none" else f"guided by human saliency maps (`{guidance}`)"
    data = ModelCardData(
        base_model=base_model,
        datasets=[dataset] if dataset else None,
        library_name={"adapter": "peft", "module": "pytorch"}.get(loading, "transformers"),
        license=license,
        pipeline_tag="image-classification",
        tags=tags,
    )
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    text = environment.from_string(template_path().read_text(encoding="utf-8")).render(
        annotated=annotated,
        card_data=data.to_yaml(),
        classes=classes,
        guidance=guidance,
        loading=loading,
        marker=MARKER,
        metric_names=list(dict.fromkeys(name for values in metrics.values() for name in values)),
        metrics=metrics,
        model_name=model_name,
        repo_id=repo_id,
        settings=settings | hyperparameters,
        summary=f"{source}, trained with sage_hf on {trained_on}, {how}.",
        versions=", ".join(f"{name} {version}" for name, version in sage.get("versions", {}).items()),
    )
    path.write_text(text, encoding="utf-8")
    return path


CARD_HYPERPARAMETERS = (
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "optim",
    "weight_decay",
    "label_smoothing_factor",
    "class_weights",
    "freeze_backbone",
    "random_crop_scale",
    "horizontal_flip",
    "color_jitter",
    "seed",
)


def write_run_card(
    args: SageTrainingArguments,
    config: PreTrainedConfig,
    *,
    annotated: float | None,
    own_tags: list[str],
    model_name: str | None = None,
    finetuned_from: str | None = None,
    tags: str | list[str] | None = None,
    **given: Any,
) -> Path | None:
    """
    Write the card of a run into its output folder, as [`write_model_card`] does.

    Args:
        args ([`SageTrainingArguments`]): the run's.
        config ([`~transformers.PreTrainedConfig`]): the model's, with the `sage` key.
        annotated (`float`, *optional*): share of trained rows that had a map, in [0, 1].
        own_tags (`list[str]`): tags of every card.
        model_name (`str`, *optional*): the title; the folder's name if not given.
        finetuned_from (`str`, *optional*): Hub id of the model that was fine-tuned; the config's if not given.
        tags (`str` or `list[str]`, *optional*): more tags.
        **given: `metrics`, `dataset`, `license`, `loading`, as for [`write_model_card`]; anything else is left out.
    """
    folder, arguments = Path(str(args.output_dir)), args.to_dict()
    name = folder.resolve().name
    source = finetuned_from or getattr(config, "_name_or_path", "")
    return write_model_card(
        folder,
        model_name=model_name or name,
        classes=[str(label) for _, label in sorted((config.id2label or {}).items())],
        sage=config.sage,
        hyperparameters={name: arguments[name] for name in CARD_HYPERPARAMETERS},
        metrics=given.get("metrics") or {},
        annotated=annotated,
        # A local path says nothing to others, and may say too much.
        base_model=source if source and not Path(source).exists() else None,
        dataset=given.get("dataset"),
        repo_id=args.hub_model_id or name,
        license=given.get("license"),
        loading=given.get("loading", "transformers"),
        tags=[*own_tags, *([tags] if isinstance(tags, str) else tags or [])],
    )
