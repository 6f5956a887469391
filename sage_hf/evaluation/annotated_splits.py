"""What the measurements of a model's maps share: the splits that have human maps, and means over their pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np

from ..data.saliency import DataError
from ..trainer import SageTrainer
from .intervals import bootstrap_intervals

Measure = Callable[[SageTrainer, Any, int], dict[str, Any] | None]
"""Takes a trainer, a dataset prepared with maps and the resamples; returns figures, `None` if no row has a map."""


def measure_splits(
    measure: Measure, what: str, trainer: SageTrainer, splits: Mapping[str, datasets.Dataset], resamples: int
) -> dict[str, dict[str, Any]]:
    """
    The figures of each raw split that has maps.

    Args:
        measure (`Callable`): see [`Measure`].
        what (`str`): is measured; opens the error.
        trainer ([`SageTrainer`]): with the model.
        splits (`dict[str, datasets.Dataset]`): raw, by name.
        resamples (`int`): for the 95% intervals over pictures; 0 for none.

    Raises:
        [`DataError`]: none has maps.
    """
    column = trainer.args.saliency_column
    found = {
        name: measure(trainer, trainer.preparation(split, name, maps=True, some_classes=True), resamples)
        for name, split in splits.items()
        if column in split.column_names
    }
    measured = {name: figures for name, figures in found.items() if figures is not None}
    if not measured:
        raise DataError(f"{what}: no row of the splits {', '.join(splits)} has a map in the column {column!r}.")
    return measured


def mean_figures(scores: np.ndarray, names: Sequence[str], resamples: int) -> dict[str, dict[str, float]]:
    """
    Means of scores (pictures, figures), by the figures' names, each `value` and the interval's `low` and `high`.

    Example:

    ```python
    >>> import numpy as np
    >>> from sage_hf.evaluation.annotated_splits import mean_figures
    >>> mean_figures(np.array([[1.0, 4.0], [3.0, 4.0]]), ("cc", "nss"), resamples=0)["cc"]["value"]
    2.0

    ```
    """

    def compute(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return dict(zip(names, predictions.mean(axis=0).tolist(), strict=True))

    return bootstrap_intervals(compute, scores, scores, resamples=resamples)
