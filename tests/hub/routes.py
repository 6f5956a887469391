"""What each address of the Hub's interface answers, apart from commits, LFS and discussions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import yaml

from tests.hub.accounts import ORGANIZATION, Token
from tests.hub.storage import KINDS, Commit, File, RefusedError, Repo, pointer

if TYPE_CHECKING:
    from tests.hub.server import Hub


@dataclass
class Asked:
    """A request, its body read: in memory, or for what goes to storage in a file."""

    hub: Hub
    method: str
    query: dict[str, list[str]]
    authorization: str | None
    body: bytes
    upload: Path | None = None

    @property
    def token(self) -> Token | None:
        return self.hub.accounts.who(self.authorization)

    def json(self) -> Any:
        return json.loads(self.body or b"null") or {}

    def flag(self, name: str) -> bool:
        return self.query.get(name, [""])[0].lower() in ("1", "true")

    def repo(self, kind: str, name: str, write: bool = False) -> Repo:
        """The repository, if whoever asks may see it (or write to it)."""
        token, repo, namespace = self.token, self.hub.storage.get(kind, name), name.partition("/")[0]
        self.hub.accounts.must_read(token, namespace, repo and repo.private)
        assert repo is not None
        if write:
            self.hub.accounts.must_write(token, namespace)
        return repo


@dataclass
class Answer:
    """JSON, a page of HTML if `content` is text, or the bytes of a file of which a range may be asked."""

    content: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    file: Path | None = None


ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = []
KIND = f"(?P<kind>{'|'.join(KINDS)})"
NAME = "(?P<name>[^/]+/[^/]+)"
API_REPO = f"/api/{KIND}/{NAME}"
REPO_PAGE = f"/(?:(?P<kind>datasets|spaces)/)?{NAME}"


def route(methods: str, pattern: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Registers a function for an address, given still quoted so that `refs%2Fpr%2F1` is one part of it."""

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        ROUTES.append((methods, re.compile(pattern), function))
        return function

    return register


@route("GET", "/api/whoami-v2")
def whoami(asked: Asked) -> Answer:
    token = asked.token
    if token is None:
        raise RefusedError(401, "Invalid username or password.")
    access = {"type": "access_token", "accessToken": {"displayName": "tests", "role": token.role}}
    organizations = [{"type": "org", "name": ORGANIZATION}] if asked.hub.accounts.owns(token, ORGANIZATION) else []
    return Answer({"type": "user", "name": token.user, "fullname": token.user, "orgs": organizations, "auth": access})


@route("POST", "/api/repos/create")
def create(asked: Asked) -> Answer:
    wanted, token = asked.json(), asked.token
    kind = wanted.get("type", "model") + "s"
    namespace = wanted.get("organization") or (token.user if token else "")
    asked.hub.accounts.must_write(token, namespace, f"create a {kind[:-1]}")
    assert token is not None
    name = f"{namespace}/{wanted['name']}"
    url = f"{asked.hub.endpoint}/{name if kind == 'models' else f'{kind}/{name}'}"
    if asked.hub.storage.get(kind, name):
        return Answer({"error": f"You already created this {kind[:-1]} repo", "url": url}, 409)
    asked.hub.storage.create(kind, name, wanted.get("visibility") == "private", token.user)
    return Answer({"url": url, "name": name})


@route("DELETE", "/api/repos/delete")
def delete(asked: Asked) -> Answer:
    wanted, token = asked.json(), asked.token
    namespace = wanted.get("organization") or (token.user if token else "")
    asked.hub.storage.delete(
        asked.repo(wanted.get("type", "model") + "s", f"{namespace}/{wanted['name']}", write=True)
    )
    return Answer({})


@route("PUT", f"{API_REPO}/settings")
def settings(asked: Asked, kind: str, name: str) -> Answer:
    repo, wanted = asked.repo(kind, name, write=True), asked.json()
    repo.private = wanted.get("visibility", "private" if repo.private else "public") == "private"
    asked.hub.storage.save(repo)
    return Answer(wanted)


@route("POST", "/api/validate-yaml")
def validate_yaml(asked: Asked) -> Answer:
    errors, warnings = [], []
    try:
        if not card(asked.json()["content"]):
            warnings.append({"message": "empty or missing yaml metadata in repo card"})
    except (yaml.YAMLError, ValueError) as error:
        errors.append({"message": str(error)})
    return Answer({"errors": errors, "warnings": warnings}, 400 if errors else 200)


def card(text: str) -> dict[str, Any]:
    found = re.match(r"\s*---\r?\n(.*?)\r?\n?---\s*(\r?\n|$)", text, re.DOTALL)
    data = yaml.safe_load(found[1]) if found else None
    if data is not None and not isinstance(data, dict):
        raise ValueError("the metadata of a card is a mapping")
    # The names of licences and of languages are lists on the Hub too, of which only the type is checked here.
    for key in ("license", "language", "tags"):
        if not isinstance((data or {}).get(key, ""), str | list):
            raise ValueError(f'"{key}" must be a string or an array of strings')
    return data or {}


@route("GET|HEAD", f"{API_REPO}(?:/revision/(?P<revision>[^/]+))?")
def info(asked: Asked, kind: str, name: str, revision: str | None = None) -> Answer:
    repo = asked.repo(kind, name)
    sha = repo.find(revision or "main")
    files = repo.commits[sha].files
    readme = files.get("README.md")
    data = card(asked.hub.storage.blob(readme.sha256).read_text()) if readme else {}
    siblings: list[dict[str, Any]] = []
    for path, file in sorted(files.items()):
        siblings.append({"rfilename": path})
        if asked.flag("blobs"):
            siblings[-1] |= {"size": file.size, "blobId": file.oid} | lfs_info(file, "sha256")
    tags = data.get("tags") or []
    answer = {"_id": "0" * 24, "id": name, "author": name.partition("/")[0], "sha": sha, "private": repo.private}
    answer |= {"siblings": siblings, "tags": [tags] if isinstance(tags, str) else tags, "downloads": 0, "likes": 0}
    answer |= {"gated": False, "disabled": False, "cardData": json.loads(json.dumps(data, default=str))}
    return Answer(answer | {key: data[key] for key in ("library_name", "pipeline_tag") if key in data})


