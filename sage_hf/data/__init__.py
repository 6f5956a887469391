"""The saliency column: reading, checking, aligning and collating it."""

from .collator import SaliencyCollator
from .saliency import DataError, saliency_array
from .transforms import AlignedTransform

__all__ = ["AlignedTransform", "DataError", "SaliencyCollator", "saliency_array"]
