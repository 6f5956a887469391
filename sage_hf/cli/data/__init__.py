"""`sage-hf data`: build, convert, check, stats, push, pull."""

from __future__ import annotations

import argparse
from importlib import import_module

from ..config import read_config, set_defaults

COMMANDS = {
    "build": "make a dataset folder from pictures and any annotation",
    "convert": "make a folder of maps from any annotation",
    "check": "find what would train wrongly or leak, before training or sharing",
    "stats": "count rows, maps, coverage and centre bias",
    "push": "publish a dataset on the Hub, checked, with a card written from it",
    "pull": "get a dataset of the Hub as a folder",
}


def run(argv: list[str]) -> int:
    """
    Parse the arguments of `sage-hf data` and run its command, a module of this package.

    Returns:
        `int`: the exit code.
    """
    parser = argparse.ArgumentParser(prog="sage-hf data", description="Build, check and share saliency datasets.")
    commands = parser.add_subparsers(dest="command", required=True)
    # The modules of other commands are not imported: some need seconds.
    named = next((argument for argument in argv if argument in COMMANDS), None)
    for name, text in COMMANDS.items():
        # No abbreviations: `read_config` would not see that --conf is --config.
        command = commands.add_parser(
            name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        if name == named:
            import_module(f".{name}", __name__).add_arguments(command)
            use_config(command, argv)
    args = parser.parse_args(argv)
    return import_module(f".{args.command}", __name__).run(args)


def use_config(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """
    Take the values of the file that `--config` names, if the command has that flag; keys may have hyphens.

    Raises:
        `ValueError`: the file has a key that is no argument.
    """
    options = {action.dest: action for action in parser._actions if action.dest != "help"}
    if "config" not in options:
        return
    settings = {str(key).replace("-", "_"): value for key, value in read_config(argv).items()}
    set_defaults(parser, settings, options)
