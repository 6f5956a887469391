"""Closed-set classification: scikit-learn's figures under the names that the field uses."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, recall_score
from transformers import EvalPrediction


def classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """
    Accuracy, balanced accuracy (mean recall of the classes that occur) and macro F1, each in [0, 1].

    Fits `compute_metrics` of [`SageTrainer`].

    Args:
        prediction ([`~transformers.EvalPrediction`]): `predictions` are logits (rows, labels), `label_ids` (rows,).

    Example:

    ```python
    >>> import numpy as np
    >>> from transformers import EvalPrediction
    >>> from sage_hf.evaluation import classification_metrics
    >>> logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    >>> metrics = classification_metrics(EvalPrediction(predictions=logits, label_ids=np.array([0, 1, 1])))
    >>> {name: round(value, 3) for name, value in metrics.items()}
    {'accuracy': 0.667, 'balanced_accuracy': 0.75, 'macro_f1': 0.667}

    ```
    """
    labels = np.asarray(prediction.label_ids)
    predicted = np.asarray(prediction.predictions).argmax(axis=-1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        # scikit-learn's balanced_accuracy_score warns when a prediction names a class that does not occur.
        "balanced_accuracy": float(
            recall_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0.0)
        ),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0.0)),
    }
