"""The commands of these pages and of the README have flags that exist, and the Python block of docs/data.md runs."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from sage_hf.cli import annotate
from sage_hf.cli.launching import _launch_parser, split_launch_flags
from sage_hf.cli.train import _parser, parse

ROOT = Path(__file__).parents[1]
FILES = ("docs/data.md", "docs/staying_alive.md", "docs/evaluation.md", "README.md")
PAGES = [(ROOT / name).read_text() for name in FILES]
SHELL = "\n".join(block for page in PAGES for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL))
LINES = [
    line.partition(" #")[0].replace(" ...", "")
    for line in re.sub(r"\\\n", " ", SHELL).splitlines()
    if line.startswith("sage-hf ")
]


def test_there_are_commands():
    assert sum(line.startswith("sage-hf data build") for line in LINES) >= 8


@pytest.mark.parametrize("line", LINES)
def test_commands_parse(line):
    _, command, *arguments = shlex.split(line)
    if command == "train":
        own = _parser([])._option_string_actions
        launching, arguments = split_launch_flags(arguments, own)
        _launch_parser().parse_args([*launching, "--module", "sage_hf"])
        assert {flag.partition("=")[0] for flag in arguments if flag.startswith("--")} <= set(own)
        if "--config" not in arguments:
            arguments += ["--model", "model"] if "--model" not in arguments else []
            run_args, args = parse([*arguments, "--output_dir", "run", "--use_cpu"])
            assert run_args.dataset in ("dataset", "you/lesions")
            assert args.guidance == "sage"
        return
    if command == "annotate":
        annotate.parser().parse_args(arguments)
        return
    if command in ("evaluate", "view", "report", "space"):
        importlib.import_module(f"sage_hf.cli.{command}")._parser().parse_args(arguments)
        return
    if command in ("models", "push"):
        return  # tested by running them, elsewhere
    assert command == "data"
    parser = argparse.ArgumentParser()
    importlib.import_module(f"sage_hf.cli.data.{arguments[0]}").add_arguments(parser)
    parser.parse_args(arguments[1:])


def test_python_runs(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", PAGES[0], re.DOTALL)
    exec(compile(block, "docs/data.md", "exec"), {})
    assert capsys.readouterr().out == "(240, 320)\n"
