"""SAGE for Hugging Face: fine-tune vision models where humans looked."""

from .data import AlignedTransform, DataError, SaliencyCollator
from .embeddings import EmbeddingCapture, find_classification_head
from .objectives import SageObjective
from .trainer import SageTrainer
from .training_args import SageTrainingArguments
from .version import __version__
from .views import make_views

__all__ = [
    "AlignedTransform",
    "DataError",
    "EmbeddingCapture",
    "SageObjective",
    "SageTrainer",
    "SageTrainingArguments",
    "SaliencyCollator",
    "__version__",
    "find_classification_head",
    "make_views",
]
