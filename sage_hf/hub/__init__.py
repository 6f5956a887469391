"""What goes to the Hub beside the weights, and datasets there and back."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dataset_card import DatasetRecord, render_dataset_card
    from .datasets import push_dataset
    from .model_card import render_model_card, write_model_card
    from .pull import pull_dataset
    from .repository import Pushed
    from .run_record import RunRecord, record_run

_MODULES = {
    "DatasetRecord": "dataset_card",
    "Pushed": "repository",
    "RunRecord": "run_record",
    "pull_dataset": "pull",
    "push_dataset": "datasets",
    "record_run": "run_record",
    "render_dataset_card": "dataset_card",
    "render_model_card": "model_card",
    "write_model_card": "model_card",
}

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


def __getattr__(name: str) -> Any:
    # Cards of models need transformers' Trainer, which takes seconds, and those of datasets don't.
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
