"""What is known of a run: everything that its card says, ready for JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, TrainerState

from ..models import output_names
from ..objectives import GUIDANCE
from ..training_args import SageTrainingArguments

RECORD = "run.json"
"""Name of the file beside a checkpoint."""

HYPERPARAMETERS = (
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "weight_decay",
    "max_grad_norm",
    "label_smoothing_factor",
    "class_weights",
    "freeze_backbone",
    "random_crop_scale",
    "horizontal_flip",
    "color_jitter",
    "bf16",
    "fp16",
    "torch_compile",
    "activation_checkpointing",
    "seed",
)
TIMING = ("_runtime", "_per_second", "_preparation_time", "data_wait")
"""How the names of those figures end that Trainer measures of itself."""

LOG_ROWS = 20
"""Rows of the training log that a card shows at most."""


@dataclass
class RunRecord:
    """
    A run, without local paths and tokens. Values that were not measured are `None` or missing, never guessed.

    Args:
        model_name (`str`): title of the card.
        loading (`str`): what it is loaded with, see [`~sage_hf.heads.how_to_load`].
        problem_type (`str`): see [`~sage_hf.tasks.Task`].
        classes (`list[str]`): names of the outputs, in order.
        sage (`dict`): the `sage` key of the model's config, without versions.
        hyperparameters (`dict`): what else was set.
        world_size (`int`): number of processes.
        versions (`dict[str, str]`): of the packages.
        hardware (`str`): what it was trained on.
        repo_id (`str`, *optional*): where it is published.
        base_model (`str`, *optional*): Hub id of what was fine-tuned.
        base_model_revision (`str`, *optional*): its commit.
        dataset (`str`, *optional*): Hub id of the data.
        dataset_revision (`str`, *optional*): its commit.
        description (`str`, *optional*): what it is and what for, in words.
        annotation (`str`, *optional*): how the maps came about, in words.
        annotated (`float`, *optional*): share of trained rows that had a map, in [0, 1].
        skipped_rows (`dict`, *optional*): training rows that could not be used and were left out: how many, how often
            one had its turn, and why; see [`SageTrainer.skipped_rows`].
        seconds (`float`, *optional*): training time.
        energy (`dict[str, float]`, *optional*): `kwh` and `co2_kg`, as codecarbon measured them.
        log (`list[dict]`): rows of the training log by step.
        kept_step (`int`, *optional*): the step whose weights were kept.
        metrics (`dict`): by split and metric, a number, or one with `low` and `high`, the ends of its 95% interval.
        saliency_alignment (`dict`): by split, see [`~sage_hf.evaluation.model_alignment`].
        compared (`list[dict]`): other runs on the same data: `guidance`, `saliency_control`, `seed`, `metrics`.
        pictures (`dict[str, str]`): captions by file name.
        license (`str`, *optional*): identifier of the licence.
        tags (`list[str]`): tags on the Hub.
    """

    model_name: str
    loading: str
    problem_type: str
    classes: list[str]
    sage: dict[str, Any]
    hyperparameters: dict[str, Any]
    world_size: int
    versions: dict[str, str]
    hardware: str
    repo_id: str | None = None
    base_model: str | None = None
    base_model_revision: str | None = None
    dataset: str | None = None
    dataset_revision: str | None = None
    description: str | None = None
    annotation: str | None = None
    annotated: float | None = None
    skipped_rows: dict[str, Any] | None = None
    seconds: float | None = None
    energy: dict[str, float] | None = None
    log: list[dict[str, float]] = field(default_factory=list)
    kept_step: int | None = None
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    saliency_alignment: dict[str, dict[str, Any]] = field(default_factory=dict)
    compared: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)
    license: str | None = None
    tags: list[str] = field(default_factory=list)

    def save(self, folder: str | Path) -> None:
        """Write `run.json` into a folder."""
        (Path(folder) / RECORD).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> RunRecord:
        """
        Read `run.json` of a folder; keys that this version does not know are left out.

        Raises:
            `FileNotFoundError`: there is none.
        """
        values = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def changed_settings(self) -> dict[str, Any]:
        """The method's settings that differ from the defaults of the objective, then all others."""
        objective = GUIDANCE.get(self.sage.get("guidance", ""))
        defaults = {} if objective is None else {one.name: one.default for one in fields(objective)}
        changed = {name: value for name, value in self.sage.items() if name in defaults and value != defaults[name]}
        settings = changed | self.sage
        if "left_out" in settings:
            left_out = settings["left_out"]
            settings["left_out"] = f"{', '.join(left_out['values'])} (column {left_out['column']})"
        return settings


