"""`sage-hf data`: build, check, convert, push, pull, stats."""

from __future__ import annotations

import argparse
from importlib import import_module

COMMANDS = {
    "push": "publish a dataset on the Hub, checked, with a card written from it",
    "pull": "get a dataset of the Hub as a folder",
    "build": "make a dataset folder from pictures and any annotation",
    "check": "find what would train wrongly or leak, before training or sharing",
    "stats": "count rows, maps, coverage and centre bias",
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
        command = commands.add_parser(name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == named:
            import_module(f".{name}", __name__).add_arguments(command)
    args = parser.parse_args(argv)
    return import_module(f".{args.command}", __name__).run(args)
