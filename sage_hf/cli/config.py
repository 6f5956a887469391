"""Arguments in a YAML file that `--config` names; flags win."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import yaml


def read_config(argv: list[str]) -> dict[str, Any]:
    """
    The `argument: value` lines of the file that `--config` names, empty if it names none.

    Raises:
        `ValueError`: the file is not YAML, or no mapping.
    """
    path = None
    for index, argument in enumerate(argv):
        if argument == "--config" and index + 1 < len(argv):
            path = argv[index + 1]
        elif argument.startswith("--config="):
            path = argument.removeprefix("--config=")
    if path is None:
        return {}
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} should hold `argument: value` lines.")
    return settings


def set_defaults(
    parser: argparse.ArgumentParser,
    settings: dict[str, Any],
    known: Collection[str],
    elsewhere: Callable[[str], str | None] = lambda key: None,
) -> None:
    """
    Make a config's values the defaults of a parser, whose arguments they stand in for.

    Args:
        parser (`argparse.ArgumentParser`): of the command.
        settings (`dict[str, Any]`): the config.
        known (`Collection[str]`): the keys that it may have.
        elsewhere (`Callable`, *optional*): where another key belongs, `None` if nowhere.

    Raises:
        `ValueError`: it has another key.
    """
    for key in settings:
        if not isinstance(key, str) or key not in known:
            if (place := elsewhere(str(key))) is not None:
                raise ValueError(f"the config has the key {key!r}, which is no argument of training: {place}")
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"the config has the key {key!r}, which is no argument.{hint}")
    for action in parser._actions:
        if action.dest in settings:
            action.required = False
            value = settings[action.dest]
            if value is False and "no" in (action.choices or ()):
                settings[action.dest] = "no"  # YAML reads a bare no as false
            elif action.nargs in ("+", "*") and value is not None:
                # A text alone would be a list of its letters.
                settings[action.dest] = _each(action, value if isinstance(value, list) else [value])
    # Strings go through the argument's own type: YAML reads 1e-4 as one.
    parser.set_defaults(**settings)


def _each(action: argparse.Action, values: list[Any]) -> list[Any]:
    """The values of a list as the command line gives them."""
    if any(isinstance(value, bool) for value in values):
        raise ValueError(
            f"the config's {action.dest} has {values}: without quotes, YAML reads no, off, yes and on as false and "
            "true. Write names in quotes."
        )
    read: Any = action.type or str
    return [read(str(value)) if isinstance(value, (int, float)) else value for value in values]
