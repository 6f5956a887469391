"""Measures of a trained model."""

from .classification import Classification, classification_metrics
from .intervals import mean_interval

__all__ = ["Classification", "classification_metrics", "mean_interval"]
