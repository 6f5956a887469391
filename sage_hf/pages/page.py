"""A page of text, tables and figures: one HTML file that asks for nothing else."""

from __future__ import annotations

import base64
import io
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..version import __version__
from .palette import DARK, LIGHT

GENERATOR = "sage_hf"
"""What the generator tag of a page starts with, by which its writer knows its own files."""

_OWN = re.compile(rb'<meta name="generator" content="' + GENERATOR.encode() + rb"[ \"]")
_NUMBER = re.compile(r"[-+\u2212]?\d[\d.,]*(e[-+]?\d+)?( ?(%|s|ms|kB|MB|GB))?( \(.*\))?", re.IGNORECASE)
_ID = re.compile(r"""(\bid="|\bhref="#|url\(#)([^"()]+)""")


SHORT = 24
"""Letters of a table's cell that stay on one line."""


class Block:
    """What a page is made of."""

    kind: ClassVar[str]


@dataclass(init=False)
class Text(Block):
    """
    Paragraphs, as they are: no markup is read in them.

    Args:
        *paragraphs (`str`): the text of each.
    """

    kind = "text"
    paragraphs: tuple[str, ...]

    def __init__(self, *paragraphs: str):
        self.paragraphs = paragraphs


@dataclass
class Code(Block):
    """
    Commands or code, to copy.

    Args:
        text (`str`): lines.
    """

    kind = "code"
    text: str


@dataclass
class Table(Block):
    """
    A table. Columns of numbers are right-aligned; the first column names its row.

    Args:
        header (`Sequence[str]`): names of the columns.
        rows (`Sequence[Sequence[str]]`): the cells, as many in each row as the header has.
        caption (`str`, *optional*): what it shows.

    Raises:
        `ValueError`: a row of another length than the header.
    """

    kind = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.header):
                raise ValueError(f"Row {index} of a table has {len(row)} cells, its header {len(self.header)}: {row}")

    @property
    def numeric(self) -> list[bool]:
        """Of each column, whether it holds numbers (or nothing) alone."""
        columns: list[list[str]] = [[row[index] for row in self.rows] for index in range(len(self.header))]
        return [
            any(column) and all(not cell or _NUMBER.fullmatch(cell) is not None for cell in column)
            for column in columns
        ]

    @property
    def kinds(self) -> list[str]:
        """Of each column, `number`, `short` (not to be broken into lines) or `long`."""
        columns = [[row[index] for row in [self.header, *self.rows]] for index in range(len(self.header))]
        return [
            "number" if numeric else "short" if max(map(len, column)) <= SHORT else "long"
            for numeric, column in zip(self.numeric, columns, strict=True)
        ]


@dataclass
class Figure(Block):
    """
    A picture or a chart.

    Args:
        image (`bytes` or `str`): the bytes of a PNG or JPEG file, or SVG text.
        alt (`str`): what it shows, in words, for those who don't see it.
        caption (`str`, *optional*): shown below it.
        table (`Table`, *optional*): the data that it draws, to unfold below it.

    Raises:
        `ValueError`: no alternative text, or an image of another kind.
    """

    kind = "figure"
    image: bytes | str
    alt: str
    caption: str = ""
    table: Table | None = None
    size: tuple[int, int] = field(init=False, default=(0, 0))
    source: str = field(init=False, default="")

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError("A figure needs alternative text: say in alt what it shows.")
        if isinstance(self.image, str):
            if "<svg" not in self.image:
                raise ValueError("A figure's text must be SVG; give the bytes of a PNG or JPEG file otherwise.")
            return
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(self.image), formats=("PNG", "JPEG")) as picture:
                self.size, kind = picture.size, str(picture.format).lower()
        except UnidentifiedImageError:
            raise ValueError(f"The figure {self.alt[:60]!r} is neither a PNG nor a JPEG file.") from None
        self.source = f"data:image/{kind};base64,{base64.b64encode(self.image).decode()}"

    @property
    def is_svg(self) -> bool:
        """Whether the image is SVG text."""
        return isinstance(self.image, str)

    def svg(self, prefix: str) -> str:
        """
        The SVG text for its place in a page: named by the alternative text, ids apart from those of other figures.

        Args:
            prefix (`str`): what its ids get in front.
        """
        from markupsafe import escape

        text = str(self.image)[str(self.image).index("<svg") :]
        text = _ID.sub(rf"\g<1>{prefix}\g<2>", text.replace("xlink:href", "href"))
        head, body = text.split(">", 1)
        title = f'<title id="{prefix}title">{escape(self.alt)}</title>'
        return f'{head} role="img" aria-labelledby="{prefix}title">{title}{body}'


