"""Get a dataset of the Hub as a folder that loads as it does."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import sha as hub_sha
from PIL import Image

from ..data.saliency import DataError
from .attempts import Attempts
from .dataset_files import SHARD
from .datasets import MEMORY
from .edits import CARD, Memory, remote_card
from .sections import FRONT_MATTER, front_matter

WORKERS = 8
"""Files that are downloaded at a time."""
MARK = ".pulled.json"
"""Beside what was pulled: from where, and what it was, so that a later pull replaces that and nothing else."""
BESIDE = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""What an ImageFolder keeps in every folder of pictures."""


@dataclass(frozen=True)
class Pulled:
    """What a pull got."""

    folder: str
    repo_id: str
    commit: str
    files: int


def pull_dataset(
    repo_id: str,
    out: str | Path,
    *,
    revision: str | None = None,
    api: HfApi | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Pulled:
    """
    Download a dataset repository's parquet files, pictures and card.

    The folder loads with `load_dataset(out)` and `sage-hf train --dataset out`, with the rows of the repository. Its
    card gives the features alone: with the names of files and numbers of rows that the Hub's card has, `load_dataset`
    would take a changed folder for the one that it has in its cache, or refuse it. Pulled again, the folder follows
    the repository. A pull that was cut off goes on where it was.

    Args:
        repo_id (`str`): `owner/name`.
        out (`str` or `Path`): folder to write; must not exist, be empty, or be an earlier pull of the same repository.
        revision (`str`, *optional*): branch, tag or commit; `main` if not given.
        api (`HfApi`, *optional*): with an endpoint and a token; those of the environment if not given.
        wait (`Callable`, *optional*): waits between attempts, in seconds.

    Returns:
        [`Pulled`]

    Raises:
        [`DataError`]: no such dataset or revision that you can read, or one without parquet files or pictures.
        `FileExistsError`: `out` holds something else, or a file that was changed since it was pulled.
        [`PushError`]: the Hub did not answer.
    """
    api, out = api or HfApi(), Path(out)
    mark = _mark_of(out, repo_id)
    again = f"What has arrived in {out} is not asked for again: repeat the pull."
    attempt = Attempts(repo_id, again, wait, reading=True)
    commit, found = _listed(repo_id, revision, api, attempt)
    wanted = {path: digest for path, digest in found.items() if _is_data(path)}
    if not any(PurePosixPath(path).name not in BESIDE[:2] for path in wanted):
        raise DataError(f"{repo_id} holds no parquet files and no pictures: {', '.join(sorted(found)) or 'nothing'}.")
    there = attempt(lambda: remote_card(repo_id, commit, api, "dataset"))
    here = local_card(there, list(wanted), commit) if there is not None else None
    expected = dict(wanted) | ({CARD: _sha256(here.encode())} if here is not None else {})
    _check_unchanged(out, mark, expected)
    out.mkdir(parents=True, exist_ok=True)
    # What a file may be from now on: as it was, or as it will be.
    known = {path: sorted({*mark.get(path, []), digest}) for path, digest in expected.items()}
    _write_mark(out, repo_id, commit, mark | known)

    def get(path: str, digest: str) -> None:
        if not _holds(out / path, [digest]):
            attempt(lambda: api.hf_hub_download(repo_id, path, repo_type="dataset", revision=commit, local_dir=out))

    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(get, wanted, wanted.values()):
            pass
    if here is not None:
        (out / CARD).write_text(here, encoding="utf-8")
        assert there is not None
        Memory(out / MEMORY).remember(repo_id, revision, there=there, here=here)
    for path in set(mark) - set(expected):
        (out / path).unlink(missing_ok=True)
    _write_mark(out, repo_id, commit, {path: [digest] for path, digest in expected.items()})
    return Pulled(folder=str(out), repo_id=repo_id, commit=commit, files=len(expected))


def _mark_of(out: Path, repo_id: str) -> dict[str, list[str]]:
    """The files of an earlier pull, with the digests that they may have."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return {}
    if not (out / MARK).is_file():
        raise FileExistsError(f"{out} already exists and is not empty. Choose another folder, or move it away.")
    mark = json.loads((out / MARK).read_text(encoding="utf-8"))
    if mark["repo_id"] != repo_id:
        raise FileExistsError(f"{out} was pulled from {mark['repo_id']}, not from {repo_id}. Choose another folder.")
    return mark["files"]


def _write_mark(out: Path, repo_id: str, commit: str, files: dict[str, list[str]]) -> None:
    text = json.dumps({"repo_id": repo_id, "commit": commit, "files": files}, indent=1)
    partial = out / f"{MARK}.new"
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(out / MARK)


def _listed(repo_id: str, revision: str | None, api: HfApi, attempt: Attempts) -> tuple[str, dict[str, str]]:
    """The commit of a revision, and its files with their SHA-256, or what git calls those that are small."""

    def ask() -> tuple[str, dict[str, str]]:
        commit = api.dataset_info(repo_id, revision=revision).sha
        assert commit is not None
        tree = api.list_repo_tree(repo_id, repo_type="dataset", revision=commit, recursive=True)
        files = [entry for entry in tree if isinstance(entry, RepoFile)]
        return commit, {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}

    def explained() -> tuple[str, dict[str, str]]:
        try:
            return ask()
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            if _status(error) == 401:  # nobody is logged in, or no longer
                raise
            what = f"revision {revision!r} of " if isinstance(error, RevisionNotFoundError) else ""
            raise DataError(f"There is no {what}dataset {repo_id!r} on the Hub that you can read.") from error

    return attempt(explained)


def _status(error: HfHubHTTPError) -> int | None:
    return error.response.status_code if error.response is not None else None


def _is_data(path: str) -> bool:
    pure = PurePosixPath(path)
    if any(part.startswith(".") for part in pure.parts) or ".." in pure.parts:
        return False
    return pure.suffix == ".parquet" or pure.name in BESIDE or pure.suffix.lower() in Image.registered_extensions()


def _check_unchanged(out: Path, mark: dict[str, list[str]], expected: dict[str, str]) -> None:
    """Nothing is overwritten that someone changed or put there."""
    for path in sorted({*mark, *expected}):
        file = out / path
        if file.exists() and not _holds(file, [*mark.get(path, []), *([expected[path]] if path in expected else [])]):
            how = "was changed since it was pulled" if path in mark else "is not of the earlier pull"
            raise FileExistsError(f"{file} {how}, and would be overwritten. Move it away, or pull to another folder.")


def _holds(file: Path, digests: list[str]) -> bool:
    """Whether a file is one of these, each a SHA-256 or git's name of a small file."""
    if not file.is_file():
        return False
    if any(len(digest) == 40 for digest in digests) and hub_sha.git_hash(file.read_bytes()) in digests:
        return True
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() in digests


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def local_card(card: str, files: list[str], commit: str) -> str:
    """
    The Hub's card for a folder: what `load_dataset` would key its cache by instead of by the files is left out.

    `configs` that say no more than the names of the files go. Others stay, with the commit, so that two revisions at
    least are told apart.

    Args:
        card (`str`): the card on the Hub.
        files (`list[str]`): the data files.
        commit (`str`): of the repository.
    """
    found = FRONT_MATTER.match(card)
    data: Any = yaml.safe_load(found[1]) if found else None
    if found is None or not isinstance(data, dict):
        return card
    configs = data.get("configs") or []
    if _told_by_names(configs, files):
        data.pop("configs", None)
    else:
        for config in configs:
            config["description"] = f"commit {commit}"
    infos = data.get("dataset_info") or []
    for info in infos if isinstance(infos, list) else [infos]:
        for key in ("splits", "download_size", "dataset_size"):
            info.pop(key, None)
    return f"---\n{front_matter(data)}---\n{card[found.end() :]}"


def _told_by_names(configs: list[Any], files: list[str]) -> bool:
    """Whether a folder gives the same splits without `configs`."""
    shards = {path: match["split"] for path in files if (match := SHARD.fullmatch(path))}
    if len(configs) != 1 or set(shards) != {path for path in files if path.endswith(".parquet")}:
        return False
    told: dict[str, str] = {}
    entries = configs[0].get("data_files") or []
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            return False
        paths = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
        told |= {file: entry["split"] for file in files if any(fnmatch(file, path) for path in paths)}
    return told == shards
