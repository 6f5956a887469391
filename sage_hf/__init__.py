"""SAGE for Hugging Face: fine-tune vision models where humans looked."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .data import AlignedTransform, DataError, SaliencyCollator
    from .embeddings import EmbeddingCapture, find_classification_heads
    from .heads import load_image_classifier
    from .objectives import SageObjective
    from .trainer import SageTrainer
    from .training_args import SageTrainingArguments
    from .views import make_views

# Imported when first asked for: torch and transformers take seconds, which `sage-hf --help` need not.
_MODULES = {
    "AlignedTransform": "data",
    "DataError": "data",
    "EmbeddingCapture": "embeddings",
    "SageObjective": "objectives",
    "SageTrainer": "trainer",
    "SageTrainingArguments": "training_args",
    "SaliencyCollator": "data",
    "find_classification_heads": "embeddings",
    "load_image_classifier": "heads",
    "make_views": "views",
}

__all__ = [
    "AlignedTransform",
    "DataError",
    "EmbeddingCapture",
    "SageObjective",
    "SageTrainer",
    "SageTrainingArguments",
    "SaliencyCollator",
    "__version__",
    "find_classification_heads",
    "load_image_classifier",
    "make_views",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
