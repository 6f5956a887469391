"""
One change at a time to SAGE's defaults, on the validation digits of `digits_shortcut.py`: what each choice is worth.

    python training/benchmarks/ablations.py run [--model convnext] [--seeds 5] [--minutes 30]
    python training/benchmarks/ablations.py run --model convnext --epochs 60 --only "one in" \
        --out training/benchmarks/ablations_long.json
    python training/benchmarks/ablations.py run --model convnext --epochs 60 --only "triplet weight 3.0" \
        --first-seed 6000 --seeds 20 --out training/benchmarks/ablations_long.json
    python training/benchmarks/ablations.py table

Data, models, budget and learning rates are those of `digits_shortcut.py` at a correlation of 0.99; seeds count from
4000, which neither its search nor its tests use, and test digits are not read. A run is scored by its accuracy on
validation digits with colours as in training ("in distribution") and with random ones ("shifted"). Differences to the
defaults are paired by seed. The second command and the third train three times as long: what the preset `fast` was
made of, and why it guides one in seven rows.

Three choices are no settings of SAGE, and are measured here alone: a schedule of the weights, a trained projection
between the embedding and the triplet, and maps that are blurred before they are used. What becomes of batch
normalisation is asked of a small ResNet, which has it.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import digits_shortcut
import torch
import transformers
from kornia.filters import gaussian_blur2d
from study import SAGE, accuracy, hardware, logits
from study_record import Record
from study_report import paired_cell
from torch import nn
from transformers import (
    PrinterCallback,
    ResNetConfig,
    ResNetForImageClassification,
    TrainerCallback,
    set_seed,
)

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.objectives import Encoding, GuidedRows, SageObjective

OUT = Path(__file__).with_suffix(".json")
FIRST_SEED = 4000
EPOCHS = 20
RATES = {"convnext": 5e-3, "vit": 3e-3, "resnet": 5e-3}
"""Those that SAGE has in `digits_shortcut.py`; the ResNet, which is not there, has the ConvNeXt's."""
SCORES = {"in_distribution": "in distribution", "shifted": "shifted"}
DEFAULTS = SAGE | {"guidance_interval": 1}


@dataclass(frozen=True)
class Projected(SageObjective):
    """SAGE whose triplet compares projected embeddings."""

    projection: nn.Module = field(default_factory=nn.Identity)

    def terms(self, anchor: Encoding, *views: Encoding, batch: GuidedRows | None = None) -> dict[str, torch.Tensor]:
        projected = [one._replace(embedding=self.projection(one.embedding)) for one in (anchor, *views)]
        return super().terms(*projected, batch=batch)


class Schedule(TrainerCallback):
    """Multiplies the weights of SAGE by a factor that depends on how much of the training is done."""

    def __init__(self, trainer: SageTrainer, kind: str):
        self.trainer, self.kind = trainer, kind
        assert isinstance(trainer.guidance_objective, SageObjective)
        self.objective = trainer.guidance_objective

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        factor = factor_at(self.kind, state.global_step / state.max_steps)
        assert self.trainer._guide is not None
        self.trainer._guide.objective = replace(
            self.objective,
            triplet_weight=factor * self.objective.triplet_weight,
            consistency_weight=factor * self.objective.consistency_weight,
        )


def factor_at(kind: str, done: float) -> float:
    """What weights are multiplied by when a share of the training is done."""
    if kind == "late":  # cross entropy alone for the first fifth
        return float(done >= 0.2)
    if kind == "ramp":
        return min(1.0, done / 0.2)
    return float(done < 0.8)  # "early": cross entropy alone for the last fifth


def sparse(one_in: int, substitution: float) -> dict[str, Any]:
    """What a preset is made of, with the triplet weight that guides few rows."""
    return {"guidance_one_in": one_in, "substitution": substitution, "triplet_weight": 3.0}


