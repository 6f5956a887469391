"""What can go wrong between a client and the server, switched on by a test."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Fault:
    """
    What happens to some of the requests whose method and address match.

    Args:
        method (`str`):
            A regular expression that the whole method matches: `"PUT"`, `"GET|HEAD"`.
        path (`str`):
            A regular expression found anywhere in the address and its query.
        at (`int`, defaults to 1):
            The first request, among those that match, to which it happens; one-based.
        times (`int`, *optional*, defaults to 1):
            How many of them it happens to; all that follow, if `None`.
        delay (`float`, defaults to 0):
            Seconds to wait before anything else.
        hook (`Callable`, *optional*):
            Called once for each request it happens to: before the answer, or, where `cut` is given too, in the middle
            of the request's body. A hook may stop the server.
        status (`int`, *optional*):
            Answer this, and do nothing of what was asked.
        headers (`dict`, *optional*):
            Headers of that answer, such as `{"Retry-After": "1"}`.
        body (`dict` or `str`, *optional*):
            That answer: JSON, or the page of HTML that a proxy gives. Defaults to JSON that names the status.
        cut (`int`, *optional*):
            Drop the connection after so many bytes of the body: the request's, or the answer's to a `GET`.
        lose (`bool`, defaults to `False`):
            Do what was asked, then drop the connection without an answer.
    """

    method: str
    path: str
    at: int = 1
    times: int | None = 1
    delay: float = 0.0
    hook: Callable[[], Any] | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | str | None = None
    cut: int | None = None
    lose: bool = False
    seen: int = 0
    fired: int = 0

    def matches(self, method: str, path: str) -> bool:
        return bool(re.fullmatch(self.method, method) and re.search(self.path, path))

    def fires(self) -> bool:
        """Counts one more request that matches, and says whether it happens to this one."""
        self.seen += 1
        if self.seen < self.at or (self.times is not None and self.fired >= self.times):
            return False
        self.fired += 1
        return True


class Faults:
    """The faults that are switched on; the first that fires for a request is the one that happens."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, method: str, path: str, **settings: Any) -> Fault:
        """Switches a [`Fault`] on. `fired` of what it returns counts how often it has happened."""
        fault = Fault(method, path, **settings)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def next(self, method: str, path: str) -> Fault | None:
        with self._lock:
            matching = [fault for fault in self._faults if fault.matches(method, path)]
            return next((fault for fault in matching if fault.fires()), None)
