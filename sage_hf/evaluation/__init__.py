"""Measures of a trained model."""

from __future__ import annotations

from collections.abc import Callable

from transformers import EvalPrediction

from ..tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from .classification import Classification, classification_metrics
from .intervals import bootstrap_intervals, mean_interval
from .multi_label import MultiLabel, multi_label_metrics
from .regression import Regression, regression_metrics

METRICS: dict[str, Callable[[EvalPrediction], dict[str, float]]] = {
    SINGLE_LABEL: classification_metrics,
    MULTI_LABEL: multi_label_metrics,
    REGRESSION: regression_metrics,
}
"""What fits `compute_metrics`, by problem type."""

__all__ = [
    "METRICS",
    "Classification",
    "MultiLabel",
    "Regression",
    "bootstrap_intervals",
    "classification_metrics",
    "mean_interval",
    "multi_label_metrics",
    "regression_metrics",
]