CHANGES: dict[str, dict[str, Any]] = {
    "none": {"guidance": "none"},
    "defaults": {},
    **{f"degradation {name}": {"degradation": name} for name in ("background", "mean", "noise", "blur")},
    "distance euclidean": {"distance": "euclidean"},
    **{f"margin {value}": {"margin": value} for value in (0.05, 0.5, 1.0)},
    **{f"temperature {value}": {"temperature": value} for value in (0.5, 2.0, 4.0)},
    **{f"triplet weight {value}": {"triplet_weight": value} for value in (0.0, 0.3, 3.0)},
    **{f"consistency weight {value}": {"consistency_weight": value} for value in (0.0, 0.3, 3.0)},
    "consistency uniform": {"consistency": "uniform"},
    "consistency both": {"consistency": "both"},
    "divergence JSD": {"divergence": "jsd"},
    "divergence JSD, consistency both": {"divergence": "jsd", "consistency": "both"},
    **{f"marks grown by {value}": {"saliency_dilation": value} for value in (0.04, 0.1)},
    "background, marks grown by 0.04": {"degradation": "background", "saliency_dilation": 0.04},
    "background, marks grown by 0.04, weights 0.3 and 0.5": {
        "degradation": "background",
        "saliency_dilation": 0.04,
        "triplet_weight": 0.3,
        "consistency_weight": 0.5,
    },
    **{f"every {value}. step": {"guidance_interval": value} for value in (2, 4, 8)},
    **{
        f"every {value}. step, gradients not clipped": {"guidance_interval": value, "max_grad_norm": 0.0}
        for value in (1, 2, 4, 8)
    },
    **{f"one in {value} rows": {"guidance_one_in": value} for value in (2, 6)},
    **{f"one in {value} rows, substitution 0.7": {"guidance_one_in": value, "substitution": 0.7} for value in (6, 8)},
    **{f"one in {value} rows, substitution 0.7, triplet weight 3.0": sparse(value, 0.7) for value in (6, 8)},
    "one in 7 rows, substitution 0.7, triplet weight 3.0 (fast)": {"preset": "fast", "triplet_weight": 3.0},
    "one in 7 rows, substitution 0.7, triplet weight 3.0 (fast), gradients not clipped": {
        "preset": "fast",
        "triplet_weight": 3.0,
        "max_grad_norm": 0.0,
    },
    "one in 7 rows, substitution 0.5, triplet weight 3.0": sparse(7, 0.5),
    **{
        f"one in 8 rows, substitution {share}, triplet weight 3.0": sparse(8, share) for share in (0.3, 0.5, 0.85, 1.0)
    },
    "one in 2 rows, substitution 0.5": {"guidance_one_in": 2, "substitution": 0.5},
    **{f"schedule {kind}": {"schedule": kind} for kind in ("late", "ramp", "early")},
    "projection head": {"projection": 64},
    **{f"maps blurred by {share} of the side": {"softness": share} for share in (0.04, 0.1)},
}
NO_SETTINGS = ("schedule", "projection", "softness")
"""What a change may be besides settings of SAGE."""
BASES = ("none", "defaults")
ONE_PASS = "views normalised with the pictures, in one pass"
BATCH_NORM_CHANGES = {"none": CHANGES["none"], "defaults": {}, ONE_PASS: {"view_forward": "concatenated"}}
"""By default a model with batch normalisation gets the views in a pass, and with statistics, of their own."""


def changes_of(model: str) -> dict[str, dict[str, Any]]:
    """What is changed for a model, by name."""
    return BATCH_NORM_CHANGES if model == "resnet" else CHANGES


def make_model(kind: str) -> nn.Module:
    """A model of `digits_shortcut.py`, or a ResNet of two stages, with as many channels as the ConvNeXt's."""
    if kind != "resnet":
        return digits_shortcut.make_model(kind)
    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32],
        depths=[1, 1],
        layer_type="basic",
        num_labels=10 - digits_shortcut.UNKNOWN,
    )
    return ResNetForImageClassification(config)


def blurred(saliency: torch.Tensor, share: float) -> torch.Tensor:
    """A map (1, height, width) after a Gaussian filter whose standard deviation is a share of the shorter side."""
    sigma = share * min(saliency.shape[-2:])
    size = 2 * math.ceil(3 * sigma) + 1
    return gaussian_blur2d(saliency.unsqueeze(0), size, (sigma, sigma), border_type="replicate").squeeze(0)


