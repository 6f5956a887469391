"""`sage-hf data build`."""

from __future__ import annotations

import argparse
import json
import sys

from ...data.build import build_dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `sage-hf data build`."""
    parser.description = "Make a folder of parquet files, pictures inside, that load_dataset opens and the Hub takes."
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the pictures")
    parser.add_argument(
        "--saliency", required=True, metavar="DIR", help="folder of the maps, named like their pictures"
    )
    parser.add_argument("--labels", required=True, metavar="CSV", help="table with a header, in UTF-8")
    parser.add_argument("--label-column", required=True, metavar="NAME", help="column of class names")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write; must not exist or be empty")
    parser.add_argument(
        "--file-column", metavar="NAME", help="column of picture paths (found by itself if named usually)"
    )
    parser.add_argument("--split-column", metavar="NAME", help="column of split names (default: everything is train)")
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="the classes; rows of any other are refused")
    parser.add_argument(
        "--on-error",
        choices=["raise", "skip"],
        default="raise",
        help="what to do about rows that can't be used: write nothing (default), or leave them out",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Build, and say what came of it."""
    report = build_dataset(
        args.images,
        args.saliency,
        args.labels,
        args.label_column,
        args.out,
        file_column=args.file_column,
        split_column=args.split_column,
        classes=args.classes,
        on_error=args.on_error,
    )
    for row in report.refused:
        print(f"refused: line {row['row']}, {row['file']}: {row['reason']}", file=sys.stderr)
    if args.json:
        print(json.dumps(report.summary()))
        return 0
    print(f"{args.out}: {report.kept} rows, {report.annotated} of them with a map; {len(report.refused)} refused.")
    print("splits:  " + ", ".join(f"{name} {count}" for name, count in report.splits.items()))
    print("classes: " + ", ".join(f"{name} {count}" for name, count in report.classes.items()))
    return 0
