"""Commits: what a client is told before it uploads, and what it then sends."""

from __future__ import annotations

import base64
import json
import time
from fnmatch import fnmatch
from typing import Any

from tests.hub.discussions import open_discussion
from tests.hub.routes import API_REPO, Answer, Asked, route
from tests.hub.storage import LARGE, Commit, File, RefusedError, Repo, git_name, pointer


@route("POST", f"{API_REPO}/preupload/(?P<revision>[^/]+)")
def preupload(asked: Asked, kind: str, name: str, revision: str) -> Answer:
    # Who may only read may still open a pull request, with a token that writes.
    repo = writer(asked, kind, name)
    commit = repo.commits[repo.find(revision)]
    wanted, answer = asked.json(), []
    ignored = wanted.get("gitIgnore")
    if ignored is None and (file := commit.files.get(".gitignore")):
        ignored = asked.hub.storage.blob(file.sha256).read_text()
    for file in wanted["files"]:
        path = file["path"]
        large = asked.hub.storage.is_large(path, file["size"], commit)
        found: dict[str, Any] = {"path": path, "uploadMode": "lfs" if large else "regular"}
        found["shouldIgnore"] = any(matches_rule(path, rule) for rule in (ignored or "").splitlines())
        if old := commit.files.get(path):
            found["oid"] = old.sha256 if old.lfs else old.oid
        answer.append(found)
    return Answer({"files": answer})


def matches_rule(path: str, rule: str) -> bool:
    """The rules of `.gitignore` that name a file, a pattern or a folder; none with `!`."""
    rule = rule.strip()
    if not rule or rule.startswith("#"):
        return False
    names = path.split("/")
    if rule.endswith("/"):
        return any(fnmatch(name, rule[:-1]) for name in names[:-1])
    return fnmatch(path, rule.lstrip("/")) or any(fnmatch(name, rule) for name in names)


def writer(asked: Asked, kind: str, name: str) -> Repo:
    pull_request = asked.flag("create_pr")
    repo = asked.repo(kind, name, write=not pull_request)
    if pull_request:
        token = asked.token
        asked.hub.accounts.must_write(token, token.user if token else "", "open a pull request")
    return repo


@route("POST", f"{API_REPO}/commit/(?P<revision>[^/]+)")
def commit(asked: Asked, kind: str, name: str, revision: str) -> Answer:
    repo, token = writer(asked, kind, name), asked.token
    assert token is not None
    lines = [json.loads(line) for line in asked.body.splitlines() if line]
    header = next(line["value"] for line in lines if line["key"] == "header")
    title, message = header["summary"], header.get("description", "")
    if not title:
        raise RefusedError(400, '"summary" is not allowed to be empty')
    pull_request = asked.flag("create_pr")
    ref = None if pull_request else repo.writable(revision)
    parent = repo.find(ref or revision)
    if not parent.startswith(header.get("parentCommit") or ""):
        raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
    files = dict(repo.commits[parent].files)
    for line in lines:
        apply(asked, repo, files, line["key"], line["value"])
    answer: dict[str, Any] = {"success": True, "hookOutput": ""}
    if ref is None:
        discussion = open_discussion(asked, repo, title, message, base=revision, status="open")
        ref = f"refs/pr/{discussion['num']}"
        answer["pullRequestUrl"] = f"{asked.hub.endpoint}/{repo.url}/discussions/{discussion['num']}"
    repo.refs[ref] = repo.add(Commit([parent], title, message, token.user, time.time(), files))
    asked.hub.storage.save(repo)
    answer |= {"commitOid": repo.refs[ref], "commitUrl": f"{asked.hub.endpoint}/{repo.url}/commit/{repo.refs[ref]}"}
    return Answer(answer)


def apply(asked: Asked, repo: Repo, files: dict[str, File], key: str, value: dict[str, Any]) -> None:
    """Makes the change that one line of a commit asks for."""
    storage, path = asked.hub.storage, value.get("path", "")
    if key == "file":
        content = (
            base64.b64decode(value["content"]) if value.get("encoding") == "base64" else value["content"].encode()
        )
        if len(content) > LARGE:
            raise RefusedError(400, f"{path} is larger than 10 MB: it must be uploaded with LFS")
        files[path] = storage.file(content, lfs=False)
    elif key == "lfsFile":
        if value["oid"] not in repo.uploaded:
            raise RefusedError(400, f"LFS pointer pointed to a file that does not exist, oid: {value['oid']}")
        size = storage.blob(value["oid"]).stat().st_size
        files[path] = File(value["oid"], size, git_name(pointer(value["oid"], size)), True)
    elif key == "copyFile":
        source = repo.commits[repo.find(value.get("srcRevision") or "main")].files
        if value["srcPath"] not in source:
            raise RefusedError(404, f"{value['srcPath']} does not exist", "EntryNotFound")
        files[path] = source[value["srcPath"]]
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            raise RefusedError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
    elif key == "deletedFolder":
        below = [name for name in files if name.startswith(f"{path.rstrip('/')}/")]
        if not below:
            raise RefusedError(404, f"A folder with this name doesn't exist: {path}", "EntryNotFound")
        for name in below:
            del files[name]
    elif key != "header":
        raise RefusedError(400, f"unknown operation {key}")
