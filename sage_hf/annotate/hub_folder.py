"""A store that lives in a dataset repository of the Hub: fetched at the start, sent as it grows."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from huggingface_hub import CommitScheduler, HfApi, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from ..data.saliency import DataError

KEPT_IN = "annotations"
"""Folder of the store in the repository."""
PROTOCOL = "hf://datasets/"
CARD = """---
viewer: false
tags:
- saliency
---

# Annotations of {source}

What annotators drew and said, as `sage-hf annotate` keeps it: each save of each annotator and picture. To make a
dataset of it:

```bash
sage-hf annotate {source} --store hf://datasets/{repo_id} --export dataset
```
"""


class HubFolder:
    """
    A local folder that follows a dataset repository: what is there comes first, and what is saved goes there.

    Every file of an [`AnnotationStore`] but the list of classes is written once and never changed, which is what
    `huggingface_hub.CommitScheduler` needs: it sends new files every few minutes, and a last time at the end.

    Args:
        repo_id (`str`): dataset repository, made if it doesn't exist.
        folder (`Path`): local; `store` in it is the store's.
        token (`str`): may write to the repository.
        source (`str`): what is annotated, for the repository's card.
        minutes (`float`, *optional*, defaults to 1.0): between two commits, if anything is new.
        private (`bool`, *optional*, defaults to `True`): make a new repository private.

    Raises:
        `huggingface_hub.errors.HfHubHTTPError`: the Hub can't be reached, or the token may not write there.
    """

    def __init__(
        self,
        repo_id: str,
        folder: Path,
        *,
        token: str,
        source: str,
        minutes: float = 1.0,
        private: bool = True,
        api: HfApi | None = None,
    ):
        self.repo_id, self.folder = repo_id, folder
        self._api = api or HfApi(token=token)
        self._api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        self.store.mkdir(parents=True, exist_ok=True)
        self._api.snapshot_download(
            repo_id, repo_type="dataset", allow_patterns=f"{KEPT_IN}/**", local_dir=str(folder)
        )
        if not self._api.file_exists(repo_id, "README.md", repo_type="dataset"):
            card = CARD.format(source=source, repo_id=repo_id).encode()
            self._api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo_id, repo_type="dataset")
        self._scheduler = CommitScheduler(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=self.store,
            path_in_repo=KEPT_IN,
            every=minutes,
            ignore_patterns=["*.lock", "*.tmp"],
            hf_api=self._api,
        )

    @property
    def store(self) -> Path:
        """The store's folder."""
        return self.folder / KEPT_IN

    def close(self) -> None:
        """Send what is new, and end."""
        self._scheduler.trigger().result()
        self._scheduler.stop()

    def __enter__(self) -> HubFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def fetched_store(address: str, **options: Any) -> Path:
    """
    The store of a dataset repository, to be read.

    Args:
        address (`str`): `hf://datasets/OWNER/NAME`.
        **options: of `huggingface_hub.snapshot_download`.

    Raises:
        [`~sage_hf.data.DataError`]: there is none.
    """
    repo_id = address.removeprefix(PROTOCOL).strip("/")
    try:
        folder = snapshot_download(repo_id, repo_type="dataset", allow_patterns=f"{KEPT_IN}/**", **options)
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise DataError(f"{address} is no dataset repository that you can read: {error}") from error
    store = Path(folder) / KEPT_IN
    if not store.is_dir():
        raise DataError(f"{address} holds no annotations: nobody has saved anything there yet.")
    return store
