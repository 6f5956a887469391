"""Several labels a picture: scikit-learn's figures under the names that the field uses, as an `evaluate` module."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.special import expit
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from transformers import EvalPrediction


class MultiLabel(evaluate.Metric):
    """
    Subset accuracy (every label right), micro and macro F1 at a probability of one half, and mean average precision
    over the labels that occur, each in [0, 1].

    `predictions` are probabilities and `references` zeros and ones, each (rows, labels).

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
            inputs_description="predictions: probabilities of the labels; references: zeros and ones.",
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float32")),
                    "references": datasets.List(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        probabilities, targets = np.asarray(predictions), np.asarray(references)
        predicted = (probabilities > 0.5).astype(int)
        scores = {
            "subset_accuracy": accuracy_score(targets, predicted),
            "micro_f1": f1_score(targets, predicted, average="micro", zero_division=0.0),
            "macro_f1": f1_score(targets, predicted, average="macro", zero_division=0.0),
        }
        occurring = targets.any(axis=0)  # the precision of a label that never occurs is not defined
        if occurring.any():
            scores["mean_average_precision"] = average_precision_score(
                targets[:, occurring], probabilities[:, occurring], average="macro"
            )
        return {name: float(value) for name, value in scores.items()}


def multi_label_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """
    [`MultiLabel`] of a Trainer's predictions: fits `compute_metrics` of [`SageTrainer`].

    Args:
        prediction ([`~transformers.EvalPrediction`]): `predictions` are logits and `label_ids` targets, each (rows,
            labels). A soft target counts as present from one half on.

    Example:

    ```python
    >>> import numpy as np
    >>> from transformers import EvalPrediction
    >>> from sage_hf.evaluation import multi_label_metrics
    >>> logits, labels = np.array([[2.0, -1.0], [-3.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> multi_label_metrics(EvalPrediction(predictions=logits, label_ids=labels))["subset_accuracy"]
    1.0

    ```
    """
    references = (np.asarray(prediction.label_ids) >= 0.5).astype(int)
    probabilities = expit(np.asarray(prediction.predictions, dtype=np.float64))
    return MultiLabel(keep_in_memory=True).compute(predictions=probabilities, references=references)
