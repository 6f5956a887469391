"""Discussions and pull requests: opened, commented on, closed and merged."""

from __future__ import annotations

import time
from typing import Any

from tests.hub.routes import API_REPO, Answer, Asked, route
from tests.hub.storage import Commit, RefusedError, Repo

DISCUSSION = f"{API_REPO}/discussions/(?P<number>[0-9]+)"


def open_discussion(asked: Asked, repo: Repo, title: str, text: str, base: str | None, status: str) -> dict[str, Any]:
    """Adds one; with a `base`, a pull request onto that branch."""
    token = asked.token
    assert token is not None
    discussion: dict[str, Any] = {"num": len(repo.discussions) + 1, "title": title, "status": status, "events": []}
    discussion |= {"author": {"name": token.user}, "createdAt": asked.hub.date(time.time())}
    discussion |= {"repo": {"name": repo.name, "type": repo.kind[:-1]}, "isPullRequest": base is not None}
    if base is not None:
        start = repo.find(base)
        discussion |= {"changes": {"base": f"refs/heads/{base}"}, "filesWithConflicts": [], "start": start}
        repo.refs[f"refs/pr/{discussion['num']}"] = start
    repo.discussions.append(discussion)
    event(asked, discussion, "comment", message(asked, text))
    return discussion


def message(asked: Asked, text: str) -> dict[str, Any]:
    now = asked.hub.date(time.time())
    latest = {"raw": text, "html": text, "updatedAt": now}
    return {"edited": False, "hidden": False, "latest": latest, "history": [latest], "numEdits": 0}


def event(asked: Asked, discussion: dict[str, Any], kind: str, data: dict[str, Any]) -> dict[str, Any]:
    token = asked.token
    assert token is not None
    number = f"{discussion['num']:012x}{len(discussion['events']):012x}"
    new = {"id": number, "type": kind, "createdAt": asked.hub.date(time.time()), "data": data}
    discussion["events"].append(new | {"author": {"name": token.user}})
    return discussion["events"][-1]


@route("GET", f"{API_REPO}/discussions")
def listing(asked: Asked, kind: str, name: str) -> Answer:
    found = asked.repo(kind, name).discussions
    if (which := asked.query.get("type", ["all"])[0]) != "all":
        found = [one for one in found if one["isPullRequest"] == (which == "pull_request")]
    if (status := asked.query.get("status", ["all"])[0]) != "all":
        found = [one for one in found if (one["status"] in ("open", "draft")) == (status == "open")]
    if author := asked.query.get("author", [""])[0]:
        found = [one for one in found if one["author"]["name"] == author]
    first_page = asked.query.get("p", ["0"])[0] == "0"
    return Answer({"discussions": found[::-1] if first_page else [], "count": len(found), "start": 0})


@route("POST", f"{API_REPO}/discussions")
def create(asked: Asked, kind: str, name: str) -> Answer:
    repo, wanted, token = asked.repo(kind, name), asked.json(), asked.token
    asked.hub.accounts.must_write(token, token.user if token else "", "open a discussion")
    base, status = ("main", "draft") if wanted.get("pullRequest") else (None, "open")
    discussion = open_discussion(asked, repo, wanted["title"], wanted["description"], base, status)
    asked.hub.storage.save(repo)
    return Answer({"num": discussion["num"], "pullRequest": bool(wanted.get("pullRequest"))})


def find(repo: Repo, number: str) -> dict[str, Any]:
    if not 0 < int(number) <= len(repo.discussions):
        raise RefusedError(404, "Discussion not found")
    return repo.discussions[int(number) - 1]


@route("GET", DISCUSSION)
def details(asked: Asked, kind: str, name: str, number: str) -> Answer:
    return Answer(find(asked.repo(kind, name), number) | {"diff": ""})


@route("POST", f"{DISCUSSION}/comment")
def comment(asked: Asked, kind: str, name: str, number: str) -> Answer:
    repo, token = asked.repo(kind, name), asked.token
    asked.hub.accounts.must_write(token, token.user if token else "", "comment")
    new = event(asked, find(repo, number), "comment", message(asked, asked.json()["comment"]))
    asked.hub.storage.save(repo)
    return Answer({"newMessage": new})


@route("POST", f"{DISCUSSION}/status")
def change_status(asked: Asked, kind: str, name: str, number: str) -> Answer:
    repo = asked.repo(kind, name, write=True)
    discussion = find(repo, number)
    discussion["status"] = asked.json()["status"]
    new = event(asked, discussion, "status-change", {"status": discussion["status"]})
    asked.hub.storage.save(repo)
    return Answer({"newStatus": new})


@route("POST", f"{DISCUSSION}/merge")
def merge(asked: Asked, kind: str, name: str, number: str) -> Answer:
    """Brings what the pull request changed onto its base, unless the base has changed the same files since."""
    repo, token = asked.repo(kind, name, write=True), asked.token
    assert token is not None
    discussion = find(repo, number)
    if not discussion["isPullRequest"] or discussion["status"] not in ("open", "draft"):
        raise RefusedError(400, "This can't be merged")
    base, head = discussion["changes"]["base"], repo.refs[f"refs/pr/{number}"]
    before, theirs = repo.commits[discussion["start"]].files, repo.commits[head].files
    files = dict(repo.commits[repo.refs[base]].files)
    for path in before.keys() | theirs.keys():
        if before.get(path) == theirs.get(path):
            continue
        if files.get(path) not in (before.get(path), theirs.get(path)):
            raise RefusedError(409, f"Merge conflict in {path}")
        if path in theirs:
            files[path] = theirs[path]
        else:
            files.pop(path, None)
    title = f"{discussion['title']} (#{number})"
    repo.refs[base] = repo.add(Commit([repo.refs[base], head], title, "", token.user, time.time(), files))
    discussion["status"], discussion["changes"]["mergeCommitId"] = "merged", repo.refs[base]
    event(asked, discussion, "status-change", {"status": "merged"})
    asked.hub.storage.save(repo)
    return Answer({})
