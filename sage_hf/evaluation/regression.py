"""Numbers: scikit-learn's figures under the names that the field uses, as an `evaluate` module."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from transformers import EvalPrediction


class Regression(evaluate.Metric):
    """
    Mean absolute error and root mean squared error, in the labels' own unit, and the coefficient of determination R2,
    at most 1; means over the outputs if there are several. R2 needs two rows.

    Example:

    ```python
    >>> from sage_hf.evaluation import Regression
    >>> scores = Regression(keep_in_memory=True).compute(predictions=[[1.0], [4.0]], references=[[1.0], [3.0]])
    >>> {name: round(value, 3) for name, value in scores.items()}
    {'mean_absolute_error': 0.5, 'root_mean_squared_error': 0.707, 'r2': 0.5}

    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        numbers = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description="Mean absolute error, root mean squared error and R2 of a regression.",
            citation="",
            inputs_description="predictions and references: a list of numbers for each row.",
            features=datasets.Features({"predictions": numbers, "references": numbers}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores = {
            "mean_absolute_error": mean_absolute_error(references, predictions),
            "root_mean_squared_error": root_mean_squared_error(references, predictions),
        }
        if len(references) > 1:
            scores["r2"] = r2_score(references, predictions)
        return {name: float(value) for name, value in scores.items()}


def regression_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """
    [`Regression`] of a Trainer's predictions: fits `compute_metrics` of [`SageTrainer`].

    Args:
        prediction ([`~transformers.EvalPrediction`]): `predictions` are outputs (rows, outputs), `label_ids` the same
            or (rows,).

    Example:

    ```python
    >>> import numpy as np
    >>> from transformers import EvalPrediction
    >>> from sage_hf.evaluation import regression_metrics
    >>> outputs, labels = np.array([[1.0], [4.0]]), np.array([1.0, 3.0])
    >>> regression_metrics(EvalPrediction(predictions=outputs, label_ids=labels))["mean_absolute_error"]
    0.5

    ```
    """
    outputs = np.asarray(prediction.predictions, dtype=np.float64)
    labels = np.asarray(prediction.label_ids, dtype=np.float64).reshape(outputs.shape)
    return Regression(keep_in_memory=True).compute(predictions=outputs, references=labels)
