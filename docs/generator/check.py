"""What can be wrong with a built site: links that lead nowhere, and requests to other hosts."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
}
"""What a browser fetches without being asked, by tag. Links to styles, icons and fonts come on top."""
FETCHED_RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest"}
OUTSIDE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)


class _Page(HTMLParser):
    """The anchors, links, requests and untidy pictures of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: list[str] = []
        self.requests: list[str] = []
        self.undescribed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and FETCHED_RELATIONS & set(values.get("rel", "").split()):
            self.requests.append(values["href"])
        if tag in LOADED and values.get(LOADED[tag]):
            self.requests.append(values[LOADED[tag]])
        if tag == "img" and not values.get("alt"):
            self.undescribed.append(values.get("src", ""))
        self.requests += _urls(values.get("style", ""))


def _urls(style: str) -> list[str]:
    found = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", style)
    return [first or second for first, second in found]


def problems_of(site: Path) -> list[str]:
    """
    Everything wrong with a site, a line each.

    Args:
        site (`Path`): folder of the site; `DIR/` is `DIR/index.html`.

    Returns:
        `list[str]`: links and anchors that lead nowhere, files of other hosts, and pictures without a description.
    """
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    problems = []
    for path, page in pages.items():
        where = path.relative_to(site)
        problems += [f"{where}: a picture has no description: {source}" for source in page.undescribed]
        for url in page.requests:
            if OUTSIDE.match(url):
                problems.append(f"{where}: asks another host for {url}")
            elif not url.startswith("data:") and _file(url, path, site) is None:
                problems.append(f"{where}: {url} does not exist")
        for url in page.links:
            if re.match(r"^[a-z][a-z0-9+.-]*:", url, re.IGNORECASE) or OUTSIDE.match(url):
                continue
            target, anchor = urldefrag(url)
            file = _file(target, path, site) if target else path
            if file is None:
                problems.append(f"{where}: the link {url} leads nowhere")
            elif anchor and file in pages and unquote(anchor) not in pages[file].anchors:
                problems.append(f"{where}: the link {url} leads to an anchor that does not exist")
    for path in sorted(site.rglob("*.css")):
        outside = [url for url in _urls(path.read_text(encoding="utf-8")) if OUTSIDE.match(url)]
        problems += [f"{path.relative_to(site)}: asks another host for {url}" for url in outside]
    return problems


def _file(url: str, page: Path, site: Path) -> Path | None:
    path = unquote(urldefrag(url)[0].partition("?")[0])
    target = site / path.lstrip("/") if path.startswith("/") else (page.parent / path).resolve()
    if target.is_dir():
        target /= "index.html"
    return target if target.is_file() else None
