"""Publish a run's folder: checked first, sent again when the Hub stumbles, nothing lost when it falls."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi

from .adapters import name_base_model
from .attempts import Attempts
from .edits import CARD, Memory, reconciled, remote_card
from .model_card import render_model_card, write_record
from .repository import Pushed, check_target, open_target
from .run_record import RECORD, RunRecord
from .secrets import check_text
from .sections import refresh

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
NOT_PUSHED = (
    *("_*", "runs", "logs", "events.out.*", "emissions*"),
    *("optimizer*", "scheduler*", "scaler*", "rng_state*", "trainer_progress*"),
    *("pytorch_model_fsdp*", "latest", "zero_to_*.py", "global_step*"),
)
"""What only resuming needs, and what trackers leave behind (places and host names among it); and checkpoints."""
STALE = (".eval_results/*.yaml", "model*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
"""What an earlier push may have left on the Hub, and this one replaces."""
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".pck", ".sav")
BINARY = (".safetensors", ".png", ".jpg", ".jpeg", ".webp")
PUSHED = "_pushed_cards.json"
"""The cards that pushes left on the Hub, by repository: who edited which is told by them. Stays in the folder."""


def check_folder(folder: Path) -> None:
    """
    Refuse what should not be published.

    Raises:
        `ValueError`: there is no checkpoint, or a file holds a pickle, a Hub token, or the path of the home folder.
    """
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise ValueError(f"{folder} holds no checkpoint: none of {', '.join(WEIGHTS)} is there.")
    for path in published_files(folder):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in PICKLES:
            raise ValueError(f"{name} is a pickle, which can run code where it is loaded. Remove it from {folder}.")
        if path.suffix.lower() not in BINARY:
            check_text(name, path.read_bytes())


def published_files(folder: Path) -> Iterator[Path]:
    """
    The files of a folder that a push sends.

    Folders that stay here are not looked into: while training goes on, checkpoints come and go in them.
    """
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if _is_published(name) and not name.startswith("checkpoint-"))
        yield from (path for name in sorted(files) if _is_published(name) and (path := Path(here, name)).is_file())


def _is_published(name: str) -> bool:
    hidden = name.startswith(".") and name != ".eval_results"
    return not hidden and not any(fnmatch(name, pattern) for pattern in NOT_PUSHED)


def push_run(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    template: str | Path | None = None,
    api: HfApi | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Pushed:
    """
    Push a run's output folder to a model repository, with its card made for that repository.

    A card that people have edited, here or on the Hub, keeps their edits. The push may be repeated: what has arrived
    is not sent again, and nothing is committed twice.

    Args:
        folder (`str` or `Path`): the checkpoint.
        repo_id (`str`): `owner/name`; made if it does not exist.
        private (`bool`, *optional*): make a new repository private; the owner's default if not given.
        revision (`str`, *optional*): branch, made if it does not exist; `main` if not given.
        create_pr (`bool`, *optional*, defaults to `False`): open a pull request and push to that.
        template (`str` or `Path`, *optional*): of the card, as for [`write_model_card`].
        api (`HfApi`, *optional*): with an endpoint and a token; those of the environment if not given.
        wait (`Callable`, *optional*): waits between attempts, in seconds.

    Returns:
        [`Pushed`]: address and commit.

    Raises:
        `ValueError`: the folder should not be published, or its card was edited both here and on the Hub.
        [`PushError`]: the Hub did not take it.
    """
    folder, api = Path(folder), api or HfApi()
    check_target(revision, create_pr)
    check_folder(folder)
    number = None
    if create_pr:
        attempt = _attempts(folder, repo_id, wait)
        name_base_model(folder, api, attempt)
        title = f"Upload {folder.resolve().name}"
        target = open_target(repo_id, api, attempt, private=private, create_pr=True, title=title)
        revision, number = target.revision, target.pull_request
    commit = send_run(folder, repo_id, private=private, revision=revision, template=template, api=api, wait=wait)
    return Pushed(url=f"{api.endpoint}/{repo_id}", commit=commit.oid, pull_request=number)


def send_run(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    template: str | Path | None = None,
    commit_message: str | None = None,
    api: HfApi,
    wait: Callable[[float], None] = time.sleep,
) -> CommitInfo:
    """
    What [`push_run`] does once it is known where to: check, refresh the card, upload.

    Args:
        revision (`str`, *optional*): branch, made if it does not exist, or `refs/pr/N` of a pull request.
        commit_message (`str`, *optional*): `Upload FOLDER` if not given.
        folder, repo_id, private, template, api, wait: as for [`push_run`], with the same errors.
    """
    check_folder(folder)
    attempt = _attempts(folder, repo_id, wait)
    name_base_model(folder, api, attempt)
    if revision is None or not revision.startswith("refs/pr/"):
        open_target(repo_id, api, attempt, private=private, revision=revision)
    attempt(lambda: _refresh_card(folder, repo_id, revision, template, api))
    check_folder(folder)
    message = commit_message or f"Upload {folder.resolve().name}"
    commit = attempt(lambda: _commit(folder, repo_id, revision, message, api))
    _remember_card(folder, repo_id, revision)
    return commit


def _commit(folder: Path, repo_id: str, revision: str | None, message: str, api: HfApi) -> CommitInfo:
    """
    One commit of what is published, without what an earlier push left.

    Not `upload_folder`, which looks into every folder below, also into those where checkpoints come and go.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in published_files(folder)}
    there = api.list_repo_files(repo_id, revision=revision)
    stale = [name for name in there if name not in paths and any(fnmatch(name, pattern) for pattern in STALE)]
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationDelete(path_in_repo=name) for name in stale),
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in paths.items()),
    ]
    return api.create_commit(repo_id, operations, commit_message=message, revision=revision)


