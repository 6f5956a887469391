"""Makes the documentation site: `python -m docs.generator` (or `make docs`)."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""
