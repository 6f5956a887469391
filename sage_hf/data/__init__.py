"""The saliency column: building, loading, checking, aligning and collating it."""

from .build import BuildReport, build_dataset
from .collator import SaliencyCollator
from .loading import load_saliency_dataset
from .saliency import DataError, saliency_array
from .transforms import AlignedTransform

__all__ = [
    "AlignedTransform",
    "BuildReport",
    "DataError",
    "SaliencyCollator",
    "build_dataset",
    "load_saliency_dataset",
    "saliency_array",
]
