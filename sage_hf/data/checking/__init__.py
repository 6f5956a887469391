"""Check saliency datasets and count what is in them: facts of rows, a survey of all, checks that judge both."""

from .checks import CHECKS, Check
from .report import CheckReport, Finding, check_dataset, dataset_stats
from .stats import CentreBias, ClassStats, DatasetStats

__all__ = [
    "CHECKS",
    "CentreBias",
    "Check",
    "CheckReport",
    "ClassStats",
    "DatasetStats",
    "Finding",
    "check_dataset",
    "dataset_stats",
]
