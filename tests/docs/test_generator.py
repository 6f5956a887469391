"""What the site is made of: docstrings, parsers, settings, results; and what is found wrong with a built one."""

import argparse
import doctest
import json
import re
from dataclasses import fields

import pytest

from docs.generator.check import problems_of
from docs.generator.command_line import command_line_page, parsers
from docs.generator.notebooks import notebook_page
from sage_hf import SageTrainingArguments
from sage_hf.cli import COMMANDS
from sage_hf.controls import SALIENCY_CONTROLS
from sage_hf.objectives import GUIDANCE
from sage_hf.views import DEGRADATIONS, MAP_DEGRADATIONS
from tests.docs.blocks import DOCS, ROOT

pytest.importorskip("griffe", reason="needs the extra docs")

from docs.generator import docstrings
from docs.generator.api import api_pages
from docs.generator.benchmarks import benchmarks_page
from docs.generator.names import REFERENCES, NameIndex, load_package
from docs.generator.settings import configuration_page, own_fields
from docs.generator.site import navigation


@pytest.fixture(scope="module")
def index():
    return NameIndex(load_package())


def test_the_examples_of_the_generator_hold():
    assert doctest.testmod(docstrings).failed == 0


def test_docstrings_are_rewritten():
    text = (
        "Load.\n\nArgs:\n    folder (`str` or `Path`, *optional*, defaults to `.`): see [`Source`].\n"
        "    size ([`~x.Size`]): of it.\n    rows (`int` of rows): how many.\n\n"
        "Raises:\n    `ValueError`: where\n        - one\n\nExample:\n\n```python\n>>> 1 + 1\n2\n\n```\n"
    )
    found = docstrings.rewrite(text, {"Source": "pkg.source.Source"}.get)
    assert "    folder (str | Path): see [`Source`][pkg.source.Source]." in found
    assert "    size (Size): of it." in found
    assert "    rows: how many." in found  # its type is no expression: the signature's is shown
    assert "    ValueError: where\n\n        - one" in found
    assert found.endswith("**Example**\n\n```pycon\n>>> 1 + 1\n2\n```")


def test_every_reference_of_the_package_is_found(index):
    missing = []
    for path in index.documented():
        members = [one for one in index.objects[path].members.values() if not one.is_alias]
        for one in [index.objects[path], *members]:
            if one.docstring is None:
                continue
            for name in REFERENCES.findall(one.docstring.value):
                foreign = name.startswith("transformers.") or name == "ImageClassifierOutput"
                if not foreign and index.find(name, one) is None:
                    missing.append((path, name))
    assert missing == []


def test_all_that_is_exported_is_described(index):
    pages = "".join(text for _, _, text in api_pages())
    described = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    for path in index.exported():
        if index.objects[path].docstring:
            assert path in described or any(path.startswith(f"{one}.") for one in described), path


def test_configuration_has_every_field():
    page = configuration_page()
    own = {one.name for one in fields(SageTrainingArguments)} & own_fields().keys()
    assert set(re.findall(r"^### `(\w+)`", page, re.MULTILINE)) == own
    assert len(own) >= 26
    assert '`str` · default `"shuffle"` · read by guidance `sage`, `augment`' in page
    assert set(re.findall(r"read by guidance (.+)", page)) <= {
        ", ".join(f"`{name}`" for name in names)
        for names in (
            [kind for kind in GUIDANCE if field.name in GUIDANCE[kind].__dataclass_fields__]
            for field in fields(SageTrainingArguments)
        )
    }


def test_command_line_has_every_flag():
    page = command_line_page()
    found = {name: parser for name, _, parser in parsers()}
    assert {name.split()[0] for name in found} == set(COMMANDS)
    assert "data build" in found
    for name, parser in found.items():
        part = page.split(f"## `sage-hf {name}`")[1].split("\n## ")[0]
        for action in parser._actions:
            if action.help != argparse.SUPPRESS and action.dest != "help":
                flags = [flag for flag in action.option_strings if flag.startswith("--")] or [action.dest]
                assert flags[0] in part or str(action.metavar) in part, (name, action.dest)


def test_benchmarks_hold_the_committed_tables(tmp_path):
    page = benchmarks_page(tmp_path)
    for table in (ROOT / "training" / "benchmarks").rglob("table.md"):
        assert table.read_text().strip() in page
    assert (tmp_path / "decoy_mnist-plot.svg").is_file()


def test_navigation_takes_what_is_there(tmp_path):
    for name in ("index.md", "new.md", "api.md"):
        (tmp_path / name).write_text("# A `title`\n")
    nav = [{"Home": "index.md"}, {"How to": [{"Gone": "gone.md"}]}, {"Reference": [{"API": None}]}]
    assert navigation(nav, tmp_path, {"API": [{"All": "api.md"}]}) == [
        {"Home": "index.md"},
        {"Reference": [{"API": [{"All": "api.md"}]}]},
        {"More": [{"A title": "new.md"}]},
    ]


def test_problems_of_a_site_are_found(tmp_path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "style.css").write_text("a { background: url('https://fonts.example/x.woff') }")
    (tmp_path / "dir" / "index.html").write_text('<h1 id="here">x</h1><a href="..">up</a>')
    (tmp_path / "index.html").write_text(
        '<link rel="stylesheet" href="style.css"><script src="https://cdn.example/x.js"></script>'
        '<a href="dir/#here">fine</a><a href="dir/#gone">bad</a><a href="none/">bad</a><a href="https://x.example">out</a>'
        '<img src="picture.png"><img src="data:," alt="fine">'
    )
    assert problems_of(tmp_path) == [
        "index.html: a picture has no description: picture.png",
        "index.html: asks another host for https://cdn.example/x.js",
        "index.html: picture.png does not exist",
        "index.html: the link dir/#gone leads to an anchor that does not exist",
        "index.html: the link none/ leads nowhere",
        "style.css: asks another host for https://fonts.example/x.woff",
    ]


def test_notebooks_that_were_not_run_or_failed_are_refused(tmp_path):
    cell = {"cell_type": "code", "source": "1 / 0", "execution_count": None, "outputs": []}
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps({"cells": [cell]}))
    with pytest.raises(ValueError, match="make notebooks"):
        notebook_page(path, tmp_path)
    cell |= {"execution_count": 1, "outputs": [{"output_type": "error", "ename": "ZeroDivisionError"}]}
    path.write_text(json.dumps({"cells": [cell]}))
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        notebook_page(path, tmp_path)


def test_concepts_name_every_choice():
    text = (DOCS / "concepts.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert {*DEGRADATIONS, *MAP_DEGRADATIONS, *GUIDANCE, *SALIENCY_CONTROLS} <= rows


def test_pages_are_reached():
    """Every page that is written by hand has a place in the navigation."""
    nav = (DOCS / "site.yml").read_text()
    for page in DOCS.rglob("*.md"):
        assert page.relative_to(DOCS).as_posix() in nav, f"{page.name} is in no section of docs/site.yml"
