"""What must not leave the machine inside of something published: Hub tokens, and the path of the home folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b")


def holds_token(content: bytes) -> bool:
    """
    Whether there is a Hub token in it.

    Example:

    ```python
    >>> from sage_hf.hub.secrets import holds_token
    >>> holds_token(b"hf_hub_download"), holds_token(b"token=hf_" + 34 * b"x")
    (False, True)

    ```
    """
    return b"hf_" in content and TOKEN.search(content) is not None


def names_home(content: bytes) -> bool:
    """Whether the path of the home folder is in it, as it is or as JSON writes it."""
    home = str(Path.home())
    if len(home) <= 1:
        return False
    spellings = {home.encode(), json.dumps(home)[1:-1].encode()}
    return any(re.search(re.escape(spelling) + rb"(?![\w.-])", content) for spelling in spellings)


def check_text(name: str, content: bytes) -> None:
    """
    Refuse what holds either.

    Args:
        name (`str`): what it is, for the error.
        content (`bytes`): text.

    Raises:
        `ValueError`: it holds a Hub token, or the path of the home folder.
    """
    if holds_token(content):
        raise ValueError(f"{name} holds a Hub token. Remove it, and revoke the token if others have seen it.")
    if names_home(content):
        raise ValueError(f"{name} names your home folder ({Path.home()}). Remove the path from it.")
