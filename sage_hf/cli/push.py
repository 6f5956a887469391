"""`sage-hf push`: publish a run's folder on the Hub."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from ..hub.push import push_run


def run(argv: list[str]) -> None:
    """Parse the arguments of `sage-hf push` and push."""
    parser = argparse.ArgumentParser(
        prog="sage-hf push",
        description=(
            "Publish the folder of a run: weights, configs, results, and a card made for the repository. Edits of the "
            "card, here or on the Hub, stay. Log in with `hf auth login`, or set HF_TOKEN. May be repeated."
        ),
    )
    parser.add_argument("folder", metavar="DIR", help="the run's output folder")
    parser.add_argument("repo_id", metavar="REPO", help="owner/name; made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", help="branch to push to, made if it does not exist (default: main)")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request and push to that")
    parser.add_argument("--card_template", metavar="FILE", help="a template of your own for the card")
    parser.add_argument("--json", action="store_true", help="print url, commit and pull_request as JSON")
    args = parser.parse_args(argv)
    pushed = push_run(
        args.folder,
        args.repo_id,
        private=args.private or None,
        revision=args.revision,
        create_pr=args.create_pr,
        template=args.card_template,
    )
    if args.json:
        print(json.dumps(asdict(pushed)))
    else:
        where = f", pull request {pushed.pull_request}" if pushed.pull_request else ""
        print(f"pushed to {pushed.url}{where} (commit {pushed.commit[:12]})")
