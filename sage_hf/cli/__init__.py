"""sage-hf: fine-tune, build datasets, and a quickstart that shows what guidance does."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from ..version import __version__

COMMANDS = {
    "quickstart": "train on digits with a shortcut, with and without guidance, and compare",
    "train": "fine-tune an image classifier on a dataset with saliency maps",
    "evaluate": "measure a model on a dataset: metrics, calibration, open set, where it looks",
    "annotate": "mark what matters in pictures by hand, on a page of this machine",
    "report": "write a run as one HTML page: curves, metrics, calibration, ROC, pictures, settings",
    "view": "look at a dataset, and at where models look in it: PNG grids and HTML pages",
    "data": "build, check, share and load saliency datasets",
    "models": "list the architectures that can be trained",
    "space": "write a Space where visitors try a model, and run it here",
    "push": "publish a run's folder on the Hub",
}


def main(argv: list[str] | None = None) -> int:
    """
    Run a command.

    Args:
        argv (`list[str]`, *optional*): the arguments; those of the process if not given.

    Returns:
        `int`: 0, or 1 after an error of the user's that was explained on stderr, or after a check that failed.
    """
    parser = argparse.ArgumentParser(
        prog="sage-hf", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"sage_hf {__version__}")
    commands = "\n".join(f"{name:12}{text}" for name, text in COMMANDS.items())
    parser.add_argument(
        "command", choices=COMMANDS, metavar="command", help=f"{commands}\nsage-hf COMMAND --help says more"
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)

    # Imported when asked for: torch and transformers take seconds.
    command = import_module(f".{args.command}", __name__)
    from ..errors import PushError

    try:
        code = command.run(args.arguments)
    except (ValueError, OSError, PushError) as error:
        # Mistakes of input, which the message explains; anything else is a defect and keeps its traceback.
        print(f"sage-hf {args.command}: {error}", file=sys.stderr)
        return 1
    return code or 0
