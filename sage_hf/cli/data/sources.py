"""The flags that say what is read, and how annotations become maps: the same for all commands that read sources."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ...data.refusals import ON_ERROR, Refusal
from ...data.sources.source import BOX_FORMATS, FORMATS, LABEL_SOURCES, Source
from ...problem_types import PROBLEM_TYPES


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of [`Source`], of maps, and of rows that can't be used."""
    group = parser.add_argument_group("pictures")
    group.add_argument("--images", metavar="DIR", help="folder of the pictures")
    group.add_argument("--dataset", metavar="REPO_OR_DIR", help="in place of it, a dataset that exists already")
    group.add_argument("--dataset-name", metavar="NAME", help="configuration of the dataset")
    group.add_argument("--dataset-revision", metavar="REVISION", help="branch, tag or commit of the dataset")
    group.add_argument("--image-column", default="image", metavar="NAME", help="column of the dataset's pictures")
    group.add_argument("--id-column", metavar="NAME", help="column of the dataset that annotations are joined by")

    group = parser.add_argument_group("annotations")
    group.add_argument(
        "--saliency",
        nargs="+",
        default=[],
        metavar="PATH",
        help="folders of maps named like their pictures, COCO files, Pascal VOC folders, tables of boxes or points; "
        "several are several annotators, and so is a column annotator in a table",
    )
    group.add_argument("--annotation-format", choices=FORMATS, default="auto", help="(default: told by the content)")
    group.add_argument(
        "--mask-classes",
        nargs="+",
        type=_mask_class,
        metavar="CLASS",
        help="values or palette indices (3) or colours (#rrggbb) of multi-class masks that mark",
    )
    group.add_argument(
        "--categories", nargs="+", metavar="NAME", help="categories of COCO, VOC or tables of boxes that mark"
    )
    group.add_argument("--box-format", choices=BOX_FORMATS, help="of tables (default: told by their columns)")
    group.add_argument(
        "--normalised", action="store_true", help="coordinates of tables are shares of width and height, as YOLO's"
    )
    group.add_argument("--sigma", type=float, metavar="PIXELS", help="of the Gaussian around a fixation")
    group.add_argument("--visual-angle", type=float, metavar="DEGREES", help="in place of it, with the next two")
    group.add_argument("--viewing-distance", type=float, metavar="LENGTH", help="from eye to screen")
    group.add_argument("--pixel-pitch", type=float, metavar="LENGTH", help="side of a pixel, in the same unit")
    group.add_argument(
        "--annotators",
        choices=["mean", "union", "intersection", "keep"],
        default="mean",
        help="what becomes of several annotators: one map (default: mean), or one each (keep)",
    )
    group.add_argument(
        "--granularity", choices=["box", "area", "feature"], help="make maps as coarse as boxes or outlined areas"
    )

    group = parser.add_argument_group("labels")
    group.add_argument("--labels", metavar="FILE", help="table, CSV, TSV, JSON, JSON Lines or Parquet, in UTF-8")
    group.add_argument("--label-column", metavar="NAME", help="its column of labels, or the dataset's (label)")
    group.add_argument(
        "--label-from",
        choices=LABEL_SOURCES,
        help="without a table: folders of the pictures (default, if all are in some), or what is marked",
    )
    group.add_argument(
        "--file-column", metavar="NAME", help="tables' column of picture paths (found by itself if named usually)"
    )
    group.add_argument("--split-column", metavar="NAME", help="column of split names (default: everything is train)")
    group.add_argument("--problem-type", choices=PROBLEM_TYPES, help=f"(default: {PROBLEM_TYPES[0]})")

    group = parser.add_argument_group("work")
    group.add_argument(
        "--on-error",
        choices=ON_ERROR,
        default="raise",
        help="what to do about rows that can't be used: write nothing (default), leave them out, or leave them out "
        "and write a file of what was refused and why",
    )
    group.add_argument("--report", metavar="FILE", help="that file (default: OUT.refused.jsonl beside OUT)")
    group.add_argument("--num-proc", type=int, default=1, metavar="N", help="processes (default: 1)")
    group.add_argument("--config", metavar="FILE", help="YAML file with any of these arguments; flags win")
    group.add_argument("--json", action="store_true", help="print the figures as JSON")


def source_of(args: argparse.Namespace) -> Source:
    """
    What the arguments say is read.

    Raises:
        `ValueError`: settings that don't go together.
    """
    values: dict[str, Any] = {option.name: getattr(args, option.name) for option in fields(Source)}
    return Source(**values)


def print_refusals(refused: Sequence[Refusal]) -> None:
    """Name the rows that were left out, on stderr."""
    for refusal in refused:
        print(f"refused: {refusal}", file=sys.stderr)


def print_unused(unused: Sequence[str]) -> None:
    """Say which annotations were of no use, on stderr."""
    if unused:
        shown = ", ".join(unused[:3])
        print(f"{len(unused)} annotations belong to pictures that are no row: {shown}, ...", file=sys.stderr)


def _mask_class(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
