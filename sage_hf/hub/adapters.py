"""Adapters whose base model lies here, and on the Hub as well."""

from __future__ import annotations

import hashlib
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from transformers.utils import CONFIG_NAME, logging

from .attempts import Attempts
from .run_record import RECORD, RunRecord

logger = logging.get_logger(__name__)
CONFIG = "adapter_config.json"
SNAPSHOT = re.compile(r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)/snapshots/(?P<commit>[0-9a-f]{40})/?$")
"""A downloaded model in the cache of `huggingface_hub`."""


def name_base_model(folder: Path, api: HfApi, attempt: Attempts) -> None:
    """
    Let an adapter name its base model by the Hub id that others can load, where it names a folder here.

    The id is that of the cache's folder, the `base_model` of the run's record, or the `_name_or_path` in the base
    model's config. It is taken only if the weights there are the very same, by their SHA-256: an adapter on top of
    other weights is another model. `adapter_config.json` is then changed, its `revision` included.

    Args:
        folder (`Path`): the adapter's; anything else is left alone.
        api (`HfApi`): with an endpoint and a token.
        attempt ([`Attempts`]): calls the Hub.

    Raises:
        `ValueError`: no such id is known; the message says what to do.
    """
    file = folder / CONFIG
    if not file.is_file():
        return
    config = json.loads(file.read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if not base or not (Path(base).exists() or base.startswith((".", "/", "~"))):
        return
    tried = _candidates(folder, Path(base))
    for repo_id, revision in tried:
        commit = attempt(partial(_same_weights, Path(base), repo_id, revision, api))
        if commit is not None:
            logger.warning(
                "adapter_config.json now names %s at %s, which %s is a copy of.", repo_id, commit[:12], base
            )
            file.write_text(
                json.dumps(config | {"base_model_name_or_path": repo_id, "revision": commit}, indent=2) + "\n"
            )
            return
    found = f" {' and '.join(repo_id for repo_id, _ in tried)} on the Hub has other weights, or none." if tried else ""
    raise ValueError(
        f"adapter_config.json names the local base model {base}.{found} Publish that first and put its Hub id there, "
        "or merge the adapter (merge_and_unload) and push the whole model."
    )


def _candidates(folder: Path, base: Path) -> list[tuple[str, str | None]]:
    """Hub ids that the base model may have, with a revision where one is known."""
    found: list[tuple[str, str | None]] = []
    if (match := SNAPSHOT.search(base.resolve().as_posix())) is not None:
        found.append((f"{match['owner']}/{match['name']}", match["commit"]))
    if (folder / RECORD).is_file():
        record = RunRecord.load(folder)
        found.append((record.base_model or "", record.base_model_revision))
    if (base / CONFIG_NAME).is_file():
        config: dict[str, Any] = json.loads((base / CONFIG_NAME).read_text(encoding="utf-8"))
        found.append((str(config.get("_name_or_path", "")), None))
    return [(repo_id, revision) for repo_id, revision in found if re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id)]


def _same_weights(base: Path, repo_id: str, revision: str | None, api: HfApi) -> str | None:
    """The commit of a repository that holds the same weights as a folder; `None` if it does not."""
    names = sorted(path.name for path in base.glob("model*.safetensors"))
    try:
        commit = str(api.model_info(repo_id, revision=revision).sha)
        there = {file.path: file for file in api.get_paths_info(repo_id, names, revision=commit)} if names else {}
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return None
    for name in names:
        file = there.get(name)
        if not isinstance(file, RepoFile) or file.lfs is None or file.lfs.sha256 != _sha256(base / name):
            return None
    return commit if names else None


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
