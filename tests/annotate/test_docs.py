"""The commands of docs/annotate.md have flags that exist, and its Python runs."""

import re
import shlex

import pytest

from sage_hf.cli.annotate import parser
from tests.annotate.conftest import ROOT, drawn, mark

PAGE = (ROOT / "docs" / "annotate.md").read_text(encoding="utf-8")
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL))
LINES = [line for line in SHELL.splitlines() if line.startswith("sage-hf annotate ")]


def test_there_are_commands():
    assert len(LINES) >= 10


@pytest.mark.parametrize("line", LINES)
def test_commands_parse(line):
    parser().parse_args(shlex.split(line)[2:])


def test_python_runs(project, tmp_path, monkeypatch, capsys):
    mark(project, 0, "Ann", drawn())
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "docs", "exec"), {})
    assert "'kept': 1" in capsys.readouterr().out


def test_pictures_are_there():
    for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGE):
        picture = ROOT / "docs" / name
        assert picture.stat().st_size < 150_000
