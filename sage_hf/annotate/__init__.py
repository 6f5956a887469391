"""Annotation by hand: a local web page that marks what matters in pictures, and makes a dataset of it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .export import ExportReport, export_annotations
    from .pictures import open_pictures
    from .project import Project
    from .store import AnnotationStore, StaleRevisionError

_MODULES = {
    "AnnotationStore": "store",
    "ExportReport": "export",
    "Project": "project",
    "StaleRevisionError": "store",
    "export_annotations": "export",
    "open_pictures": "pictures",
}

__all__ = ["AnnotationStore", "ExportReport", "Project", "StaleRevisionError", "export_annotations", "open_pictures"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
