"""Self-contained HTML pages: text, tables, pictures and charts in one file, without scripts or requests."""

from .page import Code, Definitions, Details, Figure, Gallery, Page, Section, Table, Text

__all__ = ["Code", "Definitions", "Details", "Figure", "Gallery", "Page", "Section", "Table", "Text"]
