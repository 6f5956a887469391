"""What a card shows beside the run itself: intervals, other runs, revisions, pictures."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from huggingface_hub import HfApi
from transformers import EvalPrediction
from transformers.trainer_utils import PredictionOutput
from transformers.utils import CONFIG_NAME, cached_file, logging
from transformers.utils.hub import extract_commit_hash

from ..data.saliency import DataError
from ..data.streams import StreamedDataset, known_rows
from ..evaluation import METRICS, bootstrap_intervals
from ..objectives import SageObjective
from ..trainer import SageTrainer
from ..training_args import SageTrainingArguments
from ..visualization import view_grid

logger = logging.get_logger(__name__)
VIEWS = "views.png"


def intervals(prediction: PredictionOutput, problem_type: str, resamples: int) -> dict[str, dict[str, float]]:
    """The figures of a split, with the ends of their 95% intervals; empty without resamples."""
    if not resamples:
        return {}

    def compute(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return METRICS[problem_type](EvalPrediction(predictions=predictions, label_ids=references))

    return bootstrap_intervals(
        compute, np.asarray(prediction.predictions), np.asarray(prediction.label_ids), resamples=resamples
    )


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


def revision_of(
    splits: datasets.DatasetDict | datasets.IterableDatasetDict, repo_id: str, revision: str | None, api: HfApi
) -> str | None:
    """The commit of the Hub dataset that the splits were downloaded from; of streams, the one that is there now."""
    # `datasets` keeps what it downloaded in a folder that is named after the commit.
    for split in splits.values():
        if isinstance(split, datasets.IterableDataset):
            return api.dataset_info(repo_id, revision=revision).sha
        for file in split.cache_files:
            if re.fullmatch(r"[0-9a-f]{40}", commit := Path(file["filename"]).parent.name):
                return commit
    return None


def model_revision(path: str, revision: str) -> str | None:
    """The commit of a model on the Hub that a branch or tag stands for, `None` for a local model."""
    if Path(path).exists():
        return None
    return extract_commit_hash(cached_file(path, CONFIG_NAME, revision=revision), None)


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
    rows: list[dict[str, Any]] = []
    streamed = isinstance(dataset, StreamedDataset)
    for row in dataset if streamed else (dataset[index] for index in range(len(dataset))):
        if row.get("saliency") is not None:
            rows.append(row)
        if len(rows) == max(count, *objective.fewest_rows):
            break
    pixel_values = torch.stack([row["pixel_values"] for row in rows])
    if pixel_values.shape[1] not in (1, 3):
        raise DataError(f"card_pictures: pictures of {pixel_values.shape[1]} channels can't be drawn. Leave it out.")
    saliency = torch.stack([row["saliency"] for row in rows])
    generator = torch.Generator().manual_seed(trainer.args.seed)
    views = objective.views(pixel_values, saliency, torch.arange(len(rows)), generator)
    headers = ("x+ keeps it", "x- removes it") if isinstance(objective, SageObjective) else ()
    processor: Any = trainer.processing_class
    mean, std = (
        getattr(processor, name, None) or default for name, default in (("image_mean", [0.0]), ("image_std", [1.0]))
    )
    drawn = view_grid(pixel_values[:count], saliency[:count], views, mean, std, headers)
    drawn.save(Path(str(trainer.args.output_dir)) / VIEWS)
    return {VIEWS: "Training pictures, their maps, and the views that keep and that remove what the maps mark."}