def lfs_info(file: File, name: str) -> dict[str, Any]:
    if not file.lfs:
        return {}
    size = len(pointer(file.sha256, file.size))
    return {"lfs": {name: file.sha256, "size": file.size, "pointerSize": size}}


def entry(commit: Commit, path: str) -> dict[str, Any] | None:
    """A file or a folder as `tree` and `paths-info` describe it."""
    if file := commit.files.get(path):
        return {"type": "file", "path": path, "oid": file.oid, "size": file.size} | lfs_info(file, "oid")
    below = {name: file.oid for name, file in commit.files.items() if name.startswith(f"{path}/")}
    if not below:
        return None
    oid = hashlib.sha1(json.dumps(below, sort_keys=True).encode()).hexdigest()
    return {"type": "directory", "path": path, "oid": oid, "size": 0}


@route("GET", f"{API_REPO}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?")
def tree(asked: Asked, kind: str, name: str, revision: str, path: str | None = None) -> Answer:
    repo = asked.repo(kind, name)
    commit = repo.commits[repo.find(revision)]
    start = f"{path}/" if path else ""
    below = [found for found in commit.files if found.startswith(start)]
    if path and not below:
        raise RefusedError(404, f"{path} does not exist on {revision}", "EntryNotFound")
    depth = start.count("/")
    levels = range(depth + 1, max((found.count("/") for found in below), default=0) + 2)
    names = {
        "/".join(found.split("/")[:level]) for found in below for level in levels if level <= found.count("/") + 1
    }
    if not asked.flag("recursive"):
        names = {found for found in names if found.count("/") == depth}
    return Answer([entry(commit, found) for found in sorted(names)])


@route("POST", f"{API_REPO}/paths-info/(?P<revision>[^/]+)")
def paths_info(asked: Asked, kind: str, name: str, revision: str) -> Answer:
    repo = asked.repo(kind, name)
    commit = repo.commits[repo.find(revision)]
    is_json = asked.body[:1] == b"{"
    paths = asked.json()["paths"] if is_json else parse_qs(asked.body.decode()).get("paths", [])
    return Answer([found for path in paths if (found := entry(commit, path.rstrip("/")))])


@route("GET", f"{API_REPO}/commits/(?P<revision>[^/]+)")
def commits(asked: Asked, kind: str, name: str, revision: str) -> Answer:
    repo = asked.repo(kind, name)
    found = [(sha, repo.commits[sha]) for sha in repo.history(repo.find(revision))]
    return Answer(
        [
            {"id": sha, "title": commit.title, "message": commit.message, "date": asked.hub.date(commit.date)}
            | {"authors": [{"user": commit.author}], "parents": commit.parents}
            for sha, commit in found
        ]
    )


@route("GET", f"{API_REPO}/refs")
def refs(asked: Asked, kind: str, name: str) -> Answer:
    repo = asked.repo(kind, name)

    def under(start: str) -> list[dict[str, str]]:
        return [
            {"name": ref.removeprefix(start), "ref": ref, "targetCommit": commit}
            for ref, commit in repo.refs.items()
            if ref.startswith(start)
        ]

    answer = {"branches": under("refs/heads/"), "tags": under("refs/tags/"), "converts": []}
    return Answer(answer | ({"pullRequests": under("refs/pr/")} if asked.flag("include_prs") else {}))


@route("POST|DELETE", f"{API_REPO}/(?P<what>branch|tag)/(?P<revision>[^/]+)")
def change_ref(asked: Asked, kind: str, name: str, what: str, revision: str) -> Answer:
    """A branch is named by the address and starts at the body's commit; for a tag it is the other way round."""
    repo, wanted = asked.repo(kind, name, write=True), asked.json()
    new = asked.method == "POST" and what == "tag"
    folder = "refs/heads/" if what == "branch" else "refs/tags/"
    ref = folder + (wanted["tag"] if new else revision)
    if asked.method == "DELETE":
        if ref not in repo.refs:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        if ref == "refs/heads/main":
            raise RefusedError(403, "The default branch can't be deleted")
        del repo.refs[ref]
    elif ref in repo.refs:
        raise RefusedError(409, f"Reference {ref} already exists")
    else:
        repo.refs[ref] = repo.find(revision if new else wanted.get("startingPoint", "main"))
    asked.hub.storage.save(repo)
    return Answer({})


@route("GET|HEAD", f"{REPO_PAGE}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(asked: Asked, name: str, revision: str, path: str, kind: str | None = None) -> Answer:
    repo = asked.repo(kind or "models", name)
    sha = repo.find(revision)
    headers = {"X-Repo-Commit": sha}
    file = repo.commits[sha].files.get(path)
    if file is None:
        headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
        return Answer({"error": "Entry not found"}, 404, headers)
    if not file.lfs:
        return Answer(file=asked.hub.storage.blob(file.sha256), headers=headers | {"ETag": f'"{file.oid}"'})
    etag = f'"{file.sha256}"'
    headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(file.size), "ETag": etag}
    location = f"{asked.hub.storage_endpoint}/storage/{repo.kind}/{name}/{file.sha256}"
    return Answer({}, 302, headers | {"Location": location})
