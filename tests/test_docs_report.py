"""docs/report.md: its commands are commands, its example runs, its picture is there."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from sage_hf.cli.report import _parser
from sage_hf.cli.train import parse
from sage_hf.tracked_pictures import NAME
from tests.test_tracking import TERMS

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "report.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for line in re.findall(r"^sage-hf .*", PAGE, re.MULTILINE)]


@pytest.mark.parametrize("command", [one for one in COMMANDS if one[1] == "report"], ids=" ".join)
def test_report_commands(command):
    assert _parser().parse_args(command[2:]).run == "lesions-sage"


def test_flags_of_train(tmp_path):
    (tmp_path / "run.yaml").write_text("model: m\ndataset: d\noutput_dir: o\nuse_cpu: true\n")
    (command,) = (one for one in COMMANDS if one[1] == "train")
    arguments = [str(tmp_path / "run.yaml") if one == "run.yaml" else one for one in command[2:]]
    _, args = parse([*arguments, "--tracked_pictures", "8", "--trackio_space_id", "me/space"])
    assert (args.report_to, args.project, args.tracked_pictures) == (["trackio"], "lesions", 8)


def test_names_in_trackers():
    assert NAME in PAGE
    assert all(f"train/{name}" in PAGE for name in TERMS)


def test_the_example_runs(finished_runs, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for name in ("sage", "none"):
        shutil.copytree(finished_runs / name, tmp_path / f"lesions-{name}")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "This run beside others" in Path("comparison.html").read_text(encoding="utf-8")


def test_the_picture():
    path = DOCS / "images" / "report.png"
    assert path.stat().st_size < 150_000
    with Image.open(path) as picture:
        assert min(picture.size) > 400
