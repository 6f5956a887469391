"""What users write for a dataset: a folder here, or an id on the Hub."""

from __future__ import annotations

from pathlib import Path

from .saliency import DataError


def check_folder(path: str) -> None:
    """
    Check that what is written like a path is a folder; anything else may be a Hub id.

    Raises:
        [`DataError`]: there is no such folder.
    """
    if path.startswith((".", "/", "~")) and not Path(path).is_dir():
        raise DataError(f"{path!r} is not a folder.")
