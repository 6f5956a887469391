"""`sage-hf models`: which architectures of transformers can be trained."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[1] / "architectures.json"
"""What the tests found, written by `python -m tests.models.architectures`."""


def architectures() -> list[dict[str, Any]]:
    """
    Every entry of transformers' image-classification mapping, whether it was seen to train, and if not, why.

    Returns:
        `list[dict]`: with `architecture` (its `model_type`), `works` and `reason` (`None` if it works).

    Example:

    ```python
    >>> from sage_hf.cli.models import architectures
    >>> [row["works"] for row in architectures() if row["architecture"] == "vit"]
    [True]

    ```
    """
    return json.loads(TABLE.read_text(encoding="utf-8"))


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """The README's table: what works in one row, and a row for each that does not."""
    works = ", ".join(f"`{row['architecture']}`" for row in rows if row["works"])
    count = sum(row["works"] for row in rows)
    lines = ["| architecture | |", "|---|---|", f"| {works} | {count} of {len(rows)}: trained, saved and reloaded |"]
    lines += [f"| `{row['architecture']}` | no: {row['reason']} |" for row in rows if not row["works"]]
    return "\n".join(lines)


def run(argv: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="sage-hf models", description=__doc__)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="as a list of architecture, works, reason")
    output.add_argument("--markdown", action="store_true", help="as the table of the README")
    args = parser.parse_args(argv)
    rows = architectures()
    if args.json:
        print(json.dumps(rows))
    elif args.markdown:
        print(markdown_table(rows))
    else:
        for row in rows:
            print(f"{row['architecture']:<24}{'works' if row['works'] else row['reason']}")
        print(
            f"{sum(row['works'] for row in rows)} of {len(rows)} work; load_image_classifier gives backbones a head."
        )
