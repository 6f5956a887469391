"""The saliency column: building, loading, checking, aligning and collating it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build import BuildReport, build_dataset
    from .checking import CheckReport, DatasetStats, Finding, check_dataset, dataset_stats
    from .collator import SaliencyCollator
    from .convert import ConvertReport, convert_annotations
    from .loading import load_saliency_dataset
    from .saliency import DataError, saliency_array
    from .sources import Source
    from .transforms import AlignedTransform

# Imported when first asked for: the processes that build a dataset need neither torch nor transformers.
_MODULES = {
    "AlignedTransform": "transforms",
    "BuildReport": "build",
    "CheckReport": "checking",
    "ConvertReport": "convert",
    "DataError": "saliency",
    "DatasetStats": "checking",
    "Finding": "checking",
    "SaliencyCollator": "collator",
    "Source": "sources",
    "build_dataset": "build",
    "check_dataset": "checking",
    "convert_annotations": "convert",
    "dataset_stats": "checking",
    "load_saliency_dataset": "loading",
    "saliency_array": "saliency",
}

__all__ = [
    "AlignedTransform",
    "BuildReport",
    "CheckReport",
    "ConvertReport",
    "DataError",
    "DatasetStats",
    "Finding",
    "SaliencyCollator",
    "Source",
    "build_dataset",
    "check_dataset",
    "convert_annotations",
    "dataset_stats",
    "load_saliency_dataset",
    "saliency_array",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
