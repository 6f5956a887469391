"""What a page holds, as a reader of HTML finds it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "input", "link"}
LOADING = {"src", "srcset", "href", "data", "poster", "action", "background", "style"}


@dataclass
class Element:
    """A tag, its attributes and the text below it."""

    tag: str
    attributes: dict[str, str]
    parents: tuple[str, ...]
    text: str = ""


@dataclass
class Read(HTMLParser):
    """The elements of a page, in order."""

    source: str
    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()
        assert not self.open, f"never closed: {[one.tag for one in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs}, tuple(one.tag for one in self.open))
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def all(self, *tags: str) -> list[Element]:
        return [one for one in self.elements if one.tag in tags]


def check_page(source: str) -> Read:
    """
    What holds for every page: it parses, loads nothing, its headings are in order, every picture has words, every
    id is one of a kind and every reference leads somewhere.
    """
    page = Read(source)
    levels = [int(one.tag[1]) for one in page.elements if one.tag in {"h1", "h2", "h3", "h4", "h5", "h6"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels
    assert page.all("html")[0].attributes["lang"]
    assert page.all("title")[0].text.strip()
    assert not page.all("script", "link", "iframe", "object", "embed", "base", "form")
    ids = [one.attributes["id"] for one in page.elements if "id" in one.attributes]
    assert len(ids) == len(set(ids)), sorted(name for name in ids if ids.count(name) > 1)[:5]
    for one in page.elements:
        assert not any(name.startswith("on") for name in one.attributes), one
        for name in LOADING & one.attributes.keys():
            value = one.attributes[name]
            assert "//" not in value or value.startswith("data:image/"), (one.tag, name, value[:80])
            if value.startswith("#"):
                assert value[1:] in ids, value
        for name in ("aria-labelledby",):
            assert one.attributes.get(name, ids[0] if ids else "") in ids or name not in one.attributes
    assert "@import" not in source
    regions = [one.attributes["aria-label"] for one in page.elements if one.attributes.get("role") == "region"]
    assert len(regions) == len(set(regions)), sorted(name for name in regions if regions.count(name) > 1)[:5]
    for picture in page.all("img"):
        assert picture.attributes["alt"].strip()
        assert picture.attributes["src"].startswith("data:image/")
    for index, drawing in enumerate(page.elements):
        if drawing.tag in {"th", "caption", "summary"}:
            assert drawing.text.strip(), drawing
        if drawing.tag == "svg":
            title = page.elements[index + 1]
            assert title.tag == "title"
            assert title.text.strip()
            assert drawing.attributes["role"] == "img"
            assert drawing.attributes["aria-labelledby"] == title.attributes["id"]
    return page


def tables(page: Read) -> dict[str, list[list[str]]]:
    """The rows of each table, its header first, by caption."""
    found: list[tuple[list[str], list[list[str]]]] = []
    for one in page.elements:
        if one.tag == "table":
            found.append(([], []))
        elif one.tag == "caption":
            found[-1][0].append(one.text)
        elif one.tag == "tr":
            found[-1][1].append([])
        elif one.tag in {"th", "td"}:
            found[-1][1][-1].append(one.text.replace("\u00a0", " "))
    return {caption[0] if caption else "": rows for caption, rows in found}
