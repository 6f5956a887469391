"""
Digits with a shortcut: accuracy where the shortcut breaks, and what becomes of digits that were never seen.

    python training/benchmarks/digits_shortcut.py run       # resumable: a JSON line a run, none repeated
    python training/benchmarks/digits_shortcut.py report    # results.json, table.md and plot.svg from the lines

The pictures are the quickstart's (`sage_hf.data.digits`): a digit, and beside it a square whose colour is that of the
digit's class in training with the scenario's correlation. Three of the ten digits, drawn by the seed, are unknown:
they are in no training and validation data. The test digits are the same 400 for every seed.

- closed set: accuracy on known test digits with colours as in training ("in distribution") or at random ("shifted");
- open set: known test digits against unknown ones, all colours at random, so that no colour says which is which; and
  "in distribution", where unknown digits have colours of their own, as a new class would bring its own surroundings:
  there the shortcut itself tells them apart.

Settings are searched at a correlation of 0.99, four for each method, and used at all three. They are chosen by the
mean of two accuracies on validation digits, with colours as in training and with random ones: guidance should help
under shift and not cost what there was without it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from study import Block, Figure, Model, Run, Study, accuracy, fit, logits, main
from torch import Tensor, nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    set_seed,
)

from sage_hf.cli.quickstart import digits_processor
from sage_hf.data.digits import SIZE, digits_with_shortcut
from sage_hf.data.transforms import AlignedTransform
from sage_hf.evaluation import OpenSet

TEST_SEED = 2511
UNKNOWN = 3
QUICK_ROWS = 64
SEARCHED_AT = "0.99"
TRAINING: dict[str, Any] = {
    "per_device_train_batch_size": 32,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 20,
    "weight_decay": 0.05,
}


def known_digits(seed: int) -> list[int]:
    """The seven digits that a seed's training holds, in order."""
    unknown = np.random.default_rng(seed).permutation(10)[:UNKNOWN]
    return [digit for digit in range(10) if digit not in unknown]


@lru_cache(maxsize=2)
def load_digits(correlation: float, seed: int, *, rows: int | None = None) -> dict[str, list[dict[str, Any]]]:
    """
    Transformed rows by split, with labels in [0, 6] in the order of the known digits, and -1 for unknown ones, which
    are in the splits of the test alone.

    Args:
        correlation (`float`): of colour and class in training.
        seed (`int`): of the split, the unknown digits, places and colours.
        rows (`int`, *optional*): of each split at most, for a quick try.
    """
    known = known_digits(seed)
    transform = AlignedTransform(digits_processor())
    splits = {}
    for name, split in digits_with_shortcut(correlation, seed, TEST_SEED).items():
        tested = name in ("in_distribution", "shifted")
        chosen = [row for row, digit in enumerate(split["label"]) if tested or digit in known][:rows]
        splits[name] = [_row(transform, split[row], known) for row in chosen]
    return splits


def _row(transform: AlignedTransform, row: dict[str, Any], known: list[int]) -> dict[str, Any]:
    return transform(row) | {"labels": known.index(row["label"]) if row["label"] in known else -1}


def make_model(kind: str) -> nn.Module:
    """A ConvNeXt of two stages, or a ViT of two layers with four by four tokens; less than a minute a run."""
    if kind == "convnext":
        return ConvNextForImageClassification(
            ConvNextConfig(
                image_size=SIZE,
                patch_size=4,
                num_stages=2,
                hidden_sizes=[16, 32],
                depths=[1, 1],
                layer_scale_init_value=0.1,
                num_labels=10 - UNKNOWN,
            )
        )
    config = ViTConfig(
        image_size=SIZE,
        patch_size=8,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        num_labels=10 - UNKNOWN,
        attn_implementation="eager",
        # The default, 0.02, is for wide networks; here it would keep the tokens silent for most of the training.
        initializer_range=0.1,
    )
    return ViTForImageClassification(config)


