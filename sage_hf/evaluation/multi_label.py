"""Several labels a picture: the figures that scikit-learn has, under the field's names, as an `evaluate` module."""

from __future__ import annotations

import inspect
from typing import Any

import datasets
import evaluate
import numpy as np


class MultiLabel(evaluate.Metric):
    """
    Subset accuracy (every label right), micro and macro F1 at a probability of one half, and mean average precision
    over the labels that occur, each in [0, 1].

    Limitations:
        One half is the threshold of every label, also of rare ones that another would suit better; mean average
        precision needs none. Subset accuracy gets stricter with the number of labels.

    Example:

    ```python
    >>> from sage_hf.evaluation import MultiLabel
    >>> scores = MultiLabel(keep_in_memory=True).compute(
    ...     predictions=[[0.9, 0.6], [0.2, 0.8]], references=[[1, 0], [0, 1]]
    ... )
    >>> {name: round(value, 3) for name, value in scores.items()}
    {'subset_accuracy': 0.5, 'micro_f1': 0.8, 'macro_f1': 0.833, 'mean_average_precision': 1.0}

    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Subset accuracy, F1 and mean average precision of multi-label classification.",
            citation="",
            inputs_description=inspect.getdoc(self._compute),
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float64")),
                    "references": datasets.List(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        """
        Args:
            predictions (`list[list[float]]`): probabilities, shape (rows, labels), in [0, 1].
            references (`list[list[int]]`): shape (rows, labels), 1 where the label is present, 0 where it is not.

        Returns:
            `dict[str, float]`: each in [0, 1], higher is better.
            - `subset_accuracy`: share of rows with every label right.
            - `micro_f1`: F1 of all rows and labels taken together.
            - `macro_f1`: mean F1 of the labels.
            - `mean_average_precision`: mean over the labels that occur; left out if none does.

        Raises:
            `ValueError`: no rows; rows of different lengths; probabilities outside [0, 1]; references other than 0
                and 1.
        """
        _check(predictions, references)
        probabilities, targets = np.asarray(predictions), np.asarray(references)
        present, predicted = targets == 1, probabilities > 0.5
        # All labels at once, not scikit-learn's one after the other: a thousand resamples ask for it.
        found, named = (present & predicted).sum(axis=0), present.sum(axis=0) + predicted.sum(axis=0)
        scores = {
            "subset_accuracy": (present == predicted).all(axis=1).mean(),
            "micro_f1": 2 * found.sum() / max(named.sum(), 1),
            "macro_f1": (2 * found / np.maximum(named, 1)).mean(),
        }
        occurring = present.any(axis=0)  # the precision of a label that never occurs is not defined
        if occurring.any():
            precisions = _average_precisions(probabilities[:, occurring], present[:, occurring])
            scores["mean_average_precision"] = precisions.mean()
        return {name: float(value) for name, value in scores.items()}


def _average_precisions(probabilities: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Of each label: the mean, over the rows that have it, of the precision at their probability."""
    order = np.argsort(-probabilities, axis=0)
    ranked = np.take_along_axis(probabilities, order, axis=0)
    hits = np.take_along_axis(present, order, axis=0)
    found, rows = hits.cumsum(axis=0), np.arange(len(ranked))[:, None]
    # Rows that tie are found together: each counts with the precision at the last one.
    last = np.ones_like(hits)
    last[:-1] = ranked[1:] != ranked[:-1]
    ends = np.minimum.accumulate(np.where(last, rows, len(ranked))[::-1], axis=0)[::-1]
    precision = np.take_along_axis(found, ends, axis=0) / (ends + 1)
    return (precision * hits).sum(axis=0) / found[-1]


def _check(predictions: Any, references: Any) -> None:
    widths = sorted({len(row) for rows in (predictions, references) for row in rows})
    if len(widths) != 1 or widths == [0]:
        raise ValueError(
            f"Rows of predictions and references have {widths} numbers, expected one for each label in each row."
        )
    probabilities, targets = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.float64)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # NaN is not either
        raise ValueError("Predictions hold NaN or a number outside [0, 1]. Apply a sigmoid to finite logits.")
    if not np.isin(targets, (0, 1)).all():
        raise ValueError(
            f"References hold {np.setdiff1d(targets, (0, 1))[:5].tolist()}, expected 0 and 1. Round soft targets."
        )
