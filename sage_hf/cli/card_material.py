"""What a card shows beside the run itself: other runs, pictures."""

from __future__ import annotations

import itertools
import json
import zlib
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers.utils import logging

from ..data.annotated import rows_with_map
from ..data.saliency import DataError
from ..data.streams import CHECKED_ROWS, StreamedDataset, known_rows
from ..evaluation.model_saliency import METHODS, model_saliency
from ..objectives import AugmentObjective, SageObjective
from ..trainer import SageTrainer
from ..training_args import SageTrainingArguments
from ..visualization import alignment_grid, view_grid

logger = logging.get_logger(__name__)
VIEWS, ALIGNMENT = "views.png", "alignment.png"


def read_compared_run(folder: str, data: dict[str, str]) -> dict[str, Any]:
    """
    The results of another run, to stand on this one's card.

    Args:
        folder (`str`): the other run's output folder, with its `results.json`.
        data (`dict`): this run's data, see [`fingerprint`].

    Raises:
        `ValueError`: there is none, or it is no run of the same data.
    """
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise ValueError(
            f"compare_with: {folder} has no results.json; name the output folder of a `sage-hf train` run."
        )
    other = json.loads(path.read_text(encoding="utf-8"))
    if other.get("data") != data:
        raise ValueError(
            f"compare_with: {folder} was trained on other data ({other.get('data')}, here {data}): the two can't be "
            "compared on one card."
        )
    return other | {"folder": folder}


def comparable(others: list[dict[str, Any]], steps: int) -> list[dict[str, Any]]:
    """What a card says of the other runs that were as long as this one; the rest is left out, and said to be."""
    kept = ("guidance", "saliency_control", "seed", "metrics")
    for other in others:
        if other["steps"] != steps:
            logger.warning(
                "%s took %d steps and this run %d: it is left off the card.", other["folder"], other["steps"], steps
            )
    return [{name: other[name] for name in kept} for other in others if other["steps"] == steps]


def fingerprint(
    splits: datasets.DatasetDict | datasets.IterableDatasetDict, args: SageTrainingArguments
) -> dict[str, str]:
    """
    What two runs must share to stand in one table: the rows of each split, with a checksum of their labels, and how
    many rows an optimizer step takes. Of a stream, the rows as its dataset counts them, without the labels.
    """
    rows = {
        name: f"{known_rows(split) or 'unknown'} rows, streamed"
        if isinstance(split, datasets.IterableDataset)
        else f"{len(split)} rows, labels {_checksum(split, args.label_column)}"
        for name, split in splits.items()
    }
    step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return rows | {"optimizer step": f"{step} rows"}


def _checksum(split: datasets.Dataset, label_column: str) -> str:
    labels = list(split[label_column]) if label_column in split.column_names else []
    return f"{zlib.crc32(json.dumps(labels).encode()):08x}"


def draw_pictures(trainer: SageTrainer, count: int) -> dict[str, str]:
    """
    Draw the first annotated training pictures, their maps and views, into the output folder.

    Returns:
        `dict[str, str]`: captions by file name; empty if no pictures are wanted, or nothing guides.

    Raises:
        [`DataError`]: pictures that can't be drawn, being of other than one or three channels.
    """
    objective = trainer.guidance_objective
    if count < 1 or objective is None:
        return {}
    dataset: Any = trainer.train_dataset
    each = dataset if isinstance(dataset, StreamedDataset) else map(dataset.__getitem__, range(len(dataset)))
    with_map = (row for row in each if row.get("saliency") is not None)
    rows = list(itertools.islice(with_map, max(count, *objective.fewest_rows)))
    pixel_values, saliency = (torch.stack([row[name] for row in rows]) for name in ("pixel_values", "saliency"))
    _check_drawable(pixel_values)
    generator = torch.Generator().manual_seed(trainer.args.seed)
    every = torch.arange(len(rows))
    saliency = objective.maps(saliency, every, generator)
    views = objective.views(pixel_values, saliency, every, generator)
    known = {SageObjective: ("x+ keeps it", "x- removes it"), AugmentObjective: ("x+ keeps it",)}
    headers: tuple[str, ...] = next((names for kind, names in known.items() if isinstance(objective, kind)), ())
    drawn = view_grid(pixel_values[:count], saliency[:count], views, *_normalisation(trainer), headers)
    drawn.save(Path(str(trainer.args.output_dir)) / VIEWS)
    captions = {
        2: "Training pictures, their maps, and the views that keep and that remove what the maps mark.",
        1: "Training pictures, their maps, and the views that keep what the maps mark.",
    }
    return {VIEWS: captions.get(len(headers), "Training pictures and their maps.")}


