"""
Compare runs of `sage-hf train`: mean and 95% interval (Student's t over runs) of each method, and paired differences.

    python training/compare.py outputs/coffee_leaf/*/results.json [--json]

Runs are paired by their seed, which `results.json` holds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sage_hf.evaluation import mean_interval


def _method(run: dict[str, Any]) -> str:
    control = run.get("saliency_control", "none")
    return run["guidance"] if control == "none" else f"{run['guidance']}, {control} maps"


def compare(runs: list[dict[str, Any]], baseline: str = "none") -> list[dict[str, Any]]:
    """A row for each split, metric and method; `difference` to the baseline over the seeds that both have."""
    rows = []
    names = [_method(run) for run in runs]
    methods = sorted(set(names), key=lambda method: (method != baseline, method))
    if len({(name, run["seed"]) for name, run in zip(names, runs, strict=True)}) < len(runs):
        raise ValueError("two runs have the same method and seed; compare one set of settings at a time.")
    figures = {(split, metric) for run in runs for split, values in run["metrics"].items() for metric in values}
    for split, metric in sorted(figures):
        by_method = {
            method: {run["seed"]: run["metrics"][split][metric] for run in runs if _method(run) == method}
            for method in methods
        }
        for method, values in by_method.items():
            mean, half = mean_interval(list(values.values()))
            row = {"split": split, "metric": metric, "guidance": method, "runs": len(values)}
            row |= {"mean": mean, "half_width": half}
            shared = sorted(values.keys() & by_method.get(baseline, {}).keys())
            if method != baseline and shared:
                difference = mean_interval([values[seed] - by_method[baseline][seed] for seed in shared])
                row |= {"difference": difference[0], "difference_half_width": difference[1]}
            rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| split | metric | guidance | runs | mean ± 95% | difference to none |", "|---|---|---|---:|---:|---:|"]
    for row in rows:
        difference = f"{row['difference']:+.3f} ± {row['difference_half_width']:.3f}" if "difference" in row else ""
        lines.append(
            f"| {row['split']} | {row['metric']} | {row['guidance']} | {row['runs']} "
            f"| {row['mean']:.3f} ± {row['half_width']:.3f} | {difference} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="results.json")
    parser.add_argument("--json", action="store_true", help="print JSON rows instead of a Markdown table")
    args = parser.parse_args()
    rows = compare([json.loads(path.read_text()) for path in args.results])
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print(table(rows))


if __name__ == "__main__":
    main()
