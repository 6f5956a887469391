"""
What the preset `fast` costs the perceptron of Decoy-MNIST on validation digits: learning rates, settings around it.

    python training/benchmarks/fast_perceptron.py run [--seeds 20] [--minutes 30]     # resumable
    python training/benchmarks/fast_perceptron.py table

Data, model, batches, length and settings are those of `fast_preset.py`, but for what a change says; seeds count from
7000, which neither its search nor its tests use, and test digits are not read. A run is scored by its accuracy on
validation digits with squares of random shades, the mean of twenty draws, and without squares. Differences are paired
by seed, and are to SAGE at the same learning rate.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import decoy_mnist
import numpy as np
import torch
import transformers
from fast_preset import LONGER, chosen_settings
from study import Run, accuracy, hardware, logits
from study_record import Record
from study_report import cell, paired_cell, share_of

OUT = Path(__file__).with_suffix(".json")
CASE = "Decoy-MNIST, perceptron"
FIRST_SEED = 7000
FEW = 8
"""Seeds of the changes that are no question of their own."""
DRAWS = 20
SCORES = {"squares": "random squares", "clean": "no squares"}
RATES = (0.001, 0.003, 0.006)
"""The search for SAGE had the first two, and took the second."""
FAST = {"preset": "fast"}
AROUND: dict[str, dict[str, Any]] = {
    **{f"substitution {share}": {"substitution": share} for share in (0.3, 0.5, 0.85, 1.0)},
    "triplet weight 1": {"triplet_weight": 1.0},
    **{f"consistency weight {value:g}": {"consistency_weight": value} for value in (5.0, 20.0)},
    "one in 6 rows": {"guidance_one_in": 6},
}
CHANGES: dict[str, dict[str, Any]] = {
    "none": {"guidance": "none"},
    **{
        f"{name}, learning rate {rate}": preset | {"learning_rate": rate}
        for rate in RATES
        for name, preset in (("sage", {}), ("fast", FAST))
    },
    "sage, learning rate 0.003, gradients not clipped": {"max_grad_norm": 0.0},
    "fast, learning rate 0.003, gradients not clipped": FAST | {"max_grad_norm": 0.0},
    **{f"fast, learning rate 0.003, {name}": FAST | settings for name, settings in AROUND.items()},
}
AVERAGED = {name: f"{name}, all {len(RATES)} learning rates" for name in ("sage", "fast")}


def seeds_of(change: str, seeds: int) -> range:
    """Of the settings around the preset a few seeds, of all else as many as are asked for."""
    return range(FIRST_SEED, FIRST_SEED + (min(seeds, FEW) if change.endswith(tuple(AROUND)) else seeds))


def base_of(change: str) -> str | None:
    """What a change is compared with: SAGE at its learning rate, and at the one that was chosen for it for none."""
    if change == "none":
        return "sage, learning rate 0.003"
    base = ", ".join(["sage", change.split(", ")[1]])
    return None if base == change else base


def train(change: str, seed: int) -> dict[str, float]:
    """Train one perceptron; its accuracies on validation digits."""
    guidance = CHANGES[change].get("guidance", "sage")
    settings = chosen_settings(CASE, guidance) | CHANGES[change]
    epochs = LONGER * decoy_mnist.STUDY.models["mlp"].epochs
    run = Run("search", "mlp", "random shades", guidance, settings, seed, epochs, quick=False)
    splits = decoy_mnist.load_digits(seed, test=False)
    model = decoy_mnist.trained(run, splits["train"])
    clean, _, labels = splits["validation without decoy"]
    digits, generator = clean.squeeze(1).numpy() * 255, np.random.default_rng(seed + 1)
    drawn = [decoy_mnist.decoy(digits, generator.integers(10, size=len(digits)), generator)[0] for _ in range(DRAWS)]
    return {
        "squares": float(np.mean([accuracy(logits(model, pictures), labels) for pictures in drawn])),
        "clean": accuracy(logits(model, clean), labels),
    }


def over_rates(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """SAGE and the preset once more, each seed's scores averaged over the learning rates."""
    averaged = []
    for name, change in AVERAGED.items():
        rates = [f"{name}, learning rate {rate}" for rate in RATES]
        for seed in sorted({run["seed"] for run in runs}):
            same = [run for run in runs if run["seed"] == seed and run["change"] in rates]
            if len(same) == len(rates):
                scores = {score: float(np.mean([run[score] for run in same])) for score in SCORES}
                averaged.append({"change": change, "seed": seed} | scores)
    return averaged


def table(runs: list[dict[str, Any]]) -> str:
    """
    Means and, in brackets, differences to [`base_of`] on the same seeds with 95 % intervals, as Markdown; and the
    share of SAGE's gain over none with random squares, of seeds that have all three.
    """
    by_seed: dict[str, dict[int, dict[str, float]]] = {name: {} for name in (*CHANGES, *AVERAGED.values())}
    for run in runs + over_rates(runs):
        by_seed[run["change"]][run["seed"]] = run
    squares = {name: {seed: run["squares"] for seed, run in own.items()} for name, own in by_seed.items()}
    columns = ["change", "seeds", *SCORES.values(), "share of the gain"]
    lines = [f"| {' | '.join(columns)} |", f"|---|---:|{'---:|' * (len(columns) - 2)}"]
    for name, own in by_seed.items():
        if not own:
            continue
        base = base_of(name)
        cells = [paired_cell(own, by_seed[base] if base else None, score) for score in SCORES]
        of_gain = share_of(squares[name], squares["none"], squares[base]) if base and name != "none" else None
        lines.append(f"| {name} | {len(own)} | {' | '.join(cells)} | {cell(of_gain)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file to write and go on from (%(default)s)")
    parser.add_argument("--seeds", type=int, default=20, help="runs of each change, of some fewer (%(default)s)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after the run that passes this time")
    options = parser.parse_args(argv)
    record = Record(options.out)
    if options.command == "run":
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(1)
        versions = {one.__name__: one.__version__ for one in (torch, transformers)}
        record.content |= {"hardware": hardware(), "versions": versions}
        keys = ({"change": name, "seed": seed} for name in CHANGES for seed in seeds_of(name, options.seeds))
        for key in record.todo(keys, options.minutes):
            record.add(key | train(**key))
            print(record.runs[-1], flush=True)
    print(table(record.runs))


if __name__ == "__main__":
    main()
