"""A Hub on loopback that `huggingface_hub`, and what is built on it, reads and pushes to; it fails when told to."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import tests.hub.commits
import tests.hub.discussions
import tests.hub.lfs  # noqa: F401  # each registers its addresses
from tests.hub.accounts import Accounts
from tests.hub.faults import Fault, Faults
from tests.hub.routes import ROUTES, Answer, Asked
from tests.hub.storage import File, RefusedError, Repo, Storage

PIECE = 1 << 16


@dataclass
class Record:
    """One request as it arrived: its line, the names of its headers without their values, and its body."""

    method: str
    path: str
    header_names: tuple[str, ...]
    status: int | None = None  # None if the connection was dropped
    size: int = 0  # of the body, as far as it arrived
    content: bytes = b""
    upload: Path | None = field(default=None, repr=False)

    @property
    def body(self) -> bytes:
        return self.upload.read_bytes() if self.upload else self.content


class Hub:
    """
    A Hub in this process, `with Hub(root) as server:`. What it holds lies under `root` and outlives it.

    Args:
        root (`Path`):
            A folder. `root/models/OWNER/NAME`, and `datasets` and `spaces`, may hold repositories as plain folders;
            each becomes a first commit when it is first asked for.
        part_size (`int`, *optional*):
            LFS uploads larger than this many bytes come in parts of this size. Never, if not given.

    `endpoint` is the address for `HF_ENDPOINT`; `faults` says what goes wrong; `accounts` knows the tokens; `records`
    lists the requests.
    """

    def __init__(self, root: Path, part_size: int | None = None) -> None:
        self.storage = Storage(root)
        self.accounts = Accounts()
        self.faults = Faults()
        self.records: list[Record] = []
        self.errors: list[BaseException] = []  # mistakes of this server; leaving the context raises the first
        self.part_size = part_size
        self.parts: dict[tuple[str, int], Path] = {}
        self.port = 0
        self._server: _Server | None = None
        self._timers: list[threading.Timer] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage_endpoint(self) -> str:
        # Another host, as on the real Hub, so that the client sends no token there.
        return f"http://localhost:{self.port}"

    def start(self) -> None:
        """Listens, at the same port as before if it has listened before."""
        self._server = _Server(("127.0.0.1", self.port), type("Handler", (_Handler,), {"hub": self}))
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Drops every connection, in the middle of whatever it does, and listens no more."""
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.server_close()
            server.drop_all()

    def restart(self, pause: float = 0.5) -> None:
        """Stops, and starts again after so many seconds, without waiting for it."""
        self.stop()
        self._timers.append(threading.Timer(pause, self.start))
        self._timers[-1].start()

    @property
    def running(self) -> bool:
        return self._server is not None

    def __enter__(self) -> Hub:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.join()
        self.stop()
        if self.errors:
            raise self.errors[0]

    @staticmethod
    def date(seconds: float) -> str:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def repo(self, name: str, kind: str = "models") -> Repo:
        repo = self.storage.get(kind, name)
        assert repo is not None, f"no {kind}/{name}"
        return repo

    def files(self, name: str, kind: str = "models", revision: str = "main") -> dict[str, File]:
        repo = self.repo(name, kind)
        return repo.commits[repo.find(revision)].files

    def read(self, name: str, path: str, kind: str = "models", revision: str = "main") -> bytes:
        return self.storage.blob(self.files(name, kind, revision)[path].sha256).read_bytes()

    def requests(self, method: str, part: str) -> list[Record]:
        """The requests with this method whose address holds `part`."""
        return [record for record in self.records if record.method == method and part in record.path]

    def pushed(self) -> Iterator[tuple[str, bytes]]:
        """All that clients ever sent, committed or not, as (where, content): bodies, and files unpacked from them."""
        for record in list(self.records):
            if not record.size:
                continue
            where = f"{record.method} {record.path}"
            yield where, record.body
            for line in record.body.splitlines() if "/commit/" in record.path else []:
                with suppress(ValueError, KeyError):  # the last line of a body that was cut
                    value = json.loads(line)["value"]
                    yield f"{where} {value['path']}", base64.b64decode(value["content"])
            if "/preupload/" in record.path:
                with suppress(ValueError, KeyError):
                    for file in json.loads(record.body)["files"]:
                        yield f"{where} {file['path']}", base64.b64decode(file["sample"])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def drop_all(self) -> None:
        for request in list(self._open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that went away is no error here, and the handler keeps every other."""


class _DroppedError(Exception):
    """The connection ends without an answer."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        self.record = Record(self.command, self.path, tuple(self.headers.keys()))
        self.hub.records.append(self.record)
        try:
            self.answer()
        except (_DroppedError, ConnectionError):
            self.close_connection = True
        except Exception as error:
            self.close_connection = True
            if self.hub.running:
                self.hub.errors.append(error)

    do_HEAD = do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815  # http.server's names

    def answer(self) -> None:
        fault = self.hub.faults.next(self.command, self.path) or Fault("", "")
        time.sleep(fault.delay)
        in_body = fault.cut is not None and self.command not in ("GET", "HEAD")
        self.read_body(fault.cut if in_body else None)
        if fault.hook:
            fault.hook()
        if in_body or not self.hub.running:
            raise _DroppedError
        if fault.status:
            body = fault.body or {"error": f"fault {fault.status}"}
            self.send(Answer(body, fault.status, fault.headers))
            return
        try:
            answer = self.find_answer()
        except RefusedError as refusal:
            headers = {"X-Error-Message": refusal.message}
            answer = Answer({"error": refusal.message}, refusal.status, headers)
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
        if fault.lose:
            raise _DroppedError
        self.send(answer, fault.cut)

    def find_answer(self) -> Answer:
        url = urlsplit(self.path)
        for methods, pattern, function in ROUTES:
            found = pattern.fullmatch(url.path)
            if found and self.command in methods.split("|"):
                asked = Asked(self.hub, self.command, parse_qs(url.query), self.headers.get("Authorization"), b"")
                asked.body, asked.upload = self.record.content, self.record.upload
                parts = {name: unquote(part) for name, part in found.groupdict().items() if part is not None}
                # Storage takes several uploads at once; commits and refs change one after the other.
                if self.path.startswith("/storage/"):
                    return function(asked, **parts)
                with self.hub.storage.lock:
                    return function(asked, **parts)
        raise RefusedError(404, "Sorry, we can't find the page you are looking for.")

    def read_body(self, cut: int | None) -> None:
        record = self.record
        if self.command == "PUT" and self.path.startswith("/storage/"):
            record.upload = self.hub.storage.new_file()
            with record.upload.open("wb") as file:
                self.read_into(file.write, cut)
        else:
            pieces: list[bytes] = []
            try:
                self.read_into(pieces.append, cut)
            finally:
                record.content = b"".join(pieces)

    def read_into(self, write: Callable[[bytes], Any], cut: int | None) -> None:
        """Reads the body, or the first `cut` bytes of it."""
        for length in self.lengths():
            left = length
            while left:
                most = min(left, PIECE, PIECE if cut is None else cut - self.record.size)
                piece = self.rfile.read(most) if most else b""
                write(piece)
                self.record.size += len(piece)
                left -= len(piece)
                if cut is not None and self.record.size >= cut:
                    return
                if not piece:
                    raise _DroppedError

    def lengths(self) -> Iterator[int]:
        """How many bytes of body follow: once, or for each chunk."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            yield int(self.headers.get("Content-Length", 0))
            return
        while length := int(self.rfile.readline().split(b";")[0], 16):
            yield length
            self.rfile.readline()
        self.rfile.readline()

    def send(self, answer: Answer, cut: int | None = None) -> None:
        headers, status, start = dict(answer.headers), answer.status, 0
        if answer.file is None:
            is_page = isinstance(answer.content, str)
            headers["Content-Type"] = "text/html" if is_page else "application/json"
            content = (answer.content if is_page else json.dumps(answer.content)).encode()
        else:
            content = answer.file.read_bytes()
            headers |= {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
            if wanted := self.headers.get("Range"):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                size = len(content)
                start = int(first) if first else max(size - int(last), 0)
                content = content[start : int(last) + 1 if first and last else None]
                status = 206 if start < size else 416
                ends = f"{start}-{start + len(content) - 1}" if status == 206 else "*"
                headers["Content-Range"] = f"bytes {ends}/{size}"
        self.record.status = status
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            raise _DroppedError


@contextmanager
def hub(root: Path) -> Iterator[str]:
    """Serves `root/models/OWNER/NAME` and `root/datasets/OWNER/NAME`; yields the address for `HF_ENDPOINT`."""
    with Hub(root) as server:
        yield server.endpoint
