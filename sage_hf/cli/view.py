"""`sage-hf view`: look at a dataset, and at where models look in it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

DEFAULT_ROWS, DEFAULT_COUNT = 256, 12


def run(argv: list[str]) -> None:
    """Parse the arguments of `sage-hf view`, look, and say what was found."""
    args = _parser().parse_args(argv)
    out = None if args.out is None else Path(args.out)
    _check_out(out)
    with contextlib.redirect_stdout(sys.stderr):
        results = _look(args, out)
    if args.json:
        print(json.dumps(results))
        return
    print(summary(results))
    if out is not None:
        print(f"\nwritten: {out}")


def _parser() -> argparse.ArgumentParser:
    from ..viewing.records import ORDERS
    from ..views import DEGRADATIONS

    parser = argparse.ArgumentParser(
        prog="sage-hf view",
        description=(
            "Look at rows of a dataset: pictures, maps, views and degradations. With a model: where it looks beside "
            "where humans looked, and what it predicts for x, x+ and x-, the worst rows first. With two: both on the "
            "same rows, say before and after training."
        ),
    )
    parser.add_argument("dataset", metavar="DATASET", help="Hub id or folder")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="up to two Hub ids or folders; adapters too")
    parser.add_argument("--out", metavar="FILE", help="what to write: grid.png, or page.html with figures and plots")
    parser.add_argument("--split", help="the split (default: test, or validation, or the first there is)")
    parser.add_argument(
        "--count", type=int, default=DEFAULT_COUNT, metavar="N", help="rows to show, the worst (default: %(default)s)"
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=DEFAULT_ROWS,
        metavar="N",
        help="rows to look at, drawn at random, those with maps first; -1 for all (default: %(default)s)",
    )
    parser.add_argument(
        "--order",
        choices=ORDERS,
        help="what is worst: the model looks elsewhere than humans (maps), misses the label, is moved by what is not "
        "marked (views), the two differ (models); or the dataset's own order (rows). Default: maps, labels without "
        "maps, rows without a model",
    )
    parser.add_argument("--degradation", choices=DEGRADATIONS, default="shuffle", help="of the views (%(default)s)")
    parser.add_argument("--plane", choices=("pca", "umap"), default="pca", help="of the embeddings (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of rows and degradations (default: %(default)s)")
    parser.add_argument("--revision", nargs="+", default=[], metavar="REVISION", help="of each model (default: main)")
    parser.add_argument("--dataset_name", help="configuration of the dataset")
    parser.add_argument("--dataset_revision", help="branch, tag or commit of the dataset")
    for name in ("image", "saliency", "label"):
        parser.add_argument(f"--{name}_column", default=name, metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--use_cpu", action="store_true", help="even where there is an accelerator")
    parser.add_argument("--json", action="store_true", help="print what is known of each row as JSON")
    return parser


def _check_out(out: Path | None) -> None:
    """Before any work is done."""
    if out is None:
        return
    if out.suffix.lower() not in (".png", ".html"):
        raise ValueError(f"--out {out}: a grid is a .png file, a page an .html file.")
    if out.suffix.lower() == ".html":
        from ..pages.charts import require_matplotlib
        from ..pages.page import check_own

        check_own(out)
        require_matplotlib()
    else:
        from ..viewing.grid import check_own_sheet

        check_own_sheet(out)


def _look(args: argparse.Namespace, out: Path | None) -> dict[str, Any]:
    from ..data.loading import load_saliency_dataset
    from ..viewing import look_at, project, sheet, triplet_figures, view_page
    from ..viewing.grid import save_sheet
    from ..viewing.subjects import Subject, subject_names

    paths = [os.path.expanduser(path) for path in args.models]
    if len(paths) > 2:
        raise ValueError(f"one or two models can be looked at, not {len(paths)}: {', '.join(paths)}.")
    if len(args.revision) > max(1, len(paths)):
        raise ValueError(f"--revision names {len(args.revision)} revisions, and there are {len(paths)} models.")
    dataset = os.path.expanduser(args.dataset)
    splits = load_saliency_dataset(
        dataset, name=args.dataset_name, revision=args.dataset_revision, label_column=args.label_column
    )
    split = chosen_split(list(splits), args.split)
    revisions = [*args.revision, *["main"] * len(paths)]
    subjects = [
        Subject.load(path, revision=revision, name=name, use_cpu=args.use_cpu)
        for path, revision, name in zip(paths, revisions, subject_names(paths) if paths else [], strict=False)
    ]
    name = subject_names([dataset])[0]
    looked = look_at(
        splits[split],
        subjects,
        rows=args.rows,
        count=args.count if out is not None else 0,
        order=args.order,
        degradation=args.degradation,
        seed=args.seed,
        image_column=args.image_column,
        saliency_column=args.saliency_column,
        label_column=args.label_column,
        name=f"{name}, {split} split",
    )
    if out is not None and out.suffix.lower() == ".png":
        save_sheet(sheet(looked), out)
    elif out is not None:
        settings = {"split": split, "degradation of the views": args.degradation, "seed": str(args.seed)}
        view_page(looked, dataset=name, settings=settings, method=args.plane, seed=args.seed).write(out)
    planes = [project(one, args.plane, args.seed) for one in looked.embeddings]
    return {
        "dataset": args.dataset,
        "split": split,
        "models": args.models,
        "seed": args.seed,
        "degradation": args.degradation,
        "order": looked.order,
        "total": looked.total,
        "with_map": looked.with_map,
        "without": looked.without,
        "embeddings": {
            one.model: triplet_figures(one) | {"method": plane.method, "explained": plane.explained}
            for one, plane in zip(looked.embeddings, planes, strict=True)
        },
        "rows": [record.to_dict() for record in looked.records],
    }


def chosen_split(names: list[str], wanted: str | None) -> str:
    from ..data.saliency import DataError

    if wanted is not None and wanted not in names:
        raise DataError(f"the dataset has no split {wanted!r}; it has {', '.join(names)}.")
    return wanted or next((name for name in ("test", "validation") if name in names), names[0])


def summary(results: dict[str, Any]) -> str:
    """The worst rows as text, a line for each."""
    from ..viewing.grid import in_words

    rows = results["rows"]
    lines = [
        f"{results['dataset']}, {results['split']} split: {len(rows)} of {results['total']} rows, "
        f"{sum(row['has_map'] for row in rows)} with a map; by {results['order']}"
    ]
    for row in rows[:DEFAULT_COUNT]:
        said = []
        for one in row["models"]:
            anchor = one["predictions"]["anchor"]
            confidence = "" if anchor["confidence"] is None else f" {anchor['confidence']:.2f}"
            agreement = "".join(f", {method} cc {figures['cc']:.2f}" for method, figures in one["alignment"].items())
            moved = "".join(f", {view} moves {share:.2f}" for view, share in one["moved"].items())
            said.append(f"{in_words(anchor['label'])}{confidence}{agreement}{moved}")
        lines.append(f"  row {row['row']:>6}  {in_words(row['label']):<16} {'   |   '.join(said)}".rstrip())
    if len(rows) > DEFAULT_COUNT:
        lines.append(f"  ... and {len(rows) - DEFAULT_COUNT} more (--json prints them all)")
    for model, figures in results["embeddings"].items():
        lines.append(
            f"{model}: cosine distance to x of x+ {figures['positive']:.3f}, of x- {figures['negative']:.3f}; x+ is "
            f"the closer one in {figures['closer']:.0%} of the rows"
        )
    for model, missing in results["without"].items():
        lines += [f"{model}: no {what}: {why}" for what, why in missing.items()]
    return "\n".join(lines)
