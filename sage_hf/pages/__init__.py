"""Self-contained HTML pages: text, tables, pictures and charts in one file, without scripts or requests."""

from .page import Block, Code, Definitions, Details, Figure, Gallery, Page, Section, Table, Text

__all__ = ["Block", "Code", "Definitions", "Details", "Figure", "Gallery", "Page", "Section", "Table", "Text"]
