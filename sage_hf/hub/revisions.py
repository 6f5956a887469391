"""The commits that models and datasets came from."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
from huggingface_hub import HfApi
from transformers.utils import CONFIG_NAME, cached_file
from transformers.utils.hub import extract_commit_hash


def revision_of(
    splits: datasets.DatasetDict | datasets.IterableDatasetDict, repo_id: str, revision: str | None, api: HfApi
) -> str | None:
    """The commit of the Hub dataset that the splits were downloaded from; of streams, the one that is there now."""
    # `datasets` keeps what it downloaded in a folder that is named after the commit.
    for split in splits.values():
        if isinstance(split, datasets.IterableDataset):
            return api.dataset_info(repo_id, revision=revision).sha
        for file in split.cache_files:
            if re.fullmatch(r"[0-9a-f]{40}", commit := Path(file["filename"]).parent.name):
                return commit
    return None


def model_revision(path: str, revision: str, file: str = CONFIG_NAME) -> str | None:
    """The commit of a model on the Hub that a branch or tag stands for, `None` for a local model."""
    if Path(path).exists():
        return None
    return extract_commit_hash(cached_file(path, file, revision=revision), None)
