"""The command line's reference, from the parsers themselves."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from importlib import import_module
from unittest import mock

LEAD = """\
# Command line

`sage-hf COMMAND`, or `python -m sage_hf COMMAND`. This page is made from the parsers; `sage-hf COMMAND --help` says
the same. Exit code 0 is success; 1 is a mistake of input, which a line on stderr explains, or a check that failed; 2
is an unknown flag. Where a command has `--json`, nothing else is on stdout.
"""


class _CapturedError(Exception):
    """Carries the parser out of a command that was about to parse."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_of(command: str, *words: str) -> argparse.ArgumentParser:
    """
    The parser of a command, as it stands when the command parses its arguments.

    Args:
        command (`str`): such as `"train"`.
        *words (`str`): what follows it, for commands that have commands of their own.
    """

    def capture(parser: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        raise _CapturedError(parser)

    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", capture):
        try:
            import_module(f"sage_hf.cli.{command}").run(list(words))
        except _CapturedError as captured:
            return captured.parser
    raise ValueError(f"sage-hf {command} parsed no arguments")


def parsers() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Name, one line of help and parser of every command, those of commands with commands of their own one by one."""
    from sage_hf.cli import COMMANDS

    for command, text in COMMANDS.items():
        parser = parser_of(command)
        inner = next((one for one in parser._actions if isinstance(one, argparse._SubParsersAction)), None)
        if inner is None:
            yield command, text, parser
            continue
        helps = {one.dest: one.help or "" for one in inner._choices_actions}
        for name in inner.choices:
            actions = parser_of(command, name)._actions
            chosen = next(one for one in actions if isinstance(one, argparse._SubParsersAction))
            yield f"{command} {name}", helps[name], chosen.choices[name]


def command_line_page() -> str:
    """The page, in Markdown."""
    found = list(parsers())
    lines = [LEAD, "| command | |", "|---|---|"]
    lines += [f"| [`sage-hf {name}`](#{_anchor(name)}) | {_cell(text)} |" for name, text, _ in found]
    for name, text, parser in found:
        lines += ["", f"## `sage-hf {name}` {{ #{_anchor(name)} }}", ""]
        description = parser.description or ""
        # HfArgumentParser has no description of its own, and describe dataclasses by their signature.
        lines += [_sentence(text), ""] + ([description.strip(), ""] if _is_prose(description, text) else [])
        lines += [_cell(parser.epilog), ""] if parser.epilog else []
        lines += _arguments(name, parser)
    return "\n".join(lines) + "\n"


def _arguments(name: str, parser: argparse.ArgumentParser) -> list[str]:
    actions = [one for one in parser._actions if one.help != argparse.SUPPRESS and one.dest != "help"]
    inherited = _inherited() if name == "train" else set()
    own = [one for one in actions if one.dest not in inherited]
    lines = _table(own)
    if others := [one for one in actions if one.dest in inherited]:
        lines += ["", f'??? note "{len(others)} arguments of transformers\' TrainingArguments"', ""]
        lines += [f"    {line}" for line in _table(others)]
    return lines


def _inherited() -> set[str]:
    from transformers import TrainingArguments

    return {one.name for one in dataclasses.fields(TrainingArguments)}


def _table(actions: list[argparse.Action]) -> list[str]:
    lines = ["| argument | default | |", "|---|---|---|"]
    for one in actions:
        # The second spelling and the negation of a flag are of no interest here.
        flags = [flag for flag in one.option_strings if flag.startswith("--")][:1] or one.option_strings
        value = _value(one)
        shown = " ".join(part for part in (flags[0] if flags else "", value) if part)
        lines.append(f"| `{shown}` | {_default(one)} | {_cell(_help(one))} |")
    return lines


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    name = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    if action.choices is not None and action.metavar is None:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    if isinstance(name, tuple):
        name = " ".join(name)
    many = {"*": f"[{name} ...]", "+": f"{name} ...", "?": f"[{name}]"}
    return many.get(str(action.nargs), " ".join([name] * action.nargs) if isinstance(action.nargs, int) else name)


def _default(action: argparse.Action) -> str:
    if action.required:
        return "required" if action.option_strings else ""
    if action.default in (None, False, argparse.SUPPRESS, []) or isinstance(action.default, type):
        return ""
    if isinstance(action.default, (list, tuple)):
        return f"`{' '.join(map(str, action.default))}`"
    return f"`{action.default}`"


def _help(action: argparse.Action) -> str:
    text = (action.help or "") % ({**vars(action), "prog": "sage-hf"}) if "%" in (action.help or "") else action.help
    # The column beside it says so.
    return (text or "").replace(f"(default: {action.default})", "").strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*").replace("_", r"\_")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _is_prose(description: str, text: str) -> bool:
    return bool(description) and not description.startswith("RunArguments(") and text not in description


def _anchor(name: str) -> str:
    return name.replace(" ", "-")
