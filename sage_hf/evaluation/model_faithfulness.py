"""Whether a trained model rests on what its maps, and humans, mark: pixels are removed, and it predicts again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor

from ..forwarding import Encoder
from ..tasks import SINGLE_LABEL
from ..trainer import SageTrainer
from .annotated_splits import mean_figures, measure_splits
from .model_saliency import METHODS, model_saliency
from .removal import deletion_insertion, without_marked_region

CURVES = ("deletion", "insertion")
MARKED = (
    "comprehensiveness",
    "sufficiency",
    "accuracy",
    "accuracy_without_marked",
    "accuracy_marked_only",
)


def model_faithfulness(trainer: SageTrainer, dataset: Any, resamples: int = 1000) -> dict[str, Any] | None:
    """
    Deletion and insertion by a model's maps and by human ones, and predictions without the marked region.

    All of the class that the model predicts for the whole picture, at the size of its input.

    Args:
        trainer ([`SageTrainer`]): with the model, and the batch size for evaluation.
        dataset: prepared with maps (`trainer.preparation(dataset, name, maps=True)`): `pixel_values`, `saliency` and
            `labels`.
        resamples (`int`, *optional*, defaults to 1000): for the 95% intervals over pictures; 0 for none.

    Returns:
        `dict`: `pictures`, the number of rows with a map; for `"cam"`, `"gradient"` ([`model_saliency`]) and
        `"human"`, `deletion` and `insertion` of [`deletion_insertion`]; and as `"marked_region"` the means of
        [`without_marked_region`], with the accuracy on whole pictures, without and with nothing but what is marked;
        each figure `value`, `low` and `high`. `None` if no row has a map. The same on all processes.

    Raises:
        `ValueError`: a model of another problem than a class a picture, or without class activation maps.
    """
    if trainer.task.problem_type != SINGLE_LABEL:
        raise ValueError(f"Faithfulness is measured of one label a picture, not of {trainer.task.problem_type}.")
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    interpolate = trainer.args.interpolate_pos_encoding
    encoder = Encoder(model, interpolate_pos_encoding=interpolate)
    model.eval()

    def predict(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            return encoder.logits(model, {"pixel_values": pictures}).float().softmax(dim=1)

    width = len(CURVES) * (len(METHODS) + 1) + len(MARKED)
    found = []
    for batch in trainer.get_test_dataloader(dataset):
        scores = torch.full((len(batch["pixel_values"]), width), torch.nan, device=trainer.accelerator.device)
        rows = batch["saliency_mask"].nonzero().squeeze(1)
        if len(rows):
            pictures, saliency, labels = (batch[name][rows] for name in ("pixel_values", "saliency", "labels"))
            targets = predict(pictures).argmax(dim=1)
            columns: list[Tensor] = []
            for method in METHODS:
                maps = model_saliency(model, pictures, targets, method, interpolate_pos_encoding=interpolate)
                columns += deletion_insertion(predict, pictures, maps, targets)
            columns += deletion_insertion(predict, pictures, saliency.squeeze(1), targets)
            changed = without_marked_region(predict, pictures, saliency, targets)
            columns += [changed["comprehensiveness"], changed["sufficiency"]]
            predicted = (targets, changed["predicted_without_marked"], changed["predicted_marked_only"])
            columns += [(one == labels).float() for one in predicted]
            scores[rows] = torch.stack([column.float() for column in columns], dim=1)
        found.append(trainer.accelerator.gather_for_metrics(scores).cpu())
    measured = torch.cat(found).double().numpy()
    measured = measured[~np.isnan(measured).any(axis=1)]
    if not len(measured):
        return None
    parts: dict[str, tuple[str, ...]] = dict.fromkeys((*METHODS, "human"), CURVES) | {"marked_region": MARKED}
    result: dict[str, Any] = {"pictures": len(measured)}
    start = 0
    for part, names in parts.items():
        result[part] = mean_figures(measured[:, start : start + len(names)], names, resamples)
        start += len(names)
    return result


def faithfulness_of_splits(
    trainer: SageTrainer, splits: Mapping[str, datasets.Dataset], resamples: int = 1000
) -> dict[str, dict[str, Any]]:
    """
    [`model_faithfulness`] of each raw split that has maps.

    Raises:
        [`DataError`]: none has.
    """
    return measure_splits(model_faithfulness, "faithfulness", trainer, splits, resamples)
