"""The repository, branch or pull request that a push writes to."""

from __future__ import annotations

from dataclasses import dataclass

from huggingface_hub import HfApi

from .attempts import Attempts


@dataclass(frozen=True)
class Pushed:
    """Where a push went."""

    url: str
    commit: str
    pull_request: int | None = None


@dataclass(frozen=True)
class Target:
    """The branch or pull request of a repository that takes a push; `revision` is `None` for `main`."""

    revision: str | None
    pull_request: int | None


def open_target(
    repo_id: str,
    api: HfApi,
    attempt: Attempts,
    *,
    repo_type: str = "model",
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    title: str = "",
) -> Target:
    """
    Make what does not exist yet: the repository, its branch, a pull request.

    Args:
        repo_id (`str`): `owner/name`.
        api (`HfApi`): with an endpoint and a token.
        attempt ([`~sage_hf.hub.attempts.Attempts`]): repeats what may pass.
        repo_type (`str`, *optional*, defaults to `"model"`): or `"dataset"`.
        private (`bool`, *optional*): make a new repository private; as its owner has set if not given.
        revision (`str`, *optional*): branch.
        create_pr (`bool`, *optional*, defaults to `False`): open a pull request.
        title (`str`, *optional*): of the pull request.

    Raises:
        `ValueError`: `private` was asked for, and the repository is there and public.
        [`PushError`]: the Hub did not take it.
    """
    attempt(lambda: api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True))
    if private and not attempt(lambda: api.repo_info(repo_id, repo_type=repo_type)).private:
        raise ValueError(
            f"{repo_id} exists already and is public, so that what is pushed to it would be. Make it private in its "
            "settings on the Hub, push to another name, or push without private (--private)."
        )
    if revision is not None:
        attempt(lambda: api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True))
    if not create_pr:
        return Target(revision, None)
    # Opened first, and pushed to: a commit that opens one itself would open another when it is repeated.
    number = _open_pull_request(repo_id, repo_type, title, api, attempt)
    return Target(f"refs/pr/{number}", number)


def _open_pull_request(repo_id: str, repo_type: str, title: str, api: HfApi, attempt: Attempts) -> int:
    """The number of a new pull request, also where the Hub opened it and its answer was lost: no second is opened."""
    author = attempt(api.whoami)["name"]

    def opened() -> set[int]:
        ours = api.get_repo_discussions(repo_id, repo_type=repo_type, author=author, discussion_type="pull_request")
        return {one.num for one in ours if one.title == title}

    before, tried = attempt(opened), False

    def open_one() -> int:
        nonlocal tried
        if tried and (since := opened() - before):
            return max(since)
        tried = True
        return api.create_pull_request(repo_id, repo_type=repo_type, title=title).num

    return attempt(open_one)


def check_target(revision: str | None, create_pr: bool) -> None:
    """
    Refuse a branch and a pull request at once.

    Raises:
        `ValueError`: both were asked for.
    """
    if revision is not None and create_pr:
        raise ValueError("A pull request has a branch of its own: leave revision out, or create_pr.")
