"""Annotation by hand: a local web page that marks what matters in pictures, and makes a dataset of it."""

from .export import ExportReport, export_annotations
from .project import Project
from .store import AnnotationStore, StaleRevisionError

__all__ = ["AnnotationStore", "ExportReport", "Project", "StaleRevisionError", "export_annotations"]
