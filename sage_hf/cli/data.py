"""`sage-hf data build`."""

from __future__ import annotations

import argparse
import json
import sys

from ..data.build import build_dataset


def run(argv: list[str]) -> None:
    """Parse the arguments of `sage-hf data` and run its command."""
    parser = argparse.ArgumentParser(prog="sage-hf data", description="Build saliency datasets.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "build",
        help="make a dataset folder from pictures, maps and a CSV table",
        description="Make a folder of parquet files, pictures inside, that load_dataset opens and the Hub takes.",
    )
    build.add_argument("--images", required=True, metavar="DIR", help="folder of the pictures")
    build.add_argument(
        "--saliency", required=True, metavar="DIR", help="folder of the maps, named like their pictures"
    )
    build.add_argument("--labels", required=True, metavar="CSV", help="table with a header, in UTF-8")
    build.add_argument("--label-column", required=True, metavar="NAME", help="column of class names")
    build.add_argument("--out", required=True, metavar="DIR", help="folder to write; must not exist or be empty")
    build.add_argument(
        "--file-column", metavar="NAME", help="column of picture paths (found by itself if named usually)"
    )
    build.add_argument("--split-column", metavar="NAME", help="column of split names (default: everything is train)")
    build.add_argument("--classes", nargs="+", metavar="CLASS", help="the classes; rows of any other are refused")
    build.add_argument(
        "--on-error",
        choices=["raise", "skip"],
        default="raise",
        help="what to do about rows that can't be used: write nothing (default), or leave them out",
    )
    build.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args(argv)

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
        return
    print(f"{args.out}: {report.kept} rows, {report.annotated} of them with a map; {len(report.refused)} refused.")
    print("splits:  " + ", ".join(f"{name} {count}" for name, count in report.splits.items()))
    print("classes: " + ", ".join(f"{name} {count}" for name, count in report.classes.items()))