@dataclass(init=False)
class Gallery(Block):
    """
    Blocks side by side, as many in a row as the screen has room for.

    Args:
        *blocks (`Block`): usually figures.
        width (`int`, *optional*, defaults to 310): least width of each, in pixels.
    """

    kind = "gallery"
    blocks: tuple[Block, ...]
    width: int

    def __init__(self, *blocks: Block, width: int = 310):
        self.blocks, self.width = blocks, width


@dataclass
class Definitions(Block):
    """
    Names and what they are: settings, versions.

    Args:
        items (`Mapping[str, str]`): by name.
    """

    kind = "definitions"
    items: Mapping[str, str]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The items in order."""
        return list(self.items.items())


@dataclass(init=False)
class Details(Block):
    """
    Blocks that unfold.

    Args:
        summary (`str`): what is seen before.
        *blocks (`Block`): what it holds.
    """

    kind = "details"
    summary: str
    blocks: tuple[Block, ...]

    def __init__(self, summary: str, *blocks: Block):
        self.summary, self.blocks = summary, blocks


@dataclass(init=False)
class Section(Block):
    """
    Blocks under a heading; inside another section, under a smaller one.

    Args:
        heading (`str`): its text.
        *blocks (`Block`): what follows it, further sections last.
    """

    kind = "section"
    heading: str
    blocks: tuple[Block, ...]

    def __init__(self, heading: str, *blocks: Block):
        self.heading, self.blocks = heading, blocks


@dataclass
class Page:
    """
    An HTML page in one file. It runs no script and asks for nothing, which its content security policy enforces.

    Args:
        title (`str`): its title and first heading.
        lead (`str`, *optional*): the paragraph below it.
        language (`str`, *optional*, defaults to `"en"`): of the text.

    Example:

    ```python
    >>> from sage_hf.pages import Page, Table, Text
    >>> page = Page("Digits", lead="What was measured.")
    >>> page.add("Results", Text("Of 400 rows."), Table(["split", "accuracy"], [["test", "0.98"]]))
    >>> "<h2" in page.html(), "0.98" in page.html()
    (True, True)

    ```
    """

    title: str
    lead: str = ""
    language: str = "en"
    sections: list[Section] = field(default_factory=list)

    def add(self, heading: str, *blocks: Block) -> None:
        """
        Add a section.

        Args:
            heading (`str`): its heading.
            *blocks (`Block`): what it holds.
        """
        self.sections.append(Section(heading, *blocks))

    def html(self) -> str:
        """The page's text."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        return environment.get_template("page.html").render(
            page=self, light=LIGHT, dark=DARK, generator=f"{GENERATOR} {__version__}"
        )

    def write(self, path: str | Path) -> None:
        """
        Write the page, whole or not at all; a page that an earlier call wrote is replaced.

        Args:
            path (`str` or `Path`): of the HTML file; its folder is made if missing.

        Raises:
            `FileExistsError`: something else is there, and stays.
            `ValueError`: the page holds a Hub token or the path of the home folder.
        """
        from ..hub.secrets import check_text

        path = Path(path)
        check_own(path)
        content = self.html().encode("utf-8")
        check_text(path.name, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".page-", suffix=".html")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            # mkstemp makes files for the owner's eyes alone.
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(unfinished, 0o666 & ~umask)
            os.replace(unfinished, path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise


def check_own(path: str | Path) -> None:
    """
    Make sure that a page may be written somewhere, before any work is done for it.

    Args:
        path (`str` or `Path`): of the HTML file.

    Raises:
        `FileExistsError`: what is there was not written by [`Page.write`].
    """
    path = Path(path)
    if not path.exists() and not path.is_symlink():
        return
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as file:
            if _OWN.search(file.read(4096)):
                return
    raise FileExistsError(f"{path} is there already, and is no page of sage_hf. Choose another file, or move it away.")
