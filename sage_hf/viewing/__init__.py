"""Look at a dataset, at what models make of it, and at what sets two models apart."""

from .embeddings import Projection, project, triplet_figures
from .grid import sheet
from .page import view_page
from .records import ModelRecord, Prediction, RowRecord
from .rows import Embeddings, Looked, look_at
from .subjects import Subject

__all__ = [
    "Embeddings",
    "Looked",
    "ModelRecord",
    "Prediction",
    "Projection",
    "RowRecord",
    "Subject",
    "look_at",
    "project",
    "sheet",
    "triplet_figures",
    "view_page",
]
