"""A run's figures in the two formats that the Hub reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from ..tasks import REGRESSION
from .run_record import RunRecord

FOLDER = ".eval_results"


def value_of(figure: Any) -> float:
    """The figure itself, of a number or of one with the ends of its interval."""
    return figure["value"] if isinstance(figure, dict) else figure


def eval_results(record: RunRecord) -> list[EvalResult]:
    """
    For the `model-index` of a card: every figure on a Hub dataset. What was measured on local data is in the card's
    table alone, because nobody else could find the data by its name.
    """
    if record.dataset is None:
        return []
    regression = record.problem_type == REGRESSION
    return [
        EvalResult(
            task_type="image-to-number" if regression else "image-classification",
            dataset_type=record.dataset,
            dataset_name=record.dataset,
            dataset_split=split,
            dataset_revision=record.dataset_revision,
            metric_type=metric,
            metric_name=metric.replace("_", " "),
            metric_value=value_of(figure),
        )
        for split, figures in record.metrics.items()
        for metric, figure in figures.items()
    ]


def write_eval_results(record: RunRecord, folder: str | Path) -> list[Path]:
    """
    Write `.eval_results/DATASET_SPLIT.yaml`, one file a split, as the Hub shows them on model and dataset pages
    (https://huggingface.co/docs/hub/eval-results). Nothing is written for local data; what an earlier run of other
    data left there is removed.

    Returns:
        `list[Path]`: the files.
    """
    where = Path(folder) / FOLDER
    written = []
    if record.dataset is not None:
        where.mkdir(exist_ok=True)
        for split, figures in record.metrics.items():
            entries = [
                EvalResultEntry(
                    dataset_id=record.dataset,
                    task_id=f"{split}_{metric}",
                    value=value_of(figure),
                    dataset_revision=record.dataset_revision,
                    notes=_interval(figure),
                )
                for metric, figure in figures.items()
            ]
            file = where / f"{record.dataset.replace('/', '_')}_{split}.yaml"
            file.write_text(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False), encoding="utf-8")
            written.append(file)
    for stale in set(where.glob("*.yaml")) - set(written):
        stale.unlink()
    return written


def _interval(figure: Any) -> str | None:
    return f"95% interval {figure['low']:.4f} to {figure['high']:.4f}" if isinstance(figure, dict) else None