def draw_alignment(
    trainer: SageTrainer, held_out: dict[str, datasets.Dataset], training: datasets.Dataset, count: int
) -> dict[str, str]:
    """
    Draw where the model looks beside the maps, into the output folder: for the first annotated rows of the first of
    the held-out splits that has any, or else of the training data.

    Args:
        trainer ([`SageTrainer`]): trained.
        held_out (`dict[str, datasets.Dataset]`): the evaluated splits, raw.
        training (`datasets.Dataset`): the training split, raw.
        count (`int`): how many rows.

    Returns:
        `dict[str, str]`: captions by file name; empty if no pictures are wanted, or no row has a map.

    Raises:
        [`DataError`]: as in [`draw_pictures`].
    """
    if count < 1:
        return {}
    sources = {f"Pictures of the {name} split, not trained on": split for name, split in held_out.items()}
    sources["Pictures that it was trained on"] = training
    found = ((source, _annotated(trainer, split, count)) for source, split in sources.items())
    source, rows = next(((source, rows) for source, rows in found if rows), ("", []))
    if not rows:
        return {}
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    pixel_values, saliency = (torch.stack([row[column] for row in rows]) for column in ("pixel_values", "saliency"))
    _check_drawable(pixel_values)
    looked = {
        method: model_saliency(
            model,
            pixel_values.to(trainer.args.device),
            method=method,
            interpolate_pos_encoding=trainer.args.interpolate_pos_encoding,
        ).cpu()
        for method in METHODS
    }
    drawn = alignment_grid(pixel_values, saliency, looked, *_normalisation(trainer))
    drawn.save(Path(str(trainer.args.output_dir)) / ALIGNMENT)
    return {
        ALIGNMENT: f"{source}: what was marked in them, and where the model looks for the class that it predicts "
        "(class activation map, input gradient)."
    }


def _annotated(
    trainer: SageTrainer, split: datasets.Dataset | datasets.IterableDataset, count: int
) -> list[dict[str, Any]]:
    """The first rows of a raw split that have a map, prepared without augmentation; of a stream's first rows alone."""
    column = trainer.args.saliency_column
    if column not in (split.column_names or ()):
        return []
    prepared = trainer.preparation(split, "pictured", maps=True)
    if isinstance(split, datasets.IterableDataset):
        first = itertools.islice(prepared, CHECKED_ROWS)
        return list(itertools.islice((row for row in first if row["saliency"] is not None), count))
    present = rows_with_map(split, column)
    with_map = (row for row in map(prepared.__getitem__, present) if row["saliency"] is not None)
    return list(itertools.islice(with_map, count))


def _check_drawable(pixel_values: torch.Tensor) -> None:
    if pixel_values.shape[1] not in (1, 3):
        raise DataError(f"card_pictures: pictures of {pixel_values.shape[1]} channels can't be drawn. Leave it out.")


def _normalisation(trainer: SageTrainer) -> tuple[list[float], list[float]]:
    processor: Any = trainer.processing_class
    return getattr(processor, "image_mean", None) or [0.0], getattr(processor, "image_std", None) or [1.0]
