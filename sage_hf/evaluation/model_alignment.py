"""How far a model looks where humans looked: its maps against those of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor

from ..trainer import SageTrainer
from .annotated_splits import mean_figures, measure_splits
from .model_saliency import METHODS, model_saliency
from .saliency_alignment import alignment_scores

FIGURES = ("cc", "sim", "kl", "nss", "auc_judd")


def model_alignment(trainer: SageTrainer, dataset: Any, resamples: int = 1000) -> dict[str, Any] | None:
    """
    Agreement of a model's maps ([`model_saliency`], of the class it predicts) with those of a dataset.

    They are compared as the model sees them: at the size, and within the crop, of its input.

    Args:
        trainer ([`SageTrainer`]): with the model, and the batch size for evaluation.
        dataset: prepared with maps (`trainer.preparation(dataset, name, maps=True)`): `pixel_values` and `saliency`.
        resamples (`int`, *optional*, defaults to 1000): for the 95% intervals over pictures; 0 for none.

    Returns:
        `dict`: `pictures`, the number of rows with a map; and for each method (`"cam"`, `"gradient"`) the figures of
        [`SaliencyAlignment`] `cc`, `sim`, `kl`, `nss` and `auc_judd`, each `value`, `low` and `high`. `None` if no row
        has a map. The same on all processes.

    Raises:
        `ValueError`: a model without class activation maps, see [`model_saliency`].
    """
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    found = []
    for batch in trainer.get_test_dataloader(dataset):
        scores = torch.full((len(batch["pixel_values"]), len(METHODS), len(FIGURES)), torch.nan)
        rows = batch["saliency_mask"].nonzero().squeeze(1).cpu()
        if len(rows):
            pictures = batch["pixel_values"][rows.to(batch["pixel_values"].device)]
            references = _arrays(batch["saliency"].squeeze(1)[rows.to(batch["saliency"].device)])
            for place, method in enumerate(METHODS):
                interpolate = trainer.args.interpolate_pos_encoding
                maps = model_saliency(model, pictures, method=method, interpolate_pos_encoding=interpolate)
                by_name = alignment_scores(_arrays(maps), references)
                scores[rows, place] = torch.tensor([by_name[name] for name in FIGURES]).T
        found.append(trainer.accelerator.gather_for_metrics(scores.to(trainer.accelerator.device)).cpu())
    measured = torch.cat(found).double().numpy()
    measured = measured[~np.isnan(measured).any(axis=(1, 2))]
    if not len(measured):
        return None
    return {"pictures": len(measured)} | {
        method: mean_figures(measured[:, place], FIGURES, resamples) for place, method in enumerate(METHODS)
    }


def align_splits(
    trainer: SageTrainer, splits: Mapping[str, datasets.Dataset], resamples: int = 1000
) -> dict[str, dict[str, Any]]:
    """
    [`model_alignment`] of each raw split that has maps.

    Raises:
        [`DataError`]: none has.
    """
    return measure_splits(model_alignment, "saliency", trainer, splits, resamples)


def _arrays(maps: Tensor) -> list[np.ndarray]:
    return list(maps.cpu().double().numpy())  # in this order: MPS has no float64
