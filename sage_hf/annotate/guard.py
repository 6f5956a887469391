"""What stands before every request: only this page's own, from this machine's own pages, of bounded size."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 200_000_000
"""Largest request: a map of noise of the most pixels that Pillow opens without a warning, in base64."""
STARTUP = "/gradio_api/startup-events"
"""Gradio asks itself for this before it says that it has started."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors "
)


@dataclass(frozen=True)
class Rules:
    """
    Who may ask for what.

    Args:
        token (`str`, *optional*): needed once in the address, then as a cookie; `None` where everybody may come.
        paths (`tuple[str, ...]`): what may be asked for; one that ends with `/` stands for everything below it.
            Whatever else Gradio serves, such as its uploads and files, isn't there.
        any_host (`bool`, *optional*, defaults to `False`): whether any name may lead here. If not, only addresses in
            numbers, `localhost`, the machine's own name and `host` do, so that a foreign page can't reach it by a name
            that it has pointed at this machine (DNS rebinding).
        host (`str`, *optional*): name that it listens at.
        framed_by (`str`, *optional*, defaults to `"'none'"`): which pages may show this one in a frame.
    """

    token: str | None
    paths: tuple[str, ...]
    any_host: bool = False
    framed_by: str = "'none'"
    host: str = "localhost"

    def allows_path(self, path: str) -> bool:
        """Whether there is such a path."""
        return any(path.startswith(one) if one.endswith("/") and one != "/" else path == one for one in self.paths)

    def allows_host(self, host: str) -> bool:
        """
        Whether a `Host` header names this machine.

        Example:

        ```python
        >>> from sage_hf.annotate.guard import Rules
        >>> rules = Rules(None, ("/",))
        >>> rules.allows_host("127.0.0.1:7860"), rules.allows_host("[::1]"), rules.allows_host("evil.example")
        (True, True, False)

        ```
        """
        if self.any_host:
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", socket.gethostname().lower(), self.host.lower()):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Guard:
    """
    Middleware that lets through what [`Rules`] allow.

    Args:
        app: what it guards.
        rules ([`Rules`]): of who may ask for what.
    """

    def __init__(self, app: App, rules: Rules):
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        if (refusal := self._refusal(scope, headers)) is not None:
            await _answer(send, *refusal)
            return
        cookie = f"sage_hf_annotate_{(scope.get('server') or ('', 0))[1]}"
        if self.rules.token is not None and scope["path"] != STARTUP:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if given and _same(given, self.rules.token):
                # Out of the address bar and the history, into a cookie.
                attributes = "HttpOnly; SameSite=Strict; Path=/; Max-Age=31536000"
                headers_out = [("location", "/"), ("set-cookie", f"{cookie}={self.rules.token}; {attributes}")]
                await _answer(send, 303, "", headers_out)
                return
            if not _same(_cookie(headers.get("cookie", ""), cookie), self.rules.token):
                await _answer(send, 401, "Open the address that was printed when the server started: it has a key.")
                return
        await self.app(scope, receive, self._sending(send))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        if not self.rules.allows_host(headers.get("host", "")):
            return 421, "This server is not known by that name."
        reading = scope["method"] in ("GET", "HEAD")
        if not self.rules.allows_path(scope["path"]) and not (reading and scope["path"] == STARTUP):
            return 404, "There is no such page."
        if not reading and not _from_here(headers):
            return 403, "Only the server's own page may change anything."
        try:
            length = int(headers.get("content-length", "0"))
        except ValueError:
            return 400, "The request has no length that is a number."
        if length > MOST_BYTES or "transfer-encoding" in headers:
            return 413, f"A request has at most {MOST_BYTES} bytes, and says how many."
        return None

    def _sending(self, send: Send) -> Send:
        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"content-security-policy", f"{POLICY}{self.rules.framed_by}".encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                    (b"cross-origin-resource-policy", b"same-origin"),
                ]
            await send(message)

        return sending


def _from_here(headers: dict[str, str]) -> bool:
    """Whether a page of this very server sends it. Browsers say so, and pages can't make them lie."""
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == headers.get("host")


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


async def _answer(send: Send, status: int, text: str, headers: list[tuple[str, str]] | None = None) -> None:
    given = [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store"), *(headers or [])]
    encoded = [(name.encode(), value.encode()) for name, value in given]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": text.encode()})