def train(model_name: str, change: dict[str, Any], seed: int, epochs: int = EPOCHS) -> dict[str, float]:
    """Train one model; its accuracies on validation digits."""
    splits = digits_shortcut.load_digits(0.99, seed)
    rows = splits["train"]
    if share := change.get("softness"):
        rows = [row | {"saliency": blurred(row["saliency"], share)} for row in rows]
    set_seed(seed)
    model = make_model(model_name)
    settings = DEFAULTS | {name: value for name, value in change.items() if name not in NO_SETTINGS}
    objective = None
    if width := change.get("projection"):
        dimension = model.classifier.in_features  # type: ignore[union-attr]
        projection = nn.Sequential(nn.Linear(dimension, width), nn.ReLU(), nn.Linear(width, width))  # type: ignore[arg-type]
        model.add_module("projection", projection)  # so that the optimizer sees it
        own = {name: value for name, value in settings.items() if name != "guidance_interval"}
        objective = Projected(**own, projection=projection)
    with tempfile.TemporaryDirectory() as folder:
        args = SageTrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            learning_rate=RATES[model_name],
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **digits_shortcut.TRAINING | settings,
        )
        trainer = SageTrainer(model, args, train_dataset=rows, objective=objective)
        trainer.remove_callback(PrinterCallback)
        if "schedule" in change:
            trainer.add_callback(Schedule(trainer, change["schedule"]))
        trainer.train()
    scores = {}
    for name, split in (("in_distribution", "validation"), ("shifted", "shifted_validation")):
        pictures = torch.stack([row["pixel_values"] for row in splits[split]])
        scores[name] = accuracy(logits(model, pictures), torch.tensor([row["labels"] for row in splits[split]]))
    return scores


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file to write and go on from (%(default)s)")
    parser.add_argument("--model", choices=tuple(RATES), help="this one alone (default: all)")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each change (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, metavar="SEED", help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the digits (default: %(default)s)")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="none, the defaults, and the changes with this in their name alone"
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after the run that passes this time")
    options = parser.parse_args(argv)
    record = Record(options.out)
    if options.command == "run":
        if record.runs and record.content["epochs"] != options.epochs:
            parser.error(
                f"{options.out} has runs of {record.content['epochs']} epochs: give others a file of their own."
            )
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(1)
        versions = {one.__name__: one.__version__ for one in (torch, transformers)}
        record.content |= {
            "hardware": hardware(),
            "versions": versions,
            "defaults": DEFAULTS,
            "epochs": options.epochs,
        }
        keys = (
            {"model": model, "change": name, "seed": seed}
            for model in ([options.model] if options.model else RATES)
            for seed in range(options.first_seed, options.first_seed + options.seeds)
            for name in changes_of(model)
            if name in BASES or options.only in name
        )
        for key in record.todo(keys, options.minutes):
            change = changes_of(key["model"])[key["change"]]
            record.add(key | train(key["model"], change, key["seed"], options.epochs))
            print(record.runs[-1], flush=True)
    print(table(record.runs))


def table(runs: list[dict[str, Any]]) -> str:
    """
    Means and, in brackets, differences to the defaults on the same seeds with 95 % intervals (Student's t), as
    Markdown; models that the same was asked of side by side.
    """
    done = {run["model"] for run in runs}
    groups = [[name for name in group if name in done] for group in (("convnext", "vit"), ("resnet",))]
    return "\n\n".join(_table_of(runs, models) for models in groups if models)


def _table_of(runs: list[dict[str, Any]], models: list[str]) -> str:
    columns = [f"{model}, {title}" for model in models for title in SCORES.values()]
    lines = [f"| change | seeds | {' | '.join(columns)} |", f"|---|---:|{'---:|' * len(columns)}"]
    defaults = [_by_seed(runs, model, "defaults") for model in models]
    for name in changes_of(models[0]):
        scores = [_by_seed(runs, model, name) for model in models]
        if not any(scores):
            continue
        cells = [
            paired_cell(own, None if name == "defaults" else base, score)
            for own, base in zip(scores, defaults, strict=True)
            for score in SCORES
        ]
        seeds = ", ".join(dict.fromkeys(str(len(own)) for own in scores))
        lines.append(f"| {name} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_seed(runs: list[dict[str, Any]], model: str, change: str) -> dict[int, dict[str, float]]:
    return {run["seed"]: run for run in runs if (run["model"], run["change"]) == (model, change)}


if __name__ == "__main__":
    main()
