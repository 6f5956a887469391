"""`sage-hf quickstart`: what guidance does, on real digits with a shortcut, in a few minutes on a CPU."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from transformers import ConvNextConfig, ConvNextForImageClassification, set_seed
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from ..data.digits import SIZE, digits_with_shortcut
from ..data.transforms import AlignedTransform
from ..evaluation import classification_metrics
from ..trainer import SageTrainer
from ..training_args import SageTrainingArguments
from ..visualization import view_grid

TRAINING: dict[str, Any] = {
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 200,
    "learning_rate": 5e-3,
    "weight_decay": 0.05,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 20,
    "logging_strategy": "no",
    "save_strategy": "no",
}
"""What every run of the digits has in common."""
DIGITS = tuple(str(digit) for digit in range(10))
METHODS = ("none", "sage")
TEST_SPLITS = ("in_distribution", "shifted")
OWN_FILES = ("results.json", "views.png")
TITLE = "Digits with a shortcut"


def run(argv: list[str]) -> None:
    """Parse the arguments of `sage-hf quickstart` and run it."""
    parser = argparse.ArgumentParser(
        prog="sage-hf quickstart",
        description=(
            "Real handwritten digits, each beside a coloured square that gives its class away in training and means "
            "nothing in the shifted test split. A small ConvNeXt is trained on them without guidance and "
            "with SAGE, whose saliency maps mark the digit."
        ),
    )
    parser.add_argument(
        "--out", default="outputs/quickstart", metavar="DIR", help="results folder (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method (default: %(default)s)")
    parser.add_argument(
        "--epochs", type=int, default=30, help="passes over the 997 training digits (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print results.json instead of the table")
    args = parser.parse_args(argv)
    if args.seeds < 1 or args.epochs < 1:
        raise ValueError("--seeds and --epochs must be 1 or more.")
    out = Path(args.out)
    foreign = sorted(path.name for path in out.iterdir() if not _is_own(path)) if out.is_dir() else []
    if foreign:
        raise FileExistsError(
            f"{out} holds files that are not the quickstart's: {', '.join(foreign[:4])}. Choose another --out."
        )
    out.mkdir(parents=True, exist_ok=True)

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # The models are so small that a second thread costs more than it brings, above all beside other programs.
    torch.set_num_threads(1)
    started = time.perf_counter()
    if not args.json:
        print(f"Training {len(METHODS) * args.seeds} small models, each in less than a minute.", flush=True)
    results: dict[str, dict[str, list[float]]] = {method: {split: [] for split in TEST_SPLITS} for method in METHODS}
    for seed in range(args.seeds):
        splits = digits_with_shortcut(seed=seed)
        if seed == 0:
            _draw_views(splits, out / "views.png")
        for method in METHODS:
            keep = out / "checkpoint" if seed == 0 and method == "sage" else None
            accuracy = train_digits(
                splits, seed=seed, epochs=args.epochs, evaluate_on=TEST_SPLITS, keep=keep, guidance=method
            )
            for split in TEST_SPLITS:
                results[method][split].append(accuracy[split])
            if not args.json:
                figures = ", ".join(f"{split.replace('_', ' ')} {accuracy[split]:.3f}" for split in TEST_SPLITS)
                print(f"seed {seed}, guidance {method}: accuracy {figures}", flush=True)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results) if args.json else _table(results, out, time.perf_counter() - started))


def _is_own(path: Path) -> bool:
    """Whether an earlier quickstart made a file, so that this one may replace it."""
    if path.name == "checkpoint":
        card = path / "README.md"
        return card.is_file() and f"# {TITLE}" in card.read_text(encoding="utf-8")
    return path.name in OWN_FILES


def digits_processor() -> ViTImageProcessorPil:
    return ViTImageProcessorPil(size={"height": SIZE, "width": SIZE})


def digits_model(names: Sequence[str] = DIGITS, **settings: Any) -> ConvNextForImageClassification:
    """
    The quickstart's model: a small ConvNeXt that is trained from scratch.

    Args:
        names (`Sequence[str]`, *optional*): what its outputs are called; the ten digits if not given.
        **settings: more of its [`~transformers.ConvNextConfig`].
    """
    config = ConvNextConfig(
        image_size=SIZE,
        patch_size=2,
        num_stages=3,
        hidden_sizes=[16, 32, 64],
        depths=[1, 1, 1],
        # The default, 1e-6, is for deep networks; here it would keep the blocks silent for most of the training.
        layer_scale_init_value=0.1,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        **settings,
    )
    return ConvNextForImageClassification(config)


def train_digits(
    splits: datasets.DatasetDict,
    *,
    seed: int,
    epochs: int,
    evaluate_on: Sequence[str],
    keep: Path | None = None,
    **settings: Any,
) -> dict[str, float]:
    """
    Train the quickstart's model: whatever the settings, with the same trainer, data order and budget.

    Args:
        splits (`datasets.DatasetDict`): from [`digits_with_shortcut`].
        seed (`int`): of the weights, the order of the rows and the views.
        epochs (`int`): passes over the training rows.
        evaluate_on (`Sequence[str]`): names of splits.
        keep (`Path`, *optional*): folder for the checkpoint and its card; replaced if it exists.
        **settings: arguments of [`SageTrainingArguments`].

    Returns:
        `dict[str, float]`: accuracy on each of the splits, in [0, 1].
    """
    set_seed(seed)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TRAINING | {
            "output_dir": str(Path(scratch) / "checkpoint"),
            "num_train_epochs": epochs,
            "seed": seed,
        }
        args = SageTrainingArguments(**(arguments | settings))
        trainer = SageTrainer(
            model=digits_model(),
            args=args,
            # Transformed once: without augmentation a row is the same in every epoch.
            train_dataset=[*map(AlignedTransform(digits_processor()), splits["train"])],
            processing_class=digits_processor(),
            compute_metrics=classification_metrics,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        metrics = {split: trainer.evaluate(splits[split], metric_key_prefix=split) for split in evaluate_on}
        accuracy = {split: metrics[split][f"{split}_accuracy"] for split in evaluate_on}
        if keep is not None:
            trainer.save_model()
            trainer.create_model_card(
                model_name=TITLE,
                metrics={split: {"accuracy": value} for split, value in accuracy.items()},
            )
            shutil.rmtree(keep, ignore_errors=True)
            shutil.move(str(args.output_dir), keep)
    return accuracy


def _draw_views(splits: datasets.DatasetDict, path: Path) -> None:
    """Image, map, x+ and x- of the first picture of each of six digits."""
    processor = digits_processor()
    transform = AlignedTransform(processor)
    labels = list(splits["train"]["label"])
    rows = [transform(splits["train"][labels.index(digit)]) for digit in range(6)]
    pixel_values = torch.stack([row["pixel_values"] for row in rows])
    saliency = torch.stack([row["saliency"] for row in rows])
    generator = torch.Generator().manual_seed(0)
    objective = SageTrainingArguments(output_dir="unused").objective()
    assert objective is not None
    views = objective.views(pixel_values, saliency, torch.arange(len(rows)), generator)
    view_grid(pixel_values, saliency, views, processor.image_mean, processor.image_std).save(path)


def _table(results: dict[str, dict[str, list[float]]], out: Path, seconds: float) -> str:
    lines = ["", f"{'guidance':<12}{'in distribution':>18}{'shifted':>12}   (accuracy, mean over seeds)"]
    for method, splits in results.items():
        means = [statistics.mean(splits[split]) for split in TEST_SPLITS]
        lines.append(f"{method:<12}{means[0]:>18.3f}{means[1]:>12.3f}")
    lines += ["", f"{seconds:.0f} s. In {out}: results.json, views.png, and the first SAGE model in checkpoint/."]
    return "\n".join(lines)
