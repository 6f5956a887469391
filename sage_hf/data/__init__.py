"""The saliency column: building, loading, checking, aligning and collating it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build import BuildReport, build_dataset
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
    "ConvertReport": "convert",
    "DataError": "saliency",
    "SaliencyCollator": "collator",
    "Source": "sources",
    "build_dataset": "build",
    "convert_annotations": "convert",
    "load_saliency_dataset": "loading",
    "saliency_array": "saliency",
}

__all__ = [
    "AlignedTransform",
    "BuildReport",
    "ConvertReport",
    "DataError",
    "SaliencyCollator",
    "Source",
    "build_dataset",
    "convert_annotations",
    "load_saliency_dataset",
    "saliency_array",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
