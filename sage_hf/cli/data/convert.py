"""`sage-hf data convert`."""

from __future__ import annotations

import argparse
import json
import sys

from ...data.convert import convert_annotations
from .sources import add_source_arguments, print_refusals, print_unused, source_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `sage-hf data convert`."""
    parser.description = "Make a grey PNG map of each annotated picture, under the picture's relative path."
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the maps")
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Convert, and say what came of it."""
    try:
        report = convert_annotations(
            source_of(args),
            args.out,
            annotators=args.annotators,
            granularity=args.granularity,
            on_error=args.on_error,
            report=args.report,
            num_proc=args.num_proc,
        )
    except KeyboardInterrupt as interruption:
        print(f"sage-hf data: {interruption}", file=sys.stderr)
        return 130
    print_refusals(report.refused)
    print_unused(report.unused)
    if args.json:
        print(json.dumps(report.summary()))
        return 0
    print(
        f"{args.out}: {report.maps} maps of {report.annotated} pictures, {report.reused} of them there already; "
        f"{report.pictures - report.annotated} pictures have none; {len(report.refused)} refused."
    )
    return 0
