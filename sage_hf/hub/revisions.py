"""The commits that models and datasets came from."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
from transformers.utils import CONFIG_NAME, cached_file
from transformers.utils.hub import extract_commit_hash


def revision_of(splits: datasets.DatasetDict) -> str | None:
    """The commit of the Hub dataset that the splits were downloaded from, `None` for local data."""
    # `datasets` keeps what it downloaded in a folder that is named after the commit.
    for split in splits.values():
        for file in split.cache_files:
            if re.fullmatch(r"[0-9a-f]{40}", commit := Path(file["filename"]).parent.name):
                return commit
    return None


def model_revision(path: str, revision: str, file: str = CONFIG_NAME) -> str | None:
    """The commit of a model on the Hub that a branch or tag stands for, `None` for a local model."""
    if Path(path).exists():
        return None
    return extract_commit_hash(cached_file(path, file, revision=revision), None)
