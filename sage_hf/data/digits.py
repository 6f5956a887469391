"""Digits with a shortcut: real handwritten digits, and beside each a colour that gives the class away in training."""

from __future__ import annotations

import colorsys

import datasets
import numpy as np
from PIL import Image

SIZE = 32
"""Side of the picture in pixels."""
DIGIT = 16
"""Side of the square that the digit is drawn in."""
CUE = 8
"""Side of the coloured square."""

FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "saliency": datasets.Image(mode="L"),
        "label": datasets.ClassLabel(names=[str(digit) for digit in range(10)]),
    }
)


def digits_with_shortcut(
    correlation: float = 0.98, seed: int = 0, test_seed: int | None = None
) -> datasets.DatasetDict:
    """
    The 1,797 handwritten digits that scikit-learn ships, each with a coloured square beside it.

    A picture is 32x32 RGB on a dark noisy ground. The digit (8x8 in the source) is drawn 16 pixels wide on the left,
    its place varying by up to 4 pixels; the square, 8 pixels wide, stands at the right edge at a random height. In
    `train`, `validation` and `in_distribution` it has the colour of the digit's class with the given probability, and
    a random colour otherwise. In `shifted`, and in `shifted_validation` for tuning, its colour is always random. The
    saliency map marks the square that the digit is drawn in.

    Args:
        correlation (`float`, *optional*, defaults to 0.98): probability that the colour is that of the class.
        seed (`int`, *optional*, defaults to 0): of the split, the places and the colours.
        test_seed (`int`, *optional*): of which digits are for the test, so that they are the same whatever `seed` is
            and settings can be chosen with other seeds, without a look at them; that of `seed` if not given.

    Returns:
        `datasets.DatasetDict`: `train` (997 rows), `validation` and `shifted_validation` (the same 400 digits),
        `in_distribution` and `shifted` (the same 400 digits, disjoint from all others).
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(source.target))
    if test_seed is not None:
        test = np.random.default_rng(test_seed).permutation(len(order))[:400]
        rest = order[~np.isin(order, test)]
        order = np.concatenate([rest[:400], test, rest[400:]])
    validation, test, train = order[:400], order[400:800], order[800:]
    splits = {
        "train": (train, correlation),
        "validation": (validation, correlation),
        "shifted_validation": (validation, 0.0),
        "in_distribution": (test, correlation),
        "shifted": (test, 0.0),
    }
    result = {}
    for name, (indices, probability) in splits.items():
        rows = [_row(source.images[i], int(source.target[i]), probability, generator) for i in indices]
        columns = {column: [row[column] for row in rows] for column in FEATURES}
        result[name] = datasets.Dataset.from_dict(columns, features=FEATURES, split=datasets.NamedSplit(name))
    return datasets.DatasetDict(result)


def _row(digit: np.ndarray, label: int, correlation: float, generator: np.random.Generator) -> dict[str, object]:
    ink = Image.fromarray((digit * (255 / 16)).astype(np.uint8)).resize((DIGIT, DIGIT), Image.Resampling.BICUBIC)
    picture = generator.integers(0, 40, (SIZE, SIZE, 3), dtype=np.uint8)
    saliency = np.zeros((SIZE, SIZE), dtype=np.uint8)

    top, left = int(generator.integers(6, 11)), int(generator.integers(0, 5))
    where = np.s_[top : top + DIGIT, left : left + DIGIT]
    picture[where] = np.maximum(picture[where], np.asarray(ink)[..., None])
    saliency[where] = 255

    colour = label if generator.random() < correlation else int(generator.integers(10))
    top, left = int(generator.integers(SIZE - CUE + 1)), SIZE - CUE
    rgb = np.array(colorsys.hsv_to_rgb(colour / 10, 1.0, 1.0)) * 255
    picture[top : top + CUE, left : left + CUE] = rgb.astype(np.uint8)
    return {"image": Image.fromarray(picture), "saliency": Image.fromarray(saliency), "label": label}
