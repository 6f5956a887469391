"""What the measurements of a model's maps share: the splits that have human maps, and means over their pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np

from ..data.annotated import rows_with_map
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
        raise _no_map(what, splits, column)
    return measured


def check_maps(trainer: SageTrainer, splits: Mapping[str, Any], *, needed_by: str | None = None) -> None:
    """
    Read the maps of raw splits as a measurement will, before hours of training are spent: `args.check_rows` rows each.

    Args:
        trainer ([`SageTrainer`]): that will measure.
        splits (`dict`): raw, by name. Streams are left out: their rows come when they are read.
        needed_by (`str`, *optional*): what can't be done without any map.

    Raises:
        [`DataError`]: a map that can't be used; or none at all, if they are needed.
    """
    column = trainer.args.saliency_column
    stored = {name: split for name, split in splits.items() if isinstance(split, datasets.Dataset)}
    found = [name for name, split in stored.items() if rows_with_map(split, column)]
    args = trainer.args
    shared = {"process_index": args.process_index, "num_processes": args.world_size, "guides": False}
    marked = []
    for name in found:
        prepared = trainer.preparation(stored[name], name, maps=True, some_classes=True)
        # Blank maps are what a split of healthy pictures has.
        marked.append(not args.check_rows or prepared.check(args.check_rows, **shared))
    if needed_by is not None and len(stored) == len(splits) and not any(marked):
        raise _no_map(needed_by, splits, column)


def _no_map(what: str, splits: Mapping[str, Any], column: str) -> DataError:
    return DataError(f"{what}: no row of the splits {', '.join(splits)} has a map in the column {column!r}.")


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
