"""Readers of pictures, labels and annotations, one file for each kind; all yield [`SourceRow`]."""

from .reader import SourceReader
from .rows import SourceRow
from .source import Source

__all__ = ["Source", "SourceReader", "SourceRow"]