def send_checkpoint(
    folder: Path,
    repo_id: str,
    path_in_repo: str,
    *,
    revision: str | None = None,
    commit_message: str,
    api: HfApi,
    wait: Callable[[float], None] = time.sleep,
) -> CommitInfo:
    """
    Upload a checkpoint with all that resuming needs, see [`~sage_hf.hub.resuming.fetch_checkpoint`].

    Args:
        path_in_repo (`str`): its folder in the repository; what an earlier checkpoint left there goes.
        folder, repo_id, revision, commit_message, api, wait: as for [`send_run`].

    Raises:
        [`PushError`]: the Hub did not take it.
    """
    return _attempts(folder, repo_id, wait)(
        lambda: api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            path_in_repo=path_in_repo,
            revision=revision,
            delete_patterns=["*"],
            commit_message=commit_message,
        )
    )


def _attempts(folder: Path, repo_id: str, wait: Callable[[float], None]) -> Attempts:
    again = f"Nothing in {folder} was changed but its card. Repeat the push: what has arrived is not sent again."
    return Attempts(repo_id, again, wait)


def _refresh_card(folder: Path, repo_id: str, revision: str | None, template: Any, api: HfApi) -> None:
    """The card for the repository, with what was edited in the folder or on the Hub."""
    if not (folder / RECORD).is_file():  # not a run of ours: the card is the user's affair
        return
    record = RunRecord.load(folder)
    record.repo_id = repo_id
    write_record(folder, record)
    path, generated = folder / CARD, render_model_card(record, template)
    here = path.read_text(encoding="utf-8") if path.is_file() else None
    there = remote_card(repo_id, revision, api)
    text = reconciled(generated, here, there, Memory(folder / PUSHED).last(repo_id, revision), refresh)
    if text is None:
        raise ValueError(
            f"README.md was edited both in {folder} and on the Hub ({repo_id}). Bring the two together in {path}, and "
            "put the same text on the Hub; or remove one of them."
        )
    path.write_text(text, encoding="utf-8")


def _remember_card(folder: Path, repo_id: str, revision: str | None) -> None:
    path = folder / CARD
    if path.is_file():
        card = path.read_text(encoding="utf-8")
        Memory(folder / PUSHED).remember(repo_id, revision, there=card, here=card)


def fetch_card(folder: str | Path, repo_id: str, *, revision: str | None = None, api: HfApi | None = None) -> None:
    """
    Put the card that a repository has into a new run's folder, so that what people wrote in it is refreshed, not lost.
    """
    folder = Path(folder)
    there = remote_card(repo_id, revision, api or HfApi())
    if there is not None and not (folder / CARD).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD).write_text(there, encoding="utf-8")
        _remember_card(folder, repo_id, revision)
