"""`sage-hf data check`."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import Counter

from ...data.checking import CHECKS, CheckReport, check_dataset
from ...data.checking.report import PHASH_DISTANCE
from .stats import add_reading_arguments, class_table, reading_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `sage-hf data check`."""
    parser.description = (
        "Read a dataset once and report what would train wrongly, or be published that nobody meant to. The exit\n"
        "code is 1 if there is an error that is not allowed."
    )
    add_reading_arguments(parser, nargs="?")
    parser.add_argument(
        "--allow", nargs="+", default=[], metavar="CHECK", help="checks whose errors don't fail the dataset"
    )
    parser.add_argument(
        "--phash-distance",
        type=int,
        default=PHASH_DISTANCE,
        metavar="BITS",
        help="bits of 64 in which the perceptual hashes of near duplicates may differ (default: %(default)s)",
    )
    parser.add_argument("--list", action="store_true", help="list the checks, and read nothing")


def run(args: argparse.Namespace) -> int:
    """Check, and say what was found."""
    if args.list:
        rows = [{"check": check.name, "severity": check.severity, "message": check.message} for check in CHECKS]
        print(
            json.dumps(rows) if args.json else "\n".join("{check:34}{severity:9}{message}".format(**r) for r in rows)
        )
        return 0
    if args.dataset is None:
        raise ValueError("which dataset? Give a folder or a Hub id, or --list for the checks.")
    report = check_dataset(
        args.dataset, allow=args.allow, phash_distance=args.phash_distance, **reading_arguments(args)
    )
    print(json.dumps(report.to_dict()) if args.json else described(args.dataset, report))
    return 0 if report.passed else 1


def described(dataset: str, report: CheckReport) -> str:
    """
    A report for a person to read: errors first, then what maps cover, class by class.

    Args:
        dataset (`str`): what it is called.
        report ([`CheckReport`]): of the dataset.
    """
    lines = []
    for finding in report.findings:
        allowed = finding.severity == "error" and finding.check in report.allowed
        severity = "allowed" if allowed else finding.severity
        lines.append(f"{severity:9}{finding.count:>7}  {finding.check}")
        lines += textwrap.wrap(finding.message, 100, initial_indent=" " * 18, subsequent_indent=" " * 18)
        lines += [f"{' ' * 20}{example}" for example in finding.examples]
        more = finding.count - len(finding.examples)
        lines += [f"{' ' * 20}and {more} more"] if finding.examples and more > 0 else []
        lines.append("")
    lines += [*class_table(report.stats), ""]
    counts = Counter(one.severity for one in report.findings if one.check not in report.allowed)
    sampled = "a sample of " if report.stats.sampled else ""
    lines.append(
        f"{dataset}: {sampled}{report.stats.rows} rows read; {'passed' if report.passed else 'failed'}; checks with "
        f"errors: {counts['error']}, with warnings: {counts['warning']}."
    )
    return "\n".join(lines)
