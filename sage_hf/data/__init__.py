"""The saliency column: building, loading, checking, aligning and collating it."""

from .build import BuildReport, build_dataset
from .checking import CheckReport, DatasetStats, Finding, check_dataset, dataset_stats
from .collator import SaliencyCollator
from .loading import load_saliency_dataset
from .saliency import DataError, saliency_array
from .transforms import AlignedTransform

__all__ = [
    "AlignedTransform",
    "BuildReport",
    "CheckReport",
    "DataError",
    "DatasetStats",
    "Finding",
    "SaliencyCollator",
    "build_dataset",
    "check_dataset",
    "dataset_stats",
    "load_saliency_dataset",
    "saliency_array",
]
