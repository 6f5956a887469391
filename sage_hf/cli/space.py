"""`sage-hf space`: a Space where visitors try a model, here or on the Hub."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Any

EXAMPLES = 6
"""Pictures that are offered at most."""


def run(argv: list[str]) -> int:
    """Parse the arguments of `sage-hf space`, write the Space, push it, run it."""
    args = _parser().parse_args(argv)
    if args.launch:
        _require_gradio()
    from ..space.write import push_space, write_space

    folder = write_space(
        os.path.expanduser(args.model),
        os.path.expanduser(args.out),
        revision=args.revision,
        title=args.title,
        include_weights=args.include_weights,
        examples=[] if args.examples is None else _examples(args),
    )
    print(f"written: {folder}")
    if args.push is not None:
        print(f"pushed to {push_space(folder, args.push, private=args.private or None)}")
    if not args.launch:
        return 0
    print(f"running {folder}/app.py, Ctrl-C stops it", flush=True)
    here = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_ANALYTICS_ENABLED": "False"}
    port = {} if args.port is None else {"GRADIO_SERVER_PORT": str(args.port)}
    try:
        return subprocess.run(
            [sys.executable, "app.py"], cwd=folder, env=os.environ | here | port, check=False
        ).returncode
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sage-hf space",
        description=(
            "Write a Space where visitors upload a picture and see what a model predicts, where it looks, and how "
            "taking a region away changes its mind."
        ),
    )
    parser.add_argument("model", metavar="MODEL", help="Hub id; or a folder, with --include_weights")
    parser.add_argument("--out", required=True, metavar="DIR", help="where to write: new, empty, or written before")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of the model")
    parser.add_argument("--title", help="of the page (default: the model's name)")
    parser.add_argument(
        "--include_weights", "--include-weights", action="store_true", help="copy a local model into it"
    )
    parser.add_argument(
        "--examples",
        metavar="DATASET",
        help=f"offer up to {EXAMPLES} pictures of a dataset, of different classes; they are published with the Space",
    )
    parser.add_argument("--split", help="of the examples (default: test, or validation, or the first there is)")
    parser.add_argument("--image_column", default="image", metavar="NAME", help="(default: image)")
    parser.add_argument("--label_column", default="label", metavar="NAME", help="(default: label)")
    parser.add_argument("--launch", action="store_true", help="run the app here, on 127.0.0.1 alone")
    parser.add_argument("--port", type=int, help="to run it on (default: the first free one from 7860 on)")
    parser.add_argument("--push", metavar="REPO", help="publish it as the Space owner/name, made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new Space private")
    return parser


def _require_gradio() -> None:
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ValueError("Running the app needs gradio: pip install 'sage_hf[space]'.") from None


def _examples(args: argparse.Namespace) -> list[Any]:
    """Pictures of different classes, in the order of the dataset."""
    from ..data.loading import load_saliency_dataset
    from ..data.row_pictures import decoded
    from ..data.saliency import DataError
    from .view import chosen_split

    splits = load_saliency_dataset(os.path.expanduser(args.examples), label_column=args.label_column)
    split = splits[chosen_split(list(splits), args.split)]
    if args.image_column not in split.column_names:
        raise DataError(
            f"{args.examples}: there is no column {args.image_column!r}, only {', '.join(split.column_names)}."
        )
    labels = [str(label) for label in split[args.label_column]] if args.label_column in split.column_names else []
    places: dict[str, int] = {}
    for row, label in enumerate(labels):
        places.setdefault(label, row)
    first = list(places.values())
    rows = [*first, *(row for row in range(min(len(split), EXAMPLES)) if row not in first)][:EXAMPLES]
    return [decoded(split[row][args.image_column]) for row in rows]
