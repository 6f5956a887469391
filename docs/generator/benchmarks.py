"""The benchmark page: the tables and plots that were committed with the runs they came from."""

from __future__ import annotations

import ast
import json
import re
import sys
from importlib import util
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Any

from . import ROOT

FOLDER = ROOT / "training" / "benchmarks"
LEAD = """\
# Benchmarks

Every figure here was measured by a script of the repository, whose results are committed beside it; this page is made
from those files. `±` is half of a 95 % interval (Student's t over seeds); differences are paired by seed.

Read them with the limits in mind: the digits are small and their shortcuts artificial. What is known of real pictures
is below as well, where guidance helped and where it did not.
"""


def benchmarks_page(pictures: Path) -> str:
    """
    The page, in Markdown.

    Args:
        pictures (`Path`): folder for the plots.
    """
    lines = [LEAD, *_quickstart()]
    for script in sorted(FOLDER.glob("*.py")):
        folder = script.with_suffix("")
        body = _folder(folder, pictures) if folder.is_dir() else tables_of(script)
        if body:
            lines += [f"## {_title(folder, script)}", "", *_about(script), *body, ""]
    for folder in sorted(path.parent for path in FOLDER.rglob("table.md")):
        if not folder.with_suffix(".py").is_file():
            lines += [f"## {_title(folder, None)}", "", *_folder(folder, pictures), ""]
    readme = FOLDER / "README.md"
    if readme.is_file():
        lines += ["## How they are made", "", *_text_of(readme), ""]
    return "\n".join(lines)


def _text_of(readme: Path) -> list[str]:
    """A README below a heading of the page."""
    text = re.sub(r"^# .+\n+", "", readme.read_text(encoding="utf-8"), count=1)
    return [re.sub(r"^(#+ )", r"#\1", _without_links(text), flags=re.MULTILINE)]


def quickstart_runs() -> dict[str, dict[str, list[float]]]:
    """Accuracy on each split by method, one for each seed."""
    runs: dict[str, dict[str, list[float]]] = json.loads(
        (ROOT / "model_cards" / "quickstart" / "results.json").read_text()
    )
    return runs


def quickstart_table() -> list[str]:
    """The quickstart's accuracies, as a table."""
    rows = [
        f"| `{method}` | {mean(splits['in_distribution']):.3f} | {mean(splits['shifted']):.3f} |"
        for method, splits in quickstart_runs().items()
    ]
    return ["| guidance | in distribution | shifted |", "|---|---:|---:|", *rows]


def _quickstart() -> list[str]:
    seeds = len(next(iter(quickstart_runs().values()))["shifted"])
    return [
        "## Quickstart: digits with a shortcut",
        "",
        f"`make quickstart`, {seeds} seeds. A coloured square gives the class away in training and means nothing in "
        "the shifted split. Accuracy on the test splits:",
        "",
        *quickstart_table(),
        "",
    ]


def _title(folder: Path, script: Path | None) -> str:
    readme = folder / "README.md"
    if readme.is_file() and (found := re.search(r"^# (.+)$", readme.read_text(), re.MULTILINE)):
        return found[1]
    # A script is named after its subject.
    return (script or folder).stem.replace("_", " ").capitalize().replace("mnist", "MNIST")


def _about(script: Path) -> list[str]:
    """The first paragraph of the script's docstring, and where the script is."""
    docstring = ast.get_docstring(ast.parse(script.read_text())) or ""
    return [docstring.split("\n\n")[0], "", f"Script: `{script.relative_to(ROOT)}`.", ""]


def _folder(folder: Path, pictures: Path) -> list[str]:
    lines: list[str] = []
    readme = folder / "README.md"
    if readme.is_file():
        lines += [*_text_of(readme), ""]
    for table in sorted(folder.rglob("table.md")):
        shown = table.read_text().strip()
        if not any(shown in line for line in lines):
            lines += [shown, ""]
    for plot in sorted([*folder.rglob("*.svg"), *folder.rglob("*.png")]):
        name = "-".join(plot.relative_to(FOLDER).parts)
        (pictures / name).write_bytes(plot.read_bytes())
        lines += [f"![{plot.stem} of {folder.name.replace('_', ' ')}]({pictures.name}/{name})" + "{ .plot }", ""]
    return lines


def _without_links(text: str) -> str:
    """Links to files beside a README lead nowhere on the site; pictures are shown below."""
    text = re.sub(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n*", "", text)
    return re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)


def tables_of(script: Path) -> list[str]:
    """The tables that a script makes of the results beside it, `NAME.json` and `NAME_DEVICE.json`."""
    lines: list[str] = []
    scripts = [path.stem for path in script.parent.glob("*.py")]
    for path in sorted(script.parent.glob(f"{script.stem}*.json")):
        if max((stem for stem in scripts if path.stem.startswith(stem)), key=len) != script.stem:
            continue  # of coffee_leaf_forms, not of coffee_leaf
        read = json.loads(path.read_text())
        runs = _runs(read)
        part = path.stem.removeprefix(script.stem).strip("_")
        lines += [f"`{path.name}`:", ""] if part else []
        module: Any = _module(script)
        lines += [module.table(runs) if hasattr(module, "table") else _plain_table(runs), ""]
    return lines


def _runs(read: Any) -> list[dict[str, Any]]:
    if not isinstance(read, dict):
        return list(read)
    lists = {name: value for name, value in read.items() if isinstance(value, list)}
    return lists["results"] if "results" in lists else next(iter(lists.values()))


def _plain_table(runs: list[dict[str, Any]]) -> str:
    """A row for each run, with those of its figures that fit a cell."""
    names = [name for name, value in runs[0].items() if isinstance(value, str | int | float)]
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|" + "---:|" * len(names)]
    lines += ["| " + " | ".join(_cell(run.get(name)) for name in names) + " |" for run in runs]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int | float) else str(value if value is not None else "")


def _module(path: Path) -> ModuleType:
    spec = util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses look their module up
    sys.path.insert(0, str(path.parent))  # as if it was run: scripts import each other
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
