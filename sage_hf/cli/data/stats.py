"""`sage-hf data stats`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ...data.checking import DatasetStats, dataset_stats
from ...data.checking.stats import QUANTILES


def add_reading_arguments(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """What the commands share that read a whole dataset."""
    parser.add_argument("dataset", nargs=nargs, metavar="PATH_OR_REPO", help="a folder, or a dataset on the Hub")
    parser.add_argument("--name", metavar="CONFIG", help="configuration of the dataset")
    parser.add_argument("--revision", metavar="REVISION", help="branch, tag or commit on the Hub")
    parser.add_argument("--split", nargs="+", metavar="SPLIT", help="the splits to read (default: all)")
    parser.add_argument("--image-column", default="image", metavar="NAME", help="(default: image)")
    parser.add_argument("--saliency-column", default="saliency", metavar="NAME", help="(default: saliency)")
    parser.add_argument("--label-column", default="label", metavar="NAME", help="(default: label)")
    parser.add_argument("--rows", type=int, metavar="N", help="read only N rows, evenly spread (default: all)")
    parser.add_argument(
        "--num-proc", type=int, default=1, metavar="N", help="threads that decode, for large pictures (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def reading_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of [`add_reading_arguments`] but the dataset, as the Python functions take them."""
    names = ("name", "revision", "image_column", "saliency_column", "label_column", "rows", "num_proc")
    return {name: getattr(args, name) for name in names} | {"splits": args.split}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `sage-hf data stats`."""
    parser.description = "Count rows and maps by split and class, annotators, sizes, coverage and centre bias."
    add_reading_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Count, and print."""
    stats = dataset_stats(args.dataset, **reading_arguments(args))
    print(json.dumps(stats.to_dict()) if args.json else described(args.dataset, stats))
    return 0


def described(dataset: str, stats: DatasetStats) -> str:
    """The figures for a person to read."""
    sampled = ", a sample" if stats.sampled else ""
    lines = [f"{dataset}: {stats.rows} rows{sampled}", "", *class_table(stats), ""]
    lines += ["annotators a row: " + ", ".join(f"{count}: {rows} rows" for count, rows in stats.annotators.items())]
    for name, values in stats.sizes.items():
        lines.append("{}: {min} to {max} pixels, median {median}".format(name, **values))
    if stats.centre_bias is not None:
        bias = stats.centre_bias
        lines.append(
            f"centre bias: correlation of the mean map with a centred Gaussian {bias.correlation:.2f}, mean distance "
            f"from the centre {bias.distance:.2f} of half the diagonal"
        )
    lines.append(f"bytes: pictures {stats.picture_bytes:,}, maps {stats.map_bytes:,}")
    return "\n".join(lines)


def class_table(stats: DatasetStats) -> list[str]:
    """Rows with a map of all rows by class and split, and quantiles of the share of pixels that maps mark."""
    percentages = [f"{share:.0%}" for share in QUANTILES]
    header = ["class", *stats.splits, *percentages]
    table = []
    for name, one in stats.classes.items():
        counts = [f"{one.annotated[split]}/{one.rows[split]}" for split in stats.splits]
        table.append([name, *counts, *_shares(one.coverage, percentages)])
    totals = [f"{split['annotated']}/{split['rows']}" for split in stats.splits.values()]
    table.append(["all", *totals, *_shares(stats.coverage, percentages)])
    widths = [max(len(line[place]) for line in (header, *table)) for place in range(len(header))]
    title = "rows with a map / rows, and quantiles of the share of pixels that maps mark:"
    return [title] + [
        "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(pairs))
        for pairs in (zip(line, widths, strict=True) for line in (header, *table))
    ]


def _shares(coverage: dict[str, float] | None, percentages: list[str]) -> list[str]:
    return [f"{coverage[key]:.2%}" if coverage else "-" for key in percentages]
