"""
Compare forms of SAGE on coffee leaves, without the test pictures: where the choices of `coffee_leaf.py` come from.

    python training/benchmarks/coffee_leaf_forms.py --out training/benchmarks/coffee_leaf_forms.json [--seeds 5]
    python training/benchmarks/coffee_leaf_forms.py --model dinov2-small --out .../coffee_leaf_forms_dinov2.json

Each seed draws a quarter of the training pictures, and scores on the pictures of the training and validation splits
that it did not draw, about 340; or, for few maps (`--scenario "25 % of the maps of 75 %"`), three quarters of them
with the maps of a quarter of those, and scores on 147. Every form gets the same trainer, pictures, order, budget and
seeds. Runs that the file has already are not repeated, so an interrupted comparison goes on where it stopped.
`--table` only prints what the file holds.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from pathlib import Path
from typing import Any

import coffee_leaf
import torch
import transformers
from study import SAGE, Run, accuracy, hardware
from study_record import Record
from study_report import paired_cell

BACKGROUND = SAGE | {"degradation": "background", "saliency_dilation": 0.04}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "shuffle": ("sage", SAGE),
    "background, grown": ("sage", BACKGROUND),
    "background, grown; triplet 0.3, consistency 0.5": (
        "sage",
        BACKGROUND | {"triplet_weight": 0.3, "consistency_weight": 0.5},
    ),
    "background, grown; no triplet": ("sage", BACKGROUND | {"triplet_weight": 0.0}),
    "background, grown; uniform p-, weight 0.3": (
        "sage",
        BACKGROUND | {"consistency": "uniform", "consistency_weight": 0.3},
    ),
    "shuffle, grown": ("sage", SAGE | {"saliency_dilation": 0.04}),
    "background": ("sage", SAGE | {"degradation": "background"}),
    "blur, grown": ("sage", SAGE | {"degradation": "blur", "saliency_dilation": 0.04}),
    "background, grown; triplet alone": ("sage", BACKGROUND | {"consistency": "none"}),
    "background, grown; triplet weight 3": ("sage", BACKGROUND | {"triplet_weight": 3.0}),
    "background, grown; JSD, both halves": ("sage", BACKGROUND | {"consistency": "both", "divergence": "jsd"}),
    "background, grown; euclidean": ("sage", BACKGROUND | {"distance": "euclidean"}),
    "background, grown; every 2nd step": ("sage", BACKGROUND | {"guidance_interval": 2}),
    "background, grown; one pass": ("sage", BACKGROUND | {"view_forward": "concatenated"}),
    "background, grown; inverted maps": ("sage", BACKGROUND | {"saliency_control": "inverted"}),
    "background, grown by 0.08; triplet 0.3, consistency 0.5": (
        "sage",
        BACKGROUND | {"saliency_dilation": 0.08, "triplet_weight": 0.3, "consistency_weight": 0.5},
    ),
    "background, grown; triplet 0.1, consistency 0.2": (
        "sage",
        BACKGROUND | {"triplet_weight": 0.1, "consistency_weight": 0.2},
    ),
    "augment: background, grown": ("augment", {"degradation": "background", "saliency_dilation": 0.04}),
    "augment: shuffle": ("augment", {"degradation": "shuffle"}),
}
SCORES = {
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
    "healthy": "healthy found",
    "replaced": "unmarked region replaced",
    "rarest": "rarest class found",
}
"""Its columns in the table are those that all runs have."""
FIRST_SEED = 2000
"""Of draws that the benchmark makes for neither its search nor its tests."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="JSON file to write and go on from")
    parser.add_argument("--data", default=str(coffee_leaf.OUTPUTS / "data"), help="the dataset (default: %(default)s)")
    parser.add_argument("--checkpoints", default=str(coffee_leaf.OUTPUTS), help="folder of pretrained networks")
    parser.add_argument("--model", default=coffee_leaf.MODEL, choices=list(coffee_leaf.LEARNING_RATES))
    parser.add_argument("--scenario", default="25 %", choices=["25 %", coffee_leaf.FEW_MAPS_SEARCH])
    parser.add_argument("--seeds", type=int, default=5, help="runs of each form (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the pictures (default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", default=list(FORMS), choices=list(FORMS), metavar="FORM", help="none and these alone"
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after the run that passes this time")
    parser.add_argument("--table", action="store_true", help="train nothing, print the table of what is there")
    options = parser.parse_args(argv)
    record = Record(options.out)
    if not options.table:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(1)
        for name, asked in (("model", options.model), ("scenario", options.scenario)):
            if (of := record.content.setdefault(name, asked)) != asked:
                parser.error(f"{options.out} has runs of {of}: write those of {asked} to another file.")
        record.content |= {"hardware": hardware()}
        _, usual, _ = coffee_leaf.LEARNING_RATES[options.model]
        rate = {"learning_rate": usual}
        leaves = coffee_leaf.load_leaves(options.data, str(Path(options.checkpoints) / options.model))
        keys = (
            {"name": name, "settings": settings, "seed": seed, "epochs": options.epochs}
            for seed in range(FIRST_SEED, FIRST_SEED + options.seeds)
            for name, (_, settings) in FORMS.items()
            if name == "none" or name in options.only
        )
        for key in record.todo(keys, options.minutes):
            (method, settings), seed = FORMS[key["name"]], key["seed"]
            run = Run("search", options.model, options.scenario, method, rate | settings, seed, options.epochs, False)
            split = coffee_leaf.split_leaves(leaves, run)
            model = coffee_leaf.train_model(leaves, run, split)
            scores, predicted = coffee_leaf.score(leaves, model, split.validation, split.healthy, 1)
            labels = torch.tensor([row["label"] for row in split.validation])
            rarest = labels == Counter(row["label"] for row in split.train).most_common()[-1][0]
            scores["rarest"] = accuracy(predicted[rarest], labels[rarest])
            record.add(key | {"scores": scores})
            print(key["name"], seed, scores, flush=True)
    print(table(record.runs))


def table(runs: list[dict[str, Any]]) -> str:
    """Means, and differences to none on the same seeds with 95 % intervals (Student's t), as Markdown."""
    scores = {name: {run["seed"]: run["scores"] for run in runs if run["name"] == name} for name in FORMS}
    columns = {name: title for name, title in SCORES.items() if all(name in run["scores"] for run in runs)}
    lines = [f"| form | seeds | {' | '.join(columns.values())} |", f"|---|---:|{'---:|' * len(columns)}"]
    for name, own in scores.items():
        if own:
            cells = [paired_cell(own, None if name == "none" else scores["none"], score) for score in columns]
            lines.append(f"| {name} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
