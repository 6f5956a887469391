"""The metrics of each problem type, for `compute_metrics` of a Trainer, and their intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import evaluate
import numpy as np
from scipy.special import expit
from transformers import EvalPrediction
from transformers.trainer_utils import PredictionOutput

from ..hub.run_record import TIMING
from ..tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from .classification import Classification
from .intervals import bootstrap_intervals
from .multi_label import MultiLabel
from .regression import Regression


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
    return _computed(prediction, SINGLE_LABEL)


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
    return _computed(prediction, MULTI_LABEL)


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
    return _computed(prediction, REGRESSION)


METRICS: dict[str, Callable[[EvalPrediction], dict[str, float]]] = {
    SINGLE_LABEL: classification_metrics,
    MULTI_LABEL: multi_label_metrics,
    REGRESSION: regression_metrics,
}
"""What fits `compute_metrics`, by problem type."""


def figures_of(prediction: PredictionOutput, prefix: str) -> dict[str, float]:
    """The figures of a Trainer's prediction with a `metric_key_prefix`, without it and without times."""
    return {
        name.removeprefix(f"{prefix}_"): value
        for name, value in (prediction.metrics or {}).items()
        if name.startswith(f"{prefix}_") and not name.endswith(TIMING)
    }


def metric_intervals(prediction: PredictionOutput, problem_type: str, resamples: int) -> dict[str, dict[str, float]]:
    """
    The figures of a Trainer's prediction with the ends of their 95% intervals, see [`bootstrap_intervals`].

    Args:
        prediction ([`~transformers.trainer_utils.PredictionOutput`]): of rows with labels.
        problem_type (`str`): see [`~sage_hf.tasks.Task`].
        resamples (`int`): how often rows are drawn; 0 gives no figures.
    """
    if not resamples:
        return {}

    metric, predictions, references = _metric_and_arrays(prediction, problem_type)

    def compute(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        # As `compute` does, without writing each resample into an Arrow table first.
        return metric._compute(predictions, references)

    return bootstrap_intervals(compute, predictions, references, resamples=resamples)


def _metric_and_arrays(
    prediction: EvalPrediction | PredictionOutput, problem_type: str
) -> tuple[evaluate.Metric, np.ndarray, np.ndarray]:
    """The metric of a problem type, and the predictions and references that it takes."""
    predictions, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    if problem_type == SINGLE_LABEL:
        return Classification(keep_in_memory=True), predictions.argmax(axis=-1), labels
    outputs = predictions.astype(np.float64)
    if problem_type == MULTI_LABEL:
        return MultiLabel(keep_in_memory=True), expit(outputs), (labels >= 0.5).astype(int)
    return Regression(keep_in_memory=True), outputs, labels.astype(np.float64).reshape(outputs.shape)


def _computed(prediction: EvalPrediction, problem_type: str) -> dict[str, float]:
    metric, predictions, references = _metric_and_arrays(prediction, problem_type)
    found: Any = metric.compute(predictions=predictions, references=references)
    return found
