"""
One example of each other problem type on generated data: several labels a picture, and a number.

    python training/examples/problem_types.py --out training/examples/problem_types.json

The pictures are the quickstart's digits, each beside a square whose colour gives the digit away in training and means
nothing in the shifted split. Asked of them are properties of the digit (even, prime, above four, has a loop: several
labels, or none) or its value (a regression). Runs that the file has already are not repeated; `--table` only prints
what the file holds.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from transformers import set_seed
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import sage_hf
from sage_hf import AlignedTransform, SageTrainer, SageTrainingArguments
from sage_hf.cli.quickstart import TRAINING, digits_model
from sage_hf.data.digits import SIZE, digits_with_shortcut
from sage_hf.data.labels import LabelReader
from sage_hf.evaluation import METRICS, mean_interval
from sage_hf.tasks import MULTI_LABEL, REGRESSION

PROPERTIES = {"even": {0, 2, 4, 6, 8}, "prime": {2, 3, 5, 7}, "above four": {5, 6, 7, 8, 9}, "loop": {0, 6, 8, 9}}
SPLITS = ("in_distribution", "shifted")
FIGURES = {
    MULTI_LABEL: ("macro_f1", "mean_average_precision"),
    REGRESSION: ("mean_absolute_error", "r2"),
}


def relabelled(splits: datasets.DatasetDict, problem_type: str) -> tuple[datasets.DatasetDict, list[str]]:
    """The splits with other questions asked of their pictures, and what the outputs are called."""
    if problem_type == REGRESSION:
        return splits.cast_column("label", datasets.Value("float32")), ["value"]
    names = list(PROPERTIES)
    kind = datasets.List(datasets.ClassLabel(names=names))
    result = {}
    for split, rows in splits.items():
        labels = [[name for name in names if digit in PROPERTIES[name]] for digit in rows["label"]]
        result[split] = rows.remove_columns("label").add_column("label", labels).cast_column("label", kind)
    return datasets.DatasetDict(result), names


def train(problem_type: str, guidance: str, seed: int, epochs: int) -> dict[str, dict[str, float]]:
    """The figures of one run, by split."""
    splits, names = relabelled(digits_with_shortcut(seed=seed), problem_type)
    processor = ViTImageProcessorPil(size={"height": SIZE, "width": SIZE})
    set_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        stored = names if problem_type == MULTI_LABEL else None
        transform = AlignedTransform(
            processor, read_label=LabelReader("label", problem_type, names, stored=stored, lists=True)
        )
        trainer = SageTrainer(
            model=digits_model(names, problem_type=problem_type),
            args=SageTrainingArguments(
                output_dir=folder, num_train_epochs=epochs, seed=seed, guidance=guidance, disable_tqdm=True, **TRAINING
            ),
            # Transformed once: without augmentation a row is the same in every epoch.
            train_dataset=[*map(transform, splits["train"])],
            processing_class=processor,
            compute_metrics=METRICS[problem_type],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        metrics = {split: trainer.evaluate(splits[split], metric_key_prefix=split) for split in SPLITS}
    return {split: {name: metrics[split][f"{split}_{name}"] for name in FIGURES[problem_type]} for split in SPLITS}


def table(runs: list[dict[str, Any]]) -> str:
    """Mean and 95% interval of each figure, in Markdown."""
    lines = [
        "| problem type | figure | guidance | seeds | in distribution | shifted |",
        "|---|---|---|---:|---:|---:|",
    ]
    for problem_type, figures in FIGURES.items():
        for figure in figures:
            for guidance in ("none", "sage"):
                chosen = [run for run in runs if (run["problem_type"], run["guidance"]) == (problem_type, guidance)]
                if not chosen:
                    continue
                cells = []
                for split in SPLITS:
                    mean, half_width = mean_interval([run["metrics"][split][figure] for run in chosen])
                    cells.append(f"{mean:.3f} ± {half_width:.3f}")
                lines.append(f"| {problem_type} | {figure} | `{guidance}` | {len(chosen)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="JSON file to write and go on from")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each setting (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the data (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print what the file holds, and train nothing")
    args = parser.parse_args()

    record: dict[str, Any] = {"runs": []}
    if args.out.is_file():
        record = json.loads(args.out.read_text())
    if args.table:
        print(table(record["runs"]))
        return
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    record["epochs"] = args.epochs
    record["versions"] = {
        "python": platform.python_version(),
        "sage_hf": sage_hf.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    record["hardware"] = f"{platform.machine()} CPU, one thread"
    done = {(run["problem_type"], run["guidance"], run["seed"]) for run in record["runs"]}
    for seed in range(args.seeds):
        for problem_type in FIGURES:
            for guidance in ("none", "sage"):
                if (problem_type, guidance, seed) in done:
                    continue
                metrics = train(problem_type, guidance, seed, args.epochs)
                record["runs"].append(
                    {"problem_type": problem_type, "guidance": guidance, "seed": seed, "metrics": metrics}
                )
                args.out.write_text(json.dumps(record, indent=2) + "\n")
                print(problem_type, guidance, seed, metrics, flush=True)
    print(table(record["runs"]))


if __name__ == "__main__":
    main()
