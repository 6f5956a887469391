"""Rows of a dataset that can be drawn, and what an objective makes of them as one picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import datasets
import torch
from PIL import Image

from .data.annotated import rows_with_map
from .data.preparation import Preparation
from .data.saliency import DataError
from .data.streams import CHECKED_ROWS
from .objectives import AugmentObjective, Objective, SageObjective
from .visualization import view_grid

VIEW_HEADERS: dict[type[Objective], tuple[str, ...]] = {
    SageObjective: ("x+ keeps it", "x- removes it"),
    AugmentObjective: ("x+ keeps it",),
}
"""What the views of an objective are called; those of any other are not drawn."""


def annotated_rows(preparation: Preparation, split: Any, count: int) -> list[dict[str, Any]]:
    """
    The first rows that have a map, prepared without augmentation; of a stream's first rows alone.

    Args:
        preparation ([`~sage_hf.data.preparation.Preparation`]): the Trainer's.
        split: raw, or any other dataset that the Trainer takes, with `pixel_values` and `saliency` in its rows.
        count (`int`): how many rows at most.

    Returns:
        `list[dict]`: rows with `pixel_values` and `saliency`; fewer than `count` if there are no more.
    """
    column = preparation.args.saliency_column
    names = getattr(split, "column_names", None)
    if names is None or "pixel_values" in names or getattr(split, "format", {}).get("type") == "custom":
        # Prepared by their owner: whether a row has a map is known when it is read.
        rows = map(split.__getitem__, range(len(split))) if hasattr(split, "__len__") else split
        return _with_map(itertools.islice(rows, CHECKED_ROWS), count)
    if column not in names:
        return []
    prepared = preparation(split, "pictured", maps=True)
    if isinstance(split, datasets.IterableDataset):
        return _with_map(itertools.islice(prepared, CHECKED_ROWS), count)
    return _with_map(map(prepared.__getitem__, rows_with_map(split, column)), count)


def _with_map(rows: Iterable[Any], count: int) -> list[dict[str, Any]]:
    held = (row for row in rows if isinstance(row, dict) and row.get("saliency") is not None and "pixel_values" in row)
    return list(itertools.islice(held, count))


def draw_objective(
    objective: Objective,
    rows: list[dict[str, Any]],
    count: int,
    processor: Any,
    generator: torch.Generator,
) -> tuple[Image.Image, int]:
    """
    Pictures, their maps and the views that an objective makes of them.

    Args:
        objective ([`Objective`]): what guides.
        rows (`list[dict]`): from [`annotated_rows`]; as many as its `fewest_rows` at least.
        count (`int`): how many of them to draw.
        processor ([`~transformers.BaseImageProcessor`], *optional*): says how pictures were normalised.
        generator (`torch.Generator`): the randomness of the views.

    Returns:
        `tuple[PIL.Image.Image, int]`: the grid, and how many views it shows of each picture.

    Raises:
        [`DataError`]: pictures of other than one or three channels.
    """
    pixel_values, saliency = (torch.stack([row[name] for row in rows]) for name in ("pixel_values", "saliency"))
    check_drawable(pixel_values)
    every = torch.arange(len(rows))
    saliency = objective.maps(saliency, every, generator)
    views = objective.views(pixel_values, saliency, every, generator)
    headers = next((names for kind, names in VIEW_HEADERS.items() if isinstance(objective, kind)), ())
    drawn = view_grid(pixel_values[:count], saliency[:count], views, *normalisation(processor), headers)
    return drawn, len(headers)


def check_drawable(pixel_values: torch.Tensor) -> None:
    """
    Refuse pictures, (rows, channels, height, width), that are neither grey nor in colour.

    Raises:
        [`DataError`]: they have other than one or three channels.
    """
    if pixel_values.shape[1] not in (1, 3):
        raise DataError(f"pictures of {pixel_values.shape[1]} channels can't be drawn.")


def normalisation(processor: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation that an image processor normalises by, as for [`~sage_hf.visualization.picture`]."""
    return getattr(processor, "image_mean", None) or [0.0], getattr(processor, "image_std", None) or [1.0]