def train(run: Run) -> dict[str, float]:
    """Train one model; its accuracy on validation digits and, in a test, all figures on test digits."""
    splits = load_digits(float(run.scenario), run.seed, rows=QUICK_ROWS if run.quick else None)
    set_seed(run.seed)
    model = make_model(run.model)
    fit(model, splits["train"], run, **TRAINING)

    def predict(split: str) -> tuple[Tensor, Tensor]:
        rows = splits[split]
        return logits(model, torch.stack([row["pixel_values"] for row in rows])), torch.tensor(
            [row["labels"] for row in rows]
        )

    scores = {"validation": (accuracy(*predict("validation")) + accuracy(*predict("shifted_validation"))) / 2}
    if run.stage == "test":
        for name in ("in_distribution", "shifted"):
            predicted, labels = predict(name)
            scores[name] = accuracy(predicted[labels >= 0], labels[labels >= 0])
            figures = OpenSet(keep_in_memory=True).compute(predictions=predicted.numpy(), references=labels.numpy())
            scores |= {
                f"{name}_{key}": value for key, value in figures.items() if key.endswith(("auroc", "at_95_tpr"))
            }
    return scores


def search(rates: tuple[float, float], rate: float) -> dict[str, list[dict[str, Any]]]:
    """Four settings for each method: of those that guide, what weighs most in them."""
    guided = {
        "augment": [{"guidance_weight": weight} for weight in (0.3, 1.0, 3.0, 10.0)],
        "cyborg": [{"guidance_weight": weight} for weight in (1.0, 3.0, 10.0, 30.0)],
        "gradient": [{"guidance_weight": weight} for weight in (0.1, 1.0, 10.0, 100.0)],
        "harmonization": [{"guidance_weight": weight} for weight in (0.1, 1.0, 10.0, 100.0)],
        "attention": [{"guidance_weight": weight} for weight in (1.0, 3.0, 10.0, 30.0)],
        "sage": [
            {"consistency": form, "consistency_weight": weight}
            for form in ("positive", "uniform")
            for weight in (1.0, 3.0)
        ],
    }
    none = [{"learning_rate": one, "weight_decay": decay} for one in rates for decay in (0.05, 0.5)]
    return {"none": none} | {
        method: [{"learning_rate": rate} | settings for settings in four] for method, four in guided.items()
    }


CONTROLS = tuple(f"sage, {control}" for control in ("inverted", "shuffled", "center_gaussian", "random_blobs"))


FIRST = ("none", "augment", "gradient", "sage")


def _block(model: str, correlation: str, *methods: str) -> Block:
    return Block(model, correlation, methods, search_in=SEARCHED_AT)


def _open_set(split: str) -> tuple[Figure, ...]:
    return (
        Figure(f"{split}_energy_auroc", "AUROC, energy"),
        Figure(f"{split}_energy_fpr_at_95_tpr", "FPR95, energy", higher_is_better=False),
        Figure(f"{split}_msp_auroc", "AUROC, MSP"),
        Figure(f"{split}_msp_fpr_at_95_tpr", "FPR95, MSP", higher_is_better=False),
    )


STUDY = Study(
    name="digits_shortcut",
    title="Digits with a shortcut",
    train=train,
    models={
        "convnext": Model(epochs=20, search=search((2e-3, 5e-3), 5e-3)),
        "vit": Model(epochs=20, search=search((2e-3, 5e-3), 3e-3)),
    },
    blocks=(
        _block("convnext", "0.99", *FIRST),
        _block("convnext", "1.0", "none", "sage"),
        _block("convnext", "0.99", *CONTROLS),
        _block("vit", "0.99", "none", "sage"),
        _block("convnext", "0.9", "none", "sage"),
        _block("convnext", "1.0", "augment", "gradient"),
        _block("vit", "0.99", "augment", "gradient", "cyborg", "attention"),
        _block("convnext", "0.9", "augment", "gradient"),
        *(_block("convnext", correlation, "cyborg") for correlation in ("0.99", "1.0", "0.9")),
        *(_block("vit", correlation, *FIRST, "cyborg", "attention") for correlation in ("1.0", "0.9")),
        _block("vit", "0.99", *CONTROLS),
        *(_block(model, "0.99", "harmonization") for model in ("convnext", "vit")),
    ),
    tables={
        "Closed set": (Figure("shifted", "accuracy, shifted"), Figure("in_distribution", "accuracy, in distribution")),
        "Open set, shifted": _open_set("shifted"),
        "Open set, in distribution": _open_set("in_distribution"),
    },
    scenarios="correlation of colour and class",
    packages=("scikit-learn",),
)

if __name__ == "__main__":
    main(STUDY, __doc__)
