"""What a card shows beside the run itself: other runs, pictures."""

from __future__ import annotations

import contextlib
import itertools
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers.utils import logging

from ..data.saliency import DataError
from ..data.streams import StreamedDataset, known_rows
from ..evaluation.model_saliency import METHODS, model_saliency
from ..pictured import annotated_rows, check_drawable, draw_objective, normalisation
from ..trainer import SageTrainer
from ..training_args import SageTrainingArguments
from ..visualization import alignment_grid

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
    generator = torch.Generator().manual_seed(trainer.args.seed)
    with _said_by("card_pictures"):
        drawn, views = draw_objective(objective, rows, count, trainer.processing_class, generator)
    drawn.save(Path(str(trainer.args.output_dir)) / VIEWS)
    captions = {
        2: "Training pictures, their maps, and the views that keep and that remove what the maps mark.",
        1: "Training pictures, their maps, and the views that keep what the maps mark.",
    }
    return {VIEWS: captions.get(views, "Training pictures and their maps.")}


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
    column = trainer.args.saliency_column
    found = (
        (source, annotated_rows(trainer.preparation, split, count) if column in (split.column_names or ()) else [])
        for source, split in sources.items()
    )
    source, rows = next(((source, rows) for source, rows in found if rows), ("", []))
    if not rows:
        return {}
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    pixel_values, saliency = (torch.stack([row[column] for row in rows]) for column in ("pixel_values", "saliency"))
    with _said_by("card_pictures"):
        check_drawable(pixel_values)
    looked = {
        method: model_saliency(
            model,
            pixel_values.to(trainer.args.device),
            method=method,
            interpolate_pos_encoding=trainer.args.interpolate_pos_encoding,
        ).cpu()
        for method in METHODS
    }
    drawn = alignment_grid(pixel_values, saliency, looked, *normalisation(trainer.processing_class))
    drawn.save(Path(str(trainer.args.output_dir)) / ALIGNMENT)
    return {
        ALIGNMENT: f"{source}: what was marked in them, and where the model looks for the class that it predicts "
        "(class activation map, input gradient)."
    }


@contextlib.contextmanager
def _said_by(argument: str) -> Iterator[None]:
    """Errors name the argument that asked for pictures."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{argument}: {error} Leave it out.") from error
