"""Closed-set classification: scikit-learn's figures under the names that the field uses, as an `evaluate` module."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, f1_score, recall_score
from transformers import EvalPrediction


class Classification(evaluate.Metric):
    """
    Accuracy, balanced accuracy (mean recall of the classes that occur) and macro F1, each in [0, 1].

    Example:

    ```python
    >>> from sage_hf.evaluation import Classification
    >>> scores = Classification(keep_in_memory=True).compute(predictions=[0, 1, 0], references=[0, 1, 1])
    >>> {name: round(value, 3) for name, value in scores.items()}
    {'accuracy': 0.667, 'balanced_accuracy': 0.75, 'macro_f1': 0.667}

    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, balanced accuracy and macro F1 of single-label classification.",
            citation="",
            inputs_description="predictions and references: class indices.",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        occurring = np.unique(references)
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            # scikit-learn's balanced_accuracy_score warns when a prediction names a class that does not occur.
            "balanced_accuracy": float(
                recall_score(references, predictions, labels=occurring, average="macro", zero_division=0.0)
            ),
            "macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0.0)),
        }


def classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """
    [`Classification`] of a Trainer's predictions: fits `compute_metrics` of [`SageTrainer`].

    Args:
        prediction ([`~transformers.EvalPrediction`]): `predictions` are logits (rows, labels), `label_ids` (rows,).

    Example:

    ```python
    >>> import numpy as np
    >>> from transformers import EvalPrediction
    >>> from sage_hf.evaluation import classification_metrics
    >>> logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    >>> classification_metrics(EvalPrediction(predictions=logits, label_ids=np.array([0, 1, 1])))["balanced_accuracy"]
    0.75

    ```
    """
    predicted = np.asarray(prediction.predictions).argmax(axis=-1)
    return Classification(keep_in_memory=True).compute(predictions=predicted, references=prediction.label_ids)
