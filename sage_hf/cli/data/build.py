"""`sage-hf data build`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import get_args

from ...data.annotations import MachineSaliency
from ...data.annotations.machine import Kind, Near
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
    machine = parser.add_argument_group("maps by a model, for rows in which nothing is marked")
    machine.add_argument("--machine-saliency", metavar="MODEL", help="id on the Hub, or a folder")
    machine.add_argument(
        "--machine-kind", choices=get_args(Kind), default="segmentation", help="(default: %(default)s)"
    )
    machine.add_argument("--machine-labels", nargs="+", metavar="LABEL", help="classes of the model that mark")
    machine.add_argument(
        "--machine-near",
        choices=get_args(Near),
        help="whether near pixels have high or low values of depth, if the model doesn't say",
    )
    machine.add_argument("--machine-revision", metavar="REVISION", help="branch, tag or commit of the model")
    machine.add_argument("--machine-device", metavar="DEVICE", help="such as cuda:0 (default: the CPU)")
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
            machine=_machine(args),
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


def _machine(args: argparse.Namespace) -> MachineSaliency | None:
    if args.machine_saliency is None:
        return None
    return MachineSaliency(
        args.machine_saliency,
        args.machine_kind,
        tuple(args.machine_labels) if args.machine_labels else None,
        args.machine_near,
        args.machine_revision,
        args.machine_device,
    )
