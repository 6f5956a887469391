"""What the server keeps on disk: contents under their SHA-256, and a JSON file a repository for commits and refs."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import itertools
import json
import os
import re
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("models", "datasets", "spaces")
LARGE = 10_000_000  # bytes from which every file is stored with LFS
EXTENSIONS = "7z arrow bin bz2 ckpt gz h5 jpg jpeg msgpack npy npz onnx parquet pickle pkl png pt pth safetensors zip"
GIT_ATTRIBUTES = "".join(f"*.{extension} filter=lfs diff=lfs merge=lfs -text\n" for extension in EXTENSIONS.split())


class RefusedError(Exception):
    """An answer that isn't a success, with the `X-Error-Code` that the Hub's client reads."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass
class File:
    """A file of a commit; `oid` is what git calls it, of an LFS file the pointer's name."""

    sha256: str
    size: int
    oid: str
    lfs: bool


@dataclass
class Commit:
    parents: list[str]
    title: str
    message: str
    author: str
    date: float
    files: dict[str, File]


@dataclass
class Repo:
    kind: str
    name: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # refs/heads/main, refs/tags/v1, refs/pr/1
    uploaded: list[str] = field(default_factory=list)  # the SHA-256 of what was uploaded with LFS
    discussions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.name if self.kind == "models" else f"{self.kind}/{self.name}"

    def find(self, revision: str) -> str:
        """The commit of a branch, a tag, a full ref, or the start of a commit's own name."""
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref in self.refs:
                return self.refs[ref]
        if re.fullmatch("[0-9a-f]{7,40}", revision):
            for commit in self.commits:
                if commit.startswith(revision):
                    return commit
        raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def writable(self, revision: str) -> str:
        """The ref that a commit to `revision` moves."""
        ref = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
        if ref not in self.refs:
            self.find(revision)
            raise RefusedError(400, f"{revision} is not a branch")
        return ref

    def add(self, commit: Commit) -> str:
        """Names a commit by all it holds, time included, so that no two share a name."""
        text = json.dumps(asdict(commit), sort_keys=True)
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name] = commit
        return name

    def history(self, commit: str) -> list[str]:
        """A commit and those before it, newest first."""
        found, waiting = {}, [commit]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = self.commits[name].date
                waiting.extend(self.commits[name].parents)
        return sorted(found, key=lambda name: -found[name])


def git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """What git holds in place of an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


class Storage:
    """Repositories under `root`; a folder `root/KIND/OWNER/NAME` that a test filled becomes a first commit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / ".hub"
        self.lock = threading.RLock()
        self._repos: dict[tuple[str, str], Repo | None] = {}
        self._count = itertools.count(time.time_ns())
        for name in ("blobs", "received"):
            (self.state / name).mkdir(parents=True, exist_ok=True)

    def blob(self, sha256: str) -> Path:
        return self.state / "blobs" / sha256

    def new_file(self) -> Path:
        """Where the body of the next upload goes; what arrives is kept, whole or not."""
        return self.state / "received" / str(next(self._count))

    def write(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        self._scratch(content).replace(self.blob(sha256))
        return sha256

    def adopt(self, path: Path, sha256: str) -> None:
        """Makes a file that lies under `root` the content named so, and leaves it where it is."""
        with contextlib.suppress(FileExistsError):
            os.link(path, self.blob(sha256))

    def _scratch(self, content: bytes) -> Path:
        path = self.state / f"scratch-{next(self._count)}"
        path.write_bytes(content)
        return path

    def is_large(self, path: str, size: int, commit: Commit | None = None) -> bool:
        """Whether a file goes through LFS: by its size, or by the `.gitattributes` of the commit before."""
        text = GIT_ATTRIBUTES
        if commit and (file := commit.files.get(".gitattributes")):
            text = self.blob(file.sha256).read_text()
        rules = [line.split()[0] for line in text.splitlines() if "filter=lfs" in line]
        named = any(fnmatch.fnmatch(name, rule) for rule in rules for name in (path, path.rsplit("/", 1)[-1]))
        # An empty file never does: the Hub's storage takes none.
        return size > 0 and (size >= LARGE or named)

    def file(self, content: bytes, lfs: bool) -> File:
        sha256 = self.write(content)
        return File(sha256, len(content), git_name(pointer(sha256, len(content)) if lfs else content), lfs)

    def get(self, kind: str, name: str) -> Repo | None:
        with self.lock:
            if (kind, name) not in self._repos:
                self._repos[kind, name] = self._load(kind, name)
            return self._repos[kind, name]

    def create(self, kind: str, name: str, private: bool, author: str, files: dict[str, File] | None = None) -> Repo:
        repo = Repo(kind, name, private)
        if files is None:
            files = {".gitattributes": self.file(GIT_ATTRIBUTES.encode(), lfs=False)}
        repo.refs["refs/heads/main"] = repo.add(Commit([], "initial commit", "", author, time.time(), files))
        self._repos[kind, name] = repo
        self.save(repo)
        return repo

    def delete(self, repo: Repo) -> None:
        self._repos[repo.kind, repo.name] = None
        self._write_state(repo.kind, repo.name, None)

    def save(self, repo: Repo) -> None:
        self._write_state(repo.kind, repo.name, asdict(repo))

    def _write_state(self, kind: str, name: str, state: dict[str, Any] | None) -> None:
        path = self._state(kind, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A server that is killed leaves the old state or the new, never half of one.
        self._scratch(json.dumps(state).encode()).replace(path)

    def _state(self, kind: str, name: str) -> Path:
        return self.state / kind / f"{name}.json"

    def _load(self, kind: str, name: str) -> Repo | None:
        path, folder = self._state(kind, name), self.root / kind / name
        if path.is_file():
            state = json.loads(path.read_text())
            if state is None:  # it was deleted
                return None
            for commit in state["commits"].values():
                commit["files"] = {name: File(**file) for name, file in commit["files"].items()}
            state["commits"] = {name: Commit(**commit) for name, commit in state["commits"].items()}
            return Repo(**state)
        if kind not in KINDS or not folder.is_dir():
            return None
        files = {}
        for found in sorted(path for path in folder.rglob("*") if path.is_file()):
            name_in_repo, content = found.relative_to(folder).as_posix(), found.read_bytes()
            files[name_in_repo] = self.file(content, self.is_large(name_in_repo, len(content)))
        repo = self.create(kind, name, False, name.partition("/")[0], files)
        repo.uploaded = [file.sha256 for file in files.values() if file.lfs]
        self.save(repo)
        return repo
