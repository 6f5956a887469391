"""What goes to the Hub beside the weights, and datasets there and back."""

from .dataset_card import DatasetRecord, render_dataset_card
from .datasets import push_dataset
from .model_card import render_model_card, write_model_card
from .pull import pull_dataset
from .repository import Pushed
from .run_record import RunRecord, record_run

__all__ = [
    "DatasetRecord",
    "Pushed",
    "RunRecord",
    "pull_dataset",
    "push_dataset",
    "record_run",
    "render_dataset_card",
    "render_model_card",
    "write_model_card",
]
