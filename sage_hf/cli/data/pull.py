"""`sage-hf data pull`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `sage-hf data pull`."""
    parser.description = (
        "Download a dataset's parquet files, pictures and card into a folder that load_dataset and `sage-hf train`\n"
        "open with the same rows. Pulled again, the folder follows the repository."
    )
    parser.add_argument("repo_id", metavar="REPO", help="owner/name")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder to write; new, empty, or of an earlier pull of REPO"
    )
    parser.add_argument("--revision", help="branch, tag or commit (default: main)")
    parser.add_argument("--json", action="store_true", help="print folder, repo_id, commit and files as JSON")


def run(args: argparse.Namespace) -> int:
    """Pull, and say what came."""
    from ...hub.pull import pull_dataset

    pulled = pull_dataset(args.repo_id, args.out, revision=args.revision)
    if args.json:
        print(json.dumps(asdict(pulled)))
    else:
        print(f"{pulled.folder}: {pulled.files} files of {pulled.repo_id} (commit {pulled.commit[:12]})")
    return 0
