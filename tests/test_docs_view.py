"""The commands of docs/view.md and docs/space.md are commands, and what they show from Python runs."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import datasets
import pytest

from tests.conftest import make_dataset
from tests.space.small import save_model

DOCS = Path(__file__).parents[1] / "docs"
COMMAND = re.compile(r"^sage-hf (view|space) (.*)$", re.MULTILINE)


@pytest.mark.parametrize("page", ["view.md", "space.md"])
def test_commands_are_understood(page):
    found = COMMAND.findall((DOCS / page).read_text())
    assert len(found) >= 5
    for command, arguments in found:
        import_module(f"sage_hf.cli.{command}")._parser().parse_args(shlex.split(arguments, comments=True))


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "outputs" / "run")
    datasets.DatasetDict(test=make_dataset(4)).save_to_disk("dataset")
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "view.md").read_text(), re.DOTALL)
    exec(example, {})
    assert "Prediction(label=" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "dataset", "grid.png", "page.html"}


@pytest.mark.parametrize("page", ["view.md", "space.md"])
def test_pictures_are_there_and_small(page):
    names = re.findall(r"!\[[^\]]{20,}\]\(([^)]+)\)", (DOCS / page).read_text())
    assert names
    for name in names:
        assert 0 < (DOCS / name).stat().st_size < 150_000
