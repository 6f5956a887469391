"""A read-only Hub on loopback: what `huggingface_hub` asks for when it downloads models and datasets from a folder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    root: Path
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if self.headers.get("Content-Type", "").startswith("application/json"):
            self.answer(json.loads(body or b"{}").get("paths"))
        else:
            self.answer([unquote(pair.split("=", 1)[1]) for pair in body.decode().split("&") if pair[:5] == "paths"])

    def answer(self, paths: list[str] | None = None) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[0] == "api":
            self.answer_api(parts[1:], paths)
        elif "resolve" in parts:
            at = parts.index("resolve")
            kind = "datasets" if parts[0] == "datasets" else "models"
            repo = "/".join(parts[at - 2 : at])
            self.send_file(self.root / kind / repo / "/".join(parts[at + 2 :]))
        else:
            self.send_json({"error": "not found"}, 404)

    def answer_api(self, parts: list[str], paths: list[str] | None) -> None:
        """`/api/KIND/OWNER/NAME`, followed by nothing, `revision/R`, `tree/R[/PATH]` or `paths-info/R`."""
        folder = self.root / "/".join(parts[:3])
        if parts[0] not in ("models", "datasets") or len(parts) < 3 or not folder.is_dir():
            self.send_json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        what, rest = (parts[3], parts[5:]) if len(parts) > 3 else ("revision", [])
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if what == "revision":
            siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
            name = "/".join(parts[1:3])
            info = {"_id": "0" * 24, "id": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
            self.send_json(info | {"downloads": 0, "likes": 0, "gated": False, "disabled": False})
        elif what == "tree":
            below = folder / "/".join(rest)
            entries = (
                below.rglob("*") if "recursive=True" in self.path or "recursive=true" in self.path else below.iterdir()
            )
            if below.is_dir():
                self.send_json([self.entry(folder, path) for path in sorted(entries)])
            else:
                self.send_json({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        elif what == "paths-info":
            found = [folder / path for path in paths or [] if (folder / path).exists()]
            self.send_json([self.entry(folder, path) for path in found])
        else:
            self.send_json({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    def entry(self, folder: Path, path: Path) -> dict[str, object]:
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": COMMIT, "size": 0}
        return {"type": "file", "path": name, "oid": etag(path), "size": path.stat().st_size}

    def send_file(self, path: Path) -> None:
        if not path.is_file():
            self.send_json(
                {"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
            )
            return
        content = path.read_bytes()
        start, status = 0, 200
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, status = int(first), 206
            whole = len(content)
            content = content[start : int(last) + 1 if last else None]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{whole}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{etag(path)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.finish_with(content)

    def send_json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.finish_with(json.dumps(value).encode())

    def finish_with(self, content: bytes) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def etag(path: Path) -> str:
    """git's name of a file's content, as the Hub gives for regular files."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def hub(root: Path) -> Iterator[str]:
    """Serve `root/models/OWNER/NAME` and `root/datasets/OWNER/NAME`; yields the address for `HF_ENDPOINT`."""
    handler = type("Handler", (_Handler,), {"root": root})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
