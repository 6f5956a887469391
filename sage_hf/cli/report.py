"""`sage-hf report`: a run as one HTML page."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys

from ..reporting import write_report


def run(argv: list[str]) -> None:
    """Parse the arguments of `sage-hf report`, write the page, and say where it is."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.dataset is None and (args.split or args.unknown or args.dataset_name or args.dataset_revision):
        parser.error("--split, --unknown, --dataset_name and --dataset_revision are of what --dataset names")
    # What Trainer prints on the way would spoil the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            path = write_report(
                os.path.expanduser(args.run),
                [os.path.expanduser(other) for other in args.others],
                out=None if args.out is None else os.path.expanduser(args.out),
                dataset=None if args.dataset is None else os.path.expanduser(args.dataset),
                unknown=[os.path.expanduser(value) for value in args.unknown],
                dataset_name=args.dataset_name,
                dataset_revision=args.dataset_revision,
                splits=args.split,
                bootstrap_resamples=args.bootstrap_resamples,
                per_device_eval_batch_size=args.batch_size,
                image_column=args.image_column,
                label_column=args.label_column,
                use_cpu=args.use_cpu,
                disable_tqdm=args.json or None,
            )
        except ImportError as error:
            if "sage_hf[report]" not in str(error):
                raise
            raise ValueError(str(error)) from None
    size = path.stat().st_size
    print(json.dumps({"report": str(path), "bytes": size}) if args.json else f"{path} ({size / 1000:.0f} kB)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sage-hf report",
        description=(
            "Write a run as one self-contained HTML page: curves of every term, metrics with intervals, where the "
            "model looks, pictures, settings, environment. With --dataset the model predicts it once, and the page "
            "also has calibration, ROC and confusion; with --unknown, open-set histograms."
        ),
    )
    parser.add_argument("run", metavar="RUN", help="output folder of sage-hf train or of sage-hf quickstart")
    parser.add_argument("others", nargs="*", metavar="OTHER_RUN", help="other runs on the same data, to compare")
    parser.add_argument("--out", metavar="FILE", help="the page (default: report.html in the run's folder)")
    parser.add_argument("--dataset", metavar="DATASET", help="Hub id or folder of what to predict")
    parser.add_argument("--dataset_name", help="configuration of the dataset")
    parser.add_argument("--dataset_revision", help="branch, tag or commit of the dataset")
    parser.add_argument(
        "--split", nargs="+", metavar="SPLIT", help="splits to predict (default: all labelled ones but train)"
    )
    parser.add_argument(
        "--unknown",
        nargs="+",
        default=[],
        metavar="CLASS",
        help="classes of the dataset that the model does not know, or one other dataset",
    )
    parser.add_argument(
        "--bootstrap_resamples",
        type=int,
        default=1000,
        metavar="N",
        help="for the intervals of what is predicted, 0 for none (%(default)s)",
    )
    parser.add_argument("--batch_size", type=int, default=8, metavar="N", help="per device (default: %(default)s)")
    for name in ("image", "label"):
        parser.add_argument(f"--{name}_column", default=name, metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--use_cpu", action="store_true", help="even where there is an accelerator")
    parser.add_argument("--json", action="store_true", help="print where the page is as JSON")
    return parser
