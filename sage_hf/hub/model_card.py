"""The model card, written from the record of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, StrictUndefined, TemplateSyntaxError

from ..objectives import GUIDANCE
from .results import eval_results, value_of, write_eval_results
from .run_record import RunRecord, shown_log
from .sections import refresh, section
from .templates import template_path

LIBRARIES = {"adapter": "peft", "module": "pytorch"}


def write_model_card(folder: str | Path, record: RunRecord, template: str | Path | None = None) -> Path:
    """
    Write a run's `README.md`, `run.json` and `.eval_results/` into its folder.

    A card that is there already is refreshed: what people edited in it stays, see [`~sage_hf.hub.sections.refresh`].

    Args:
        folder (`str` or `Path`): the checkpoint.
        record ([`RunRecord`]): the run.
        template (`str` or `Path`, *optional*): a Jinja template of your own. It is given `record`, `card_data` (the
            front matter), `settings` and `hyperparameters` (those that are set), `log`, `log_columns`, `metric_names`,
            `has_intervals`, `compared_splits`, `figure(value)`, `point(value)` (without its interval), `maps_of(run)`,
            and `section(name)` for `{% call section("results") %} ... {% endcall %}`, which a later card may refresh.

    Returns:
        `Path`: the card.
    """
    folder = Path(folder)
    write_record(folder, record)
    path, text = folder / "README.md", render_model_card(record, template)
    if path.is_file():
        text = refresh(path.read_text(encoding="utf-8"), text)
    path.write_text(text, encoding="utf-8")
    return path


def write_record(folder: Path, record: RunRecord) -> None:
    """Write `run.json` and `.eval_results/`, which say the same as the card, for programs."""
    record.save(folder)
    write_eval_results(record, folder)


def check_template(template: str | Path) -> None:
    """
    Read a template of one's own before there is anything to write with it.

    Raises:
        `FileNotFoundError`: there is no such file.
        `ValueError`: it is no Jinja template.
    """
    try:
        Environment().parse(Path(template).read_text(encoding="utf-8"))
    except TemplateSyntaxError as error:
        raise ValueError(f"{template}, line {error.lineno}, is no Jinja template: {error.message}") from None


def render_model_card(record: RunRecord, template: str | Path | None = None) -> str:
    """The text of a card, see [`write_model_card`]."""
    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    source = Path(template) if template is not None else template_path("model_card.md")
    log = shown_log(record.log, record.kept_step)

    def named_section(name: str, caller: Callable[[], str]) -> str:
        return section(name, caller())

    return environment.from_string(source.read_text(encoding="utf-8")).render(
        record=record,
        card_data=card_data(record).to_yaml(),
        settings=_set(record.changed_settings()),
        hyperparameters=_set(record.hyperparameters),
        log=log,
        log_columns=list(dict.fromkeys(name for row in log for name in row if name not in ("step", "epoch"))),
        metric_names=list(dict.fromkeys(name for values in record.metrics.values() for name in values)),
        has_intervals=any(isinstance(value, dict) for values in record.metrics.values() for value in values.values()),
        compared_splits={split for run in record.compared for split in run["metrics"]},
        figure=_figure,
        point=lambda figure: "" if figure is None else _figure(value_of(figure)),
        maps_of=_maps_of,
        objectives=GUIDANCE,
        section=named_section,
    )


def card_data(record: RunRecord) -> ModelCardData:
    """The front matter: what the Hub searches by."""
    results = eval_results(record)
    extra: dict[str, Any] = {}
    if record.base_model is not None:
        extra["base_model_relation"] = "adapter" if record.loading == "adapter" else "finetune"
    if record.energy is not None:
        extra["co2_eq_emissions"] = {"emissions": 1000 * record.energy["co2_kg"], "source": "codecarbon"}
    return ModelCardData(
        base_model=record.base_model,
        datasets=[record.dataset] if record.dataset else None,
        eval_results=results or None,
        library_name=LIBRARIES.get(record.loading, "transformers"),
        license=record.license,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=record.model_name if results else None,
        pipeline_tag="image-classification",
        tags=record.tags or None,
        **extra,
    )


def _set(values: dict[str, Any]) -> dict[str, Any]:
    """What is on and was set: no `None`, no `False`, and not the -1 of `max_steps` that means none."""
    return {name: value for name, value in values.items() if value is not None and value is not False and value != -1}


def _maps_of(run: dict[str, Any]) -> str:
    if run.get("guidance") == "none":
        return "not used"
    control = run.get("saliency_control", "none")
    return "as they are" if control == "none" else control


def _figure(value: Any) -> str:
    """A number to four digits, with its interval if it has one."""
    if value is None:
        return ""
    if isinstance(value, dict):
        if "low" not in value:
            return f"{value['value']:.4f}"
        return f"{value['value']:.4f} ({value['low']:.4f} to {value['high']:.4f})"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
