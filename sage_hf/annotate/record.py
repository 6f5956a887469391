"""What one annotator says about one picture, as it is kept."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ..data.saliency import DataError

Status = Literal["draft", "done", "nothing", "skipped"]
"""`draft`: not done yet; `done`: marked and labelled; `nothing`: labelled, and nothing in it matters; `skipped`: to be
left out."""
FINISHED: tuple[Status, ...] = ("done", "nothing", "skipped")

HUMAN = "human"
ON = "human on "
"""What stands before the name of the model upon whose guess a human has drawn."""

LONGEST = {"annotator": 80, "label": 200, "note": 10_000, "session": 64}
"""Characters of the texts that a page sends."""


@dataclass(frozen=True)
class Change:
    """
    What a page sends to be saved.

    Args:
        status (`str`): see [`Status`].
        label (`str`, *optional*): class.
        note (`str`): anything worth telling.
        source (`str`): who made the map: `human`, `machine: MODEL` for a guess that was accepted as it is, or
            `human on machine: MODEL` for a guess that was edited.
        session (`str`): names the browser tab.

    Raises:
        [`~sage_hf.data.DataError`]: a status or source that there is not, texts that are too long, a picture marked as
            finished without a label.
    """

    status: Status = "draft"
    label: str | None = None
    note: str = ""
    source: str = HUMAN
    session: str = ""

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise DataError(f"status is {self.status!r}; it can be {', '.join(get_args(Status))}.")
        for name in ("label", "note", "source", "session"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "label" and value is None):
                raise DataError(f"{name} is {type(value).__name__}, not text.")
            if value is not None and len(value) > LONGEST.get(name, 300):
                raise DataError(f"the {name} has {len(value)} characters; {LONGEST.get(name, 300)} are allowed.")
        machine = self.source.removeprefix(ON)
        if self.source != HUMAN and not machine.startswith("machine: "):
            raise DataError(f"source is {self.source!r}, not {HUMAN!r} or 'machine: MODEL'.")
        if self.status in ("done", "nothing") and not self.label:
            raise DataError("a finished picture needs a label. Choose one, or skip the picture.")


@dataclass(frozen=True)
class Record(Change):
    """
    A saved [`Change`].

    Args:
        picture (`str`): name of the picture in its folder or dataset.
        sha256 (`str`): of the picture's file.
        size (`tuple[int, int]`): (width, height) of the picture, after EXIF rotation.
        annotator (`str`): the name.
        revision (`int`): counts from 1; each save makes a new one.
        map (`str`, *optional*): name of the map's file, beside the record; `None` if nothing is marked.
        saved (`str`): when, in UTC.
    """

    picture: str = ""
    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    annotator: str = ""
    revision: int = 0
    map: str | None = None
    saved: str = ""

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Record:
        """
        A record that [`to_json`] gave.

        Raises:
            [`~sage_hf.data.DataError`]: it is another thing.
        """
        names = {option.name for option in fields(cls)}
        if not isinstance(values, dict) or not names <= set(values):
            raise DataError("it is no record of an annotation.")
        given = {name: values[name] for name in names}
        return cls(**given | {"size": tuple(given["size"])})


def checked_name(name: str) -> str:
    """
    An annotator's name, without spaces around it.

    Raises:
        [`~sage_hf.data.DataError`]: it is empty, too long, or has characters that can't be seen.

    Example:

    ```python
    >>> from sage_hf.annotate.record import checked_name
    >>> checked_name("  Ann ")
    'Ann'

    ```
    """
    name = unicodedata.normalize("NFC", name).strip()
    if not name or len(name) > LONGEST["annotator"]:
        raise DataError(f"an annotator's name has 1 to {LONGEST['annotator']} characters, not {len(name)}.")
    if not name.isprintable():
        raise DataError("an annotator's name can't have control characters.")
    return name
