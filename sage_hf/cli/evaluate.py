"""`sage-hf evaluate`: a model and a dataset, by name, and out come figures."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..data.row_pictures import ANNOTATORS
from ..evaluation.model_evaluation import evaluate_model


def run(argv: list[str]) -> None:
    """Parse the arguments of `sage-hf evaluate`, evaluate, and say what was found."""
    args = _parser().parse_args(argv)
    if args.output is not None and Path(args.output).exists():
        raise FileExistsError(f"{args.output} is there already. Choose another --output, or move it away.")
    if args.output is not None:  # now, not when everything has been measured
        Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    # What Trainer prints on the way would spoil the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        results = evaluate_model(
            os.path.expanduser(args.model),
            os.path.expanduser(args.dataset),
            revision=args.revision,
            dataset_name=args.dataset_name,
            dataset_revision=args.dataset_revision,
            splits=args.split,
            unknown=[os.path.expanduser(value) for value in args.unknown],
            bona_fide=args.bona_fide,
            attack_type_column=args.attack_type_column,
            threshold_split=args.threshold_split,
            saliency=args.saliency,
            faithfulness=args.faithfulness,
            bootstrap_resamples=args.bootstrap_resamples,
            per_device_eval_batch_size=args.batch_size,
            image_column=args.image_column,
            saliency_column=args.saliency_column,
            label_column=args.label_column,
            use_cpu=args.use_cpu,
            disable_tqdm=args.json or None,
            **({} if args.annotators is None else {"annotators": args.annotators}),
        )
    if not PartialState().is_main_process:
        return
    if args.output is not None:
        Path(args.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results) if args.json else summary(results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sage-hf evaluate",
        description=(
            "Evaluate a classifier on every labelled split of a dataset but the training one: the metrics of its "
            "problem, calibration, and what the options add. Classes are matched by name."
        ),
    )
    parser.add_argument("model", metavar="MODEL", help="Hub id or folder; adapters too")
    parser.add_argument("dataset", metavar="DATASET", help="Hub id or folder")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of the model")
    parser.add_argument("--dataset_name", help="configuration of the dataset")
    parser.add_argument("--dataset_revision", help="branch, tag or commit of the dataset")
    parser.add_argument("--split", nargs="+", metavar="SPLIT", help="splits to evaluate on")
    parser.add_argument(
        "--unknown",
        nargs="+",
        default=[],
        metavar="CLASS",
        help="classes of the dataset that the model does not know, one other dataset, or both: open-set figures "
        "(default: what the model's run left out)",
    )
    parser.add_argument(
        "--bona_fide", metavar="CLASS", help="the class that is no attack: figures of presentation attack detection"
    )
    parser.add_argument(
        "--attack_type_column",
        metavar="NAME",
        help="column with the type of attack of each row (default: the class, or what the run's --leave_out went by)",
    )
    parser.add_argument(
        "--threshold_split",
        metavar="SPLIT",
        help="split whose equal error rate sets the threshold of APCER and BPCER (0.5 without it)",
    )
    parser.add_argument("--saliency", action="store_true", help="compare where the model looks with the maps")
    parser.add_argument(
        "--faithfulness",
        action="store_true",
        help="remove pixels by order of the model's and of the human maps, and see what becomes of the predictions",
    )
    parser.add_argument(
        "--bootstrap_resamples",
        type=int,
        default=1000,
        metavar="N",
        help="for the intervals, 0 for none (%(default)s)",
    )
    parser.add_argument("--batch_size", type=int, default=8, metavar="N", help="per device (default: %(default)s)")
    for name in ("image", "saliency", "label"):
        parser.add_argument(f"--{name}_column", default=name, metavar="NAME", help="(default: %(default)s)")
    parser.add_argument(
        "--annotators",
        choices=[name for name in ANNOTATORS if name != "random"],
        help="what becomes of several annotators' maps of a picture (default: as in the model's run; mean if it drew "
        "one at random)",
    )
    parser.add_argument("--use_cpu", action="store_true", help="even where there is an accelerator")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--output", metavar="FILE", help="write them to a new JSON file as well")
    return parser


def summary(results: dict[str, Any]) -> str:
    """The figures as text, a block for each split."""
    lines = []
    for split, rows in results["rows"].items():
        lines += ["", f"{split}: {rows} rows"]
        metrics = {name: {"value": value} for name, value in results["metrics"][split].items()}
        lines += _block("", metrics | results["intervals"][split])
        lines += _block("ranking", results.get("ranking", {}).get(split))
        lines += _block("calibration", results.get("calibration", {}).get(split))
        unknown = results.get("unknown_rows", {}).get(split)
        lines += _block(f"open set, {unknown} rows of unknown classes", results.get("open_set", {}).get(split))
        attack = dict(results.get("presentation_attack", {}).get(split, {}))
        by_type = attack.pop("apcer_by_type", {})
        title = f"presentation attacks, threshold {attack.pop('threshold', 0.5):.4g}"
        lines += _block(title, attack | {f"apcer, {kind}": figure for kind, figure in by_type.items()})
        alignment = dict(results.get("saliency_alignment", {}).get(split, {}))
        pictures = alignment.pop("pictures", 0)
        for method, figures in alignment.items():
            lines += _block(f"where it looks ({method}) against the maps of {pictures} pictures", figures)
        removal = dict(results.get("faithfulness", {}).get(split, {}))
        pictures = removal.pop("pictures", 0)
        for name, figures in removal.items():
            lines += _block(f"{REMOVALS.get(name, name)}, {pictures} pictures", figures)
    return "\n".join(lines)


REMOVALS = {
    "cam": "pixels removed by its class activation map",
    "gradient": "pixels removed by its input gradient",
    "human": "pixels removed by the human map",
    "marked_region": "without the marked region, and with nothing else",
}
"""What the parts of the figures of faithfulness are called."""


def _block(title: str, figures: dict[str, dict[str, float]] | None) -> list[str]:
    if not figures:
        return []
    return [f"  {title}"] * bool(title) + [
        f"    {name:<28}{figure['value']:>10.4f}"
        + (f"   ({figure['low']:.4f} to {figure['high']:.4f})" if "low" in figure else "")
        for name, figure in figures.items()
    ]
