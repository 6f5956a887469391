"""The code blocks of a page, as what a reader would run, top to bottom."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from sage_hf.cli.launching import split_launch_flags
from sage_hf.cli.train import _parser

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SERVERS = ("annotate", "space")
"""Commands that serve until they are stopped: their arguments are parsed, and other tests start them."""
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    code: str
    reason: str | None
    """Why it is not run, if it isn't."""


def blocks_of(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(one["language"], one["code"], one["reason"]) for one in found]


def pages() -> list[Path]:
    """The pages whose examples are run here: those that no other file of tests runs."""
    return sorted(page for page in DOCS.rglob("*.md") if not _has_own_tests(page))


def _has_own_tests(page: Path) -> bool:
    """Whether another file of tests names the page."""
    others = [path for path in (ROOT / "tests").rglob("test_*.py") if path.parent != Path(__file__).parent]
    return any(re.search(rf'["/]{page.name}"', path.read_text(encoding="utf-8")) for path in others)


def commands(code: str) -> list[list[str]]:
    """The commands of a bash block, as lists of words."""
    lines = re.sub(r"\\\n", " ", code).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def as_script(pages: list[Path]) -> str:
    """
    Pages as one Python script, each in a folder of its name: Python as it stands, commands through `sage_hf.cli.main`.
    """
    lines = ["import os", "from sage_hf.cli import main as _main", "_top = os.getcwd()"]
    for page in pages:
        lines.append(f"os.chdir(os.path.join(_top, {page.stem!r}))")
        for number, block in enumerate(blocks_of(page)):
            where = f"{page.relative_to(DOCS)}, block {number}"
            if block.language == "python" and block.reason is None:
                lines += [f"print({where!r}, flush=True)", block.code]
            elif block.language == "bash" and block.reason is None:
                lines += [line for words in commands(block.code) for line in _command_lines(words, where)]
    return "\n".join(lines) + "\n"


def has_examples(page: Path) -> bool:
    return any(block.language in ("python", "bash") for block in blocks_of(page))


def _command_lines(words: list[str], where: str) -> list[str]:
    if (arguments := _arguments(words)) is None:
        return []
    if arguments[0] in SERVERS:
        parsing = "from docs.generator.command_line import parser_of as _parser_of"
        return [parsing, f"_parser_of({arguments[0]!r}).parse_args({arguments[1:]!r})"]
    if arguments[0] in ("train", "evaluate"):
        # A thousand, which is usual, would take most of the test's time.
        arguments = [*arguments, "--bootstrap_resamples", "2"]
    text = f"{where}: {' '.join(words)}"
    return [f"print({text!r}, flush=True)", f"assert _main({arguments!r}) == 0, {text!r}"]


def _arguments(words: list[str]) -> list[str] | None:
    """The arguments of `sage-hf` in a command, `None` for a command that a test checks by other means."""
    if words[:2] == ["sage-hf", "train"]:
        # Processes are started elsewhere: here is one.
        return ["train", *split_launch_flags(words[2:], _parser([])._option_string_actions)[1]]
    if words[0] == "sage-hf":
        return words[1:]
    if words[:4] == ["accelerate", "launch", "-m", "sage_hf"]:
        return words[4:]
    if words[0] in ("make", "source", "pip", "cd"):
        return None
    raise ValueError(f"a page says {' '.join(words)}: run it here, or mark the block with <!-- not run: why -->")
