"""
Compare forms of SAGE on the quickstart's validation digits: where the defaults of `SageTrainingArguments` come from.

    python training/benchmarks/digits_sweep.py --out training/benchmarks/digits_sweep.json

Every setting gets the same trainer, data, order, budget and seeds; test digits are not read. Runs that the file has
already are not repeated, so an interrupted sweep goes on where it stopped. `--table` only prints what the file holds.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

import torch
import transformers
from study_record import Record
from study_report import cell, interval

import sage_hf
from sage_hf.cli.quickstart import train_digits
from sage_hf.data.digits import digits_with_shortcut

SPLITS = ("validation", "shifted_validation")
# Written out, so that the record says what ran whatever the defaults are.
BASE: dict[str, Any] = {
    "degradation": "shuffle",
    "distance": "cosine",
    "margin": 0.5,
    "triplet_weight": 1.0,
    "consistency": "positive",
    "divergence": "kl",
    "temperature": 1.0,
    "consistency_weight": 1.0,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {"guidance": "none"},
    "triplet + KL(p, p+), weight 1": BASE,
    "triplet + KL(p, p+), weight 3": BASE | {"consistency_weight": 3.0},
    "KL(p, p+) alone, weight 1": BASE | {"triplet_weight": 0.0},
    "triplet alone": BASE | {"consistency": "none"},
    "triplet + KL(p, p+) + uniform p-, weight 1": BASE | {"consistency": "uniform"},
    "triplet + JSD(p, p+), weight 3": BASE | {"divergence": "jsd", "consistency_weight": 3.0},
    "triplet + JSD, both halves, weight 3": BASE
    | {"consistency": "both", "divergence": "jsd", "consistency_weight": 3.0},
    "triplet + KL(p, p+), weight 1, margin 0.2": BASE | {"margin": 0.2},
    "triplet + KL(p, p+), weight 1, margin 0.2, background": BASE | {"margin": 0.2, "degradation": "background"},
    "triplet + KL(p, p+), weight 1, margin 0.2, background, marks grown by 0.04": BASE
    | {"margin": 0.2, "degradation": "background", "saliency_dilation": 0.04},
    "triplet + KL(p, p+) + uniform p-, weight 1, margin 0.2": BASE | {"consistency": "uniform", "margin": 0.2},
    "triplet + KL(p, p+), weight 1, euclidean": BASE | {"distance": "euclidean"},
    "triplet + KL(p, p+), weight 1, blur": BASE | {"degradation": "blur"},
    "triplet + KL(p, p+), weight 1, inverted maps": BASE | {"saliency_control": "inverted"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="JSON file to write and go on from")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each setting (default: %(default)s)")
    parser.add_argument(
        "--epochs", type=int, default=30, help="passes over the training digits (default: %(default)s)"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only the settings with this in their name")
    parser.add_argument("--table", action="store_true", help="train nothing, print the table of what is there")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    record = Record(args.out)
    if not args.table:
        record.content |= {
            "versions": {"sage_hf": sage_hf.__version__, "torch": torch.__version__},
            "hardware": f"CPU, {platform.machine()}",
        }
        for seed in range(args.seeds):
            splits = digits_with_shortcut(seed=seed)
            keys = (
                {"name": name, "settings": settings, "seed": seed, "epochs": args.epochs}
                for name, settings in SETTINGS.items()
                if args.only in name
            )
            for key in record.todo(keys):
                accuracy = train_digits(splits, seed=seed, epochs=args.epochs, evaluate_on=SPLITS, **key["settings"])
                record.add(key | {"accuracy": accuracy})
                print(key["name"], seed, accuracy, flush=True)
    print(table(record.runs))


def table(runs: list[dict[str, Any]]) -> str:
    """Mean and 95% interval (Student's t over seeds) of each setting, as Markdown."""
    lines = ["| setting | seeds | in distribution | shifted |", "|---|---:|---:|---:|"]
    for name in SETTINGS:
        own = [run["accuracy"] for run in runs if run["name"] == name]
        if not own:
            continue
        cells = [cell(interval(accuracy[split] for accuracy in own)) for split in SPLITS]
        lines.append(f"| {name} | {len(own)} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
