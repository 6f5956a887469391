"""A healthy dataset, and what its rows are encoded with, for tests that plant defects."""

from __future__ import annotations

import io
from typing import Any

import datasets
import numpy as np
from PIL import Image

CLASSES = ["healthy", "rust"]
SIZE = (48, 40)


def encoded(image: Image.Image | np.ndarray, name: str, **settings: Any) -> dict[str, Any]:
    """A picture as a dataset stores it; the file's format is told by its name."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, format=Image.registered_extensions()["." + name.rpartition(".")[2]], **settings)
    return {"bytes": buffer.getvalue(), "path": name}


def healthy_rows(count: int = 24, seed: int = 0) -> list[dict[str, Any]]:
    """Pictures of random blobs, each with a map that marks a rectangle somewhere, and every class alike."""
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        blobs = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(SIZE)
        rows.append(
            {
                "image": encoded(blobs, f"{index}.png"),
                "saliency": encoded(healthy_map(generator), f"{index}.png"),
                "label": index % len(CLASSES),
            }
        )
    return rows


def healthy_map(generator: np.random.Generator) -> np.ndarray:
    """uint8 (40, 48): a rectangle of 8 to 12 pixels on each side, anywhere."""
    values = np.zeros(SIZE[::-1], dtype=np.uint8)
    height, width = generator.integers(8, 13, 2)
    top, left = generator.integers(SIZE[1] - height + 1), generator.integers(SIZE[0] - width + 1)
    values[top : top + height, left : left + width] = generator.integers(100, 256)
    return values


def as_splits(
    rows: list[dict[str, Any]], saliency: Any = None, classes: list[str] | None = None, **features: Any
) -> datasets.DatasetDict:
    """The first two thirds as `train`, the rest as `test`."""
    columns = datasets.Features(
        {
            "image": datasets.Image(),
            "saliency": saliency or datasets.Image(),
            "label": datasets.ClassLabel(names=classes or CLASSES),
            **features,
        }
    )
    columns = datasets.Features({name: columns[name] for name in columns if any(name in row for row in rows)})
    cut = len(rows) * 2 // 3
    return datasets.DatasetDict(
        train=datasets.Dataset.from_list(rows[:cut], features=columns),
        test=datasets.Dataset.from_list(rows[cut:], features=columns),
    )
