"""Where the templates of cards are."""

from __future__ import annotations

from pathlib import Path


def template_path(name: str) -> Path:
    """A template, from the wheel or from the source tree."""
    packed = Path(__file__).with_name(name)
    return packed if packed.is_file() else Path(__file__).parents[2] / "model_cards" / name
