"""Measures of a trained model: `evaluate` modules, and what shares them."""

from __future__ import annotations

from .calibration import Calibration
from .classification import Classification
from .intervals import bootstrap_intervals, mean_interval
from .model_alignment import model_alignment
from .model_evaluation import evaluate_model
from .model_saliency import model_saliency
from .multi_label import MultiLabel
from .open_set import OpenSet
from .presentation_attack import PresentationAttack
from .regression import Regression
from .saliency_alignment import SaliencyAlignment
from .spaces import export_metric, push_metric
from .trainer_metrics import METRICS, classification_metrics, multi_label_metrics, regression_metrics

__all__ = [
    "METRICS",
    "Calibration",
    "Classification",
    "MultiLabel",
    "OpenSet",
    "PresentationAttack",
    "Regression",
    "SaliencyAlignment",
    "bootstrap_intervals",
    "classification_metrics",
    "evaluate_model",
    "export_metric",
    "mean_interval",
    "model_alignment",
    "model_saliency",
    "multi_label_metrics",
    "push_metric",
    "regression_metrics",
]
