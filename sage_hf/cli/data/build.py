"""`sage-hf data build`."""

from __future__ import annotations

import argparse
import json
import sys

from ...data.build import build_dataset
from .sources import add_source_arguments, print_refusals, print_unused, source_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `sage-hf data build`."""
    parser.description = "Make a folder of parquet files, pictures inside, that load_dataset opens and the Hub takes."
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write; must not exist or be empty")
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="the classes; rows of any other are refused")
    parser.add_argument(
        "--metadata",
        choices=["keep", "strip"],
        default="keep",
        help="strip removes EXIF (places, cameras), XMP and comments from pictures, whose pixels stay as they are",
    )
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Build, and say what came of it."""
    try:
        report = build_dataset(
            source_of(args),
            args.out,
            classes=args.classes,
            annotators=args.annotators,
            granularity=args.granularity,
            metadata=args.metadata,
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
    print(f"{args.out}: {report.kept} rows, {report.annotated} of them with a map; {len(report.refused)} refused.")
    print("splits:  " + ", ".join(f"{name} {count}" for name, count in report.splits.items()))
    if report.classes:
        print("classes: " + ", ".join(f"{name} {count}" for name, count in report.classes.items()))
    return 0
