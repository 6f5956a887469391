"""`sage-hf data push`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `sage-hf data push`."""
    parser.description = (
        "Publish a dataset on the Hub: parquet files with the pictures inside, and a card written from the data.\n"
        "Nothing is sent before `sage-hf data check` has passed. Edits of the card, here or on the Hub, stay.\n"
        "Log in with `hf auth login`, or set HF_TOKEN. May be repeated."
    )
    parser.add_argument("dataset", metavar="DIR_OR_REPO", help="a dataset folder, or a Hub id to copy")
    parser.add_argument("repo_id", metavar="REPO", help="owner/name; made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", help="branch to push to, made if it does not exist (default: main)")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request and push to that")
    parser.add_argument(
        "--allow",
        metavar="NAME",
        action="append",
        default=[],
        help="publish although this check found errors; may be given again. The card names it",
    )
    parser.add_argument("--annotation", metavar="TEXT", help="how the maps came about")
    parser.add_argument("--granularity", metavar="TEXT", help="how finely they were marked")
    parser.add_argument("--source", metavar="TEXT", help="where the pictures come from")
    parser.add_argument("--license", metavar="ID", help="licence, as the Hub names it: cc-by-4.0, mit, ...")
    parser.add_argument("--citation", metavar="FILE", help="BibTeX")
    parser.add_argument("--card-template", metavar="FILE", help="a template of your own for the card")
    parser.add_argument(
        "--card-pictures", metavar="N", type=int, default=2, help="pictures of each class on the card (default: 2)"
    )
    parser.add_argument("--image-column", default="image", metavar="NAME", help="column of the pictures")
    parser.add_argument("--saliency-column", default="saliency", metavar="NAME", help="column of the maps")
    parser.add_argument("--label-column", default="label", metavar="NAME", help="column of the classes")
    parser.add_argument("--num-proc", metavar="N", type=int, default=1, help="how many at once, for the checks")
    parser.add_argument("--scratch", metavar="DIR", help="where temporary files go, as large as the data")
    parser.add_argument("--json", action="store_true", help="print url, commit and pull_request as JSON")


def run(args: argparse.Namespace) -> int:
    """Push, and say where to."""
    from ...hub.datasets import push_dataset

    pushed = push_dataset(
        args.dataset,
        args.repo_id,
        private=args.private or None,
        revision=args.revision,
        create_pr=args.create_pr,
        allow=args.allow,
        annotation=args.annotation,
        granularity=args.granularity,
        source=args.source,
        license=args.license,
        citation=Path(args.citation).read_text(encoding="utf-8") if args.citation else None,
        pictures=args.card_pictures,
        template=args.card_template,
        image_column=args.image_column,
        saliency_column=args.saliency_column,
        label_column=args.label_column,
        num_proc=args.num_proc,
        scratch=args.scratch,
    )
    if args.json:
        print(json.dumps(asdict(pushed)))
    else:
        where = f", pull request {pushed.pull_request}" if pushed.pull_request else ""
        print(f"pushed to {pushed.url}{where} (commit {pushed.commit[:12]})")
    return 0
