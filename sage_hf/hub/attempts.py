"""Calls of the Hub that are repeated when it stumbles."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError, LocalTokenNotFoundError
from transformers.utils import logging

from ..errors import PushError

logger = logging.get_logger(__name__)
T = TypeVar("T")

TRANSIENT = (408, 429, 500, 502, 503, 504)
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts, where the Hub names none."""


class Attempts:
    """
    Calls the Hub again after what may pass, and says what is left to do after what won't.

    Args:
        repo_id (`str`): the repository that is written to or read.
        again (`str`): closes an error: what is lost (nothing), and how to go on.
        wait (`Callable`, *optional*): waits between attempts, in seconds.
        reading (`bool`, *optional*, defaults to `False`): whether it is read.
        failure (`str`, *optional*): what has happened when all attempts failed; told from `reading` if not given.
    """

    def __init__(
        self,
        repo_id: str,
        again: str,
        wait: Callable[[float], None] = time.sleep,
        *,
        reading: bool = False,
        failure: str | None = None,
    ):
        self.repo_id, self.again, self.wait, self.reading = repo_id, again, wait, reading
        what = "What was asked of" if reading else "The push to"
        self.failure = failure or f"{what} {repo_id} did not arrive"

    def __call__(self, call: Callable[[], T]) -> T:
        """
        The result of a call.

        Raises:
            [`PushError`]: the Hub did not take it, or only after more attempts than it got.
        """
        for seconds in (*WAITS, None):
            try:
                return call()
            except (
                HTTPError,
                RuntimeError,
                ConnectionError,
                LocalTokenNotFoundError,
                LocalEntryNotFoundError,
            ) as error:
                cause = _cause(error)
                if cause is None:
                    raise  # a defect, not the Hub's doing
                if seconds is None or not _passes(cause):
                    raise PushError(self._explain(cause)) from error
                logger.warning("The Hub answered %s; trying again.", _short(cause))
                self.wait(_retry_after(cause) or seconds)
        raise AssertionError("unreachable")

    def _explain(self, error: Exception) -> str:
        again, status = self.again, _status(error)
        if isinstance(error, LocalTokenNotFoundError) or status == 401:
            return f"The Hub does not know you: log in with `hf auth login`, or set HF_TOKEN. {again}"
        if status == 403:
            access = ("read", "read") if self.reading else ("write to", "write")
            return f"Your token may not {access[0]} {self.repo_id}: use one with {access[1]} access to it. {again}"
        if status in (413, 507):
            return f"The Hub has no space for {self.repo_id} ({_short(error)}). {again}"
        return f"{self.failure} ({_short(error)}). {again}"


def _cause(error: BaseException) -> Exception | None:
    """The Hub's error inside those that its client wraps around it."""
    found: BaseException | None = error
    while found is not None:
        # Large files go by hf_xet, whose errors of the network are Python's own.
        if isinstance(found, (HTTPError, ConnectionError, LocalTokenNotFoundError)):
            return found
        found = found.__cause__
    return None


def _status(error: Exception) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None


def _passes(error: Exception) -> bool:
    """Whether it may be over in a moment: the Hub is busy, or the connection was cut."""
    if isinstance(error, HfHubHTTPError):
        return _status(error) in TRANSIENT
    return isinstance(error, (HTTPError, ConnectionError))


def _retry_after(error: Exception) -> float | None:
    if not isinstance(error, HfHubHTTPError) or error.response is None:
        return None
    value = error.response.headers.get("Retry-After", "")
    return float(value) if value.replace(".", "", 1).isdigit() else None


def _short(error: Exception) -> str:
    status = _status(error)
    return f"status {status}" if status else type(error).__name__
