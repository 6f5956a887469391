"""Gathers the pages, builds the site, and checks what came out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from . import ROOT
from .api import api_pages
from .benchmarks import benchmarks_page, quickstart_table
from .check import problems_of
from .command_line import command_line_page
from .names import NameIndex, load_package
from .notebooks import notebook_page
from .settings import configuration_page

DOCS = ROOT / "docs"
STAGE = ROOT / "build" / "docs"
SITE = ROOT / "site"
COPIED = {".css", ".jpg", ".png", ".svg"}
"""Files that pages show or load, by suffix."""
MADE = {"quickstart": quickstart_table}
"""What stands in the place of `<!-- made: NAME -->` in pages."""
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>\.\./[^)]*)\)")


def build(stage: Path = STAGE, site: Path = SITE) -> list[str]:
    """
    Build the site.

    Args:
        stage (`Path`, *optional*): folder for the gathered pages, made anew.
        site (`Path`, *optional*): folder for the site, made anew.

    Returns:
        `list[str]`: what is wrong with it, a line each; empty if nothing is.
    """
    gather(stage)
    # The colours of a terminal would end in logs.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(stage / "mkdocs.yml")]
    done = subprocess.run(command, cwd=stage, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return [done.stdout + done.stderr]
    shutil.rmtree(site, ignore_errors=True)
    shutil.move(stage / "site", site)
    # What griffe finds wrong with docstrings is logged, and does not fail the build by itself.
    warnings = [line for line in done.stderr.splitlines() if line.strip() not in ("", "No issues found")]
    return warnings + problems_of(site)


def gather(stage: Path) -> None:
    """Write all pages, those that are made and those that are written by hand, and the configuration beside them."""
    shutil.rmtree(stage, ignore_errors=True)
    pages = stage / "pages"
    index = NameIndex(load_package())
    documented = index.documented()
    for source in sorted(DOCS.rglob("*.md")):
        target = pages / source.relative_to(DOCS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_on_site(source.read_text(encoding="utf-8"), source, documented), encoding="utf-8")
    for source in sorted(path for path in DOCS.rglob("*") if path.suffix in COPIED):
        target = pages / source.relative_to(DOCS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    shutil.copy(ROOT / "model_cards" / "quickstart" / "views.png", pages / "assets" / "views.png")
    for notebook in sorted((DOCS / "notebooks").glob("*.ipynb")):
        folder = pages / "notebooks"
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        shutil.copy(notebook, folder)
        (folder / f"{notebook.stem}.md").write_text(notebook_page(notebook, folder / "figures"), encoding="utf-8")
    (pages / "reference" / "api").mkdir(parents=True)
    (pages / "figures").mkdir()
    (pages / "configuration.md").write_text(configuration_page(), encoding="utf-8")
    (pages / "cli.md").write_text(command_line_page(), encoding="utf-8")
    (pages / "benchmarks.md").write_text(benchmarks_page(pages / "figures"), encoding="utf-8")
    api = []
    for name, title, text in api_pages():
        (pages / "reference" / "api" / name).write_text(text, encoding="utf-8")
        api.append({title: f"reference/api/{name}"})
    config = yaml.safe_load((DOCS / "site.yml").read_text(encoding="utf-8"))
    config["nav"] = navigation(config["nav"], pages, {"API reference": api})
    config |= {"docs_dir": "pages", "site_dir": "site"}
    (stage / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")


def navigation(nav: list[Any], pages: Path, made: dict[str, list[Any]]) -> list[Any]:
    """
    The navigation as it is written, without pages that don't exist, and with those that it does not name.

    Args:
        nav (`list`): of `site.yml`.
        pages (`Path`): folder of the pages.
        made (`dict[str, list]`): sections whose pages are made, by title; in the place of an empty one.
    """
    named: set[str] = set()

    def kept(entries: list[Any]) -> Iterator[Any]:
        for entry in entries:
            ((title, value),) = entry.items()
            if value is None:
                value = made[title]
            if isinstance(value, list):
                if inner := list(kept(value)):
                    yield {title: inner}
            elif (pages / value).is_file():
                named.add(value)
                yield entry

    result = list(kept(nav))
    found = {path.relative_to(pages).as_posix() for path in pages.rglob("*.md")}
    if others := sorted(found - named):
        result.append({"More": [{_title(pages / name): name} for name in others]})
    return result


def _title(page: Path) -> str:
    found = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].replace("`", "") if found else page.stem


def _on_site(text: str, source: Path, documented: dict[str, str]) -> str:
    """Links to the repository's files become links to the reference, or no links: the site does not hold them."""

    def link(found: re.Match[str]) -> str:
        target = (source.parent / found["target"].partition("#")[0]).resolve()
        if target.is_relative_to(DOCS):
            return found[0]
        if not target.exists():
            raise ValueError(f"{source}: {found['target']} does not exist.")
        name = found["text"].strip("`")
        path = next((path for path in documented if path.rpartition(".")[2] == name), None)
        return f"[{found['text']}][{path}]" if path else found["text"]

    text = LINK.sub(link, text)
    for name, lines in MADE.items():
        text = text.replace(f"<!-- made: {name} -->", "\n".join(lines()))
    # A notebook is a page here.
    return re.sub(r"(\]\([^)]*)\.ipynb", r"\1.md", text)
