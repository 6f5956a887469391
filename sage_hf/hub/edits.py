"""Cards that may have been edited here and on the Hub since they were pushed: whose words count."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

CARD = "README.md"


class Memory:
    """
    The cards that pushes left on the Hub, and those that stood here then, by repository and revision.

    Args:
        file (`Path`): JSON, made when there is something to remember.
    """

    def __init__(self, file: Path):
        self.file = file

    def last(self, repo_id: str, revision: str | None) -> tuple[str | None, str | None]:
        """What the last push left there, and here; `None` where there was none."""
        found = self._read().get(_key(repo_id, revision))
        if isinstance(found, dict):
            return found["there"], found["here"]
        return found, found

    def remember(self, repo_id: str, revision: str | None, there: str, here: str | None) -> None:
        """Keep what a push left."""
        entry = there if here == there else {"there": there, "here": here}
        cards = self._read() | {_key(repo_id, revision): entry}
        self.file.write_text(json.dumps(cards, indent=2) + "\n", encoding="utf-8")

    def _read(self) -> dict:
        return json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}


def _key(repo_id: str, revision: str | None) -> str:
    return f"{repo_id}@{revision or 'main'}"


def reconciled(
    generated: str,
    here: str | None,
    there: str | None,
    last: tuple[str | None, str | None],
    refresh: Callable[[str, str], str],
) -> str | None:
    """
    The generated card with what people did to the one here or to the one on the Hub.

    Args:
        generated (`str`): the card anew.
        here (`str`, *optional*): the one in the folder.
        there (`str`, *optional*): the one on the Hub.
        last (`tuple`): what the last push left there and here, see [`Memory.last`].
        refresh (`Callable`): brings the edits of a card into the generated one.

    Returns:
        `str`, or `None` if both were edited, and differently.
    """
    ours = generated if here is None else refresh(here, generated)
    theirs = generated if there is None else refresh(there, generated)
    last_there, last_here = last
    if last_there is not None and there == last_there:
        theirs = ours  # nobody touched it there, so what was changed or taken back here counts
    elif (last_here is not None and here == last_here) or ours == generated:
        ours = theirs
    elif theirs == generated:
        theirs = ours
    return ours if ours == theirs else None


def remote_card(repo_id: str, revision: str | None, api: HfApi, repo_type: str = "model") -> str | None:
    """The card on the Hub, `None` if it has none; a Hub that can't be reached is an error, never no card."""
    url = hf_hub_url(repo_id, CARD, repo_type=repo_type, revision=revision, endpoint=api.endpoint)
    try:
        commit = api.get_hf_file_metadata(url=url).commit_hash
    except RemoteEntryNotFoundError:
        return None
    try:
        file = api.hf_hub_download(repo_id, CARD, repo_type=repo_type, revision=commit)
    except LocalEntryNotFoundError as error:
        raise (error.__cause__ or error) from error
    return Path(file).read_text(encoding="utf-8")
