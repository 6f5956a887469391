"""The metrics of each problem type, for `compute_metrics` of a Trainer, and their intervals."""

from __future__ import annotations

from collections.abc import Callable

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
    predicted = np.asarray(prediction.predictions).argmax(axis=-1)
    return Classification(keep_in_memory=True).compute(predictions=predicted, references=prediction.label_ids)


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

    def compute(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return METRICS[problem_type](EvalPrediction(predictions=predictions, label_ids=references))

    return bootstrap_intervals(
        compute, np.asarray(prediction.predictions), np.asarray(prediction.label_ids), resamples=resamples
    )