def record_run(
    args: SageTrainingArguments,
    config: PreTrainedConfig,
    state: TrainerState,
    *,
    loading: str,
    annotated: float | None,
    skipped_rows: dict[str, Any] | None,
    energy: dict[str, float] | None,
    own_tags: list[str],
    given: dict[str, Any],
) -> RunRecord:
    """
    Gather what arguments, config and state say of a run.

    Args:
        args ([`SageTrainingArguments`]): the run's.
        config ([`~transformers.PreTrainedConfig`]): the model's, with the `sage` key.
        state ([`~transformers.TrainerState`]): with the log.
        loading (`str`): see [`RunRecord`].
        annotated (`float`, *optional*): see [`RunRecord`].
        skipped_rows (`dict`, *optional*): see [`RunRecord`].
        energy (`dict[str, float]`, *optional*): see [`RunRecord`].
        own_tags (`list[str]`): tags of every card.
        given (`dict`): what `create_model_card` was given: fields of [`RunRecord`], and `finetuned_from` of `Trainer`.
    """
    arguments, folder = args.to_dict(), Path(str(args.output_dir)).resolve()
    known = {one.name for one in fields(RunRecord)}
    told = {name: value for name, value in given.items() if name in known and value is not None}
    source = told.pop("base_model", None) or given.get("finetuned_from") or getattr(config, "_name_or_path", "")
    tags = told.pop("tags", [])
    sage = dict(getattr(config, "sage", {}))
    versions = sage.pop("versions", {})
    runtimes = [entry["train_runtime"] for entry in state.log_history if "train_runtime" in entry]
    found: dict[str, Any] = {
        "model_name": folder.name,
        "problem_type": str(config.problem_type),
        "classes": output_names(config),
        "sage": sage,
        "hyperparameters": {name: arguments[name] for name in HYPERPARAMETERS},
        "world_size": args.world_size,
        "versions": versions,
        "hardware": hardware(args.device, args.world_size),
        "repo_id": args.hub_model_id or folder.name,
        # Of a resumed run, the time of its last part alone is known.
        "seconds": runtimes[-1] if runtimes and not args.resume_from_checkpoint else None,
        "log": training_log(state),
        "kept_step": _kept_step(args, state),
        "annotated": annotated,
        "skipped_rows": skipped_rows,
        "energy": energy,
    }
    return RunRecord(
        **found | told,
        loading=loading,
        # A local path says nothing to others, and may say too much.
        base_model=source if source and not Path(source).exists() else None,
        tags=[*own_tags, *([tags] if isinstance(tags, str) else tags)],
    )


def energy_of(callbacks: list[Any]) -> dict[str, float] | None:
    """What transformers' codecarbon callback measured, in kWh and kg of CO2; `None` if it was not among them."""
    for callback in callbacks:
        data = getattr(getattr(callback, "tracker", None), "final_emissions_data", None)
        if data is not None:
            return {"kwh": data.energy_consumed, "co2_kg": data.emissions}
    return None


def hardware(device: torch.device, world_size: int) -> str:
    """What a run was computed on, in words."""
    if device.type == "cuda":
        return f"{world_size} x {torch.cuda.get_device_name(device)}"
    return f"{platform.machine()} {device.type.upper()}, {os.cpu_count()} cores"


def training_log(state: TrainerState) -> list[dict[str, float]]:
    """What was logged at each step, training and evaluation together; without what Trainer measures of itself."""
    rows: dict[int, dict[str, float]] = {}
    for entry in state.log_history:
        if "train_runtime" in entry:
            continue
        kept = {
            name: value
            for name, value in entry.items()
            if isinstance(value, (int, float)) and not name.endswith(TIMING)
        }
        rows.setdefault(int(entry["step"]), {}).update(kept)
    return [rows[step] for step in sorted(rows)]


def shown_log(log: list[dict[str, float]], kept_step: int | None) -> list[dict[str, float]]:
    """At most `LOG_ROWS` rows, evenly spread, the last and the kept one among them."""
    if len(log) <= LOG_ROWS:
        return log
    last = len(log) - 1
    chosen = {round(index * last / (LOG_ROWS - 2)) for index in range(LOG_ROWS - 1)}
    chosen |= {index for index, row in enumerate(log) if row.get("step") == kept_step}
    return [log[index] for index in sorted(chosen)]


def _kept_step(args: SageTrainingArguments, state: TrainerState) -> int | None:
    """The best step if it was loaded, which Trainer does when all is done; the latest otherwise."""
    done = any("train_runtime" in entry for entry in state.log_history)
    if args.load_best_model_at_end and done and state.best_global_step:
        return state.best_global_step
    return state.global_step or None
