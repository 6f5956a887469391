"""Readers of pictures, labels and annotations, one file for each kind; all yield [`SourceRow`]."""

from .reader import SourceReader
from .rows import RowReader, SourceRow
from .source import Source

__all__ = ["RowReader", "Source", "SourceReader", "SourceRow"]
