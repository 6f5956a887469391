"""A run as one HTML page."""

from .report import write_report

__all__ = ["write_report"]
