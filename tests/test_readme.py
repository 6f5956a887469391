"""What the README states is what the committed records hold."""

import json
import re
import statistics
from pathlib import Path

import pytest
from study_report import cell

from tests.conftest import load_script

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("method", ["none", "sage"])
def test_quickstart_table(method):
    results = json.loads((ROOT / "model_cards" / "quickstart" / "results.json").read_text())[method]
    cells = [f"{statistics.mean(results[split]):.3f}" for split in ("in_distribution", "shifted")]
    assert re.search(rf"^\| `{method}`.*\| {cells[0]} \| {cells[1]} \|$", README, re.MULTILINE)


def test_sweep_table():
    sweep = load_script("benchmarks/digits_sweep.py")
    runs = json.loads((ROOT / "training" / "benchmarks" / "digits_sweep.json").read_text())["runs"]
    assert len(runs) == 3 * len(sweep.SETTINGS)
    assert sweep.table(runs) in README


def leaf_rows():
    """By model and scenario of five seeds, macro F1 and accuracy with replaced regions: none, SAGE, the difference."""
    results = json.loads((ROOT / "training" / "benchmarks" / "coffee_leaf" / "results.json").read_text())["results"]
    figures = {
        (row["model"], row["scenario"], row["method"]): row["figures"] for row in results if len(row["seeds"]) == 5
    }
    for model, name in (("efficientnet-lite0", "EfficientNet-Lite0"), ("dinov2-small", "DINOv2-small")):
        for scenario in ("full", "25 %", "10 %", "25 % of the maps", "unknown disease"):
            if (model, scenario, "sage") not in figures:
                continue
            cells = []
            for key in ("macro_f1", "replaced"):
                none, sage = (figures[model, scenario, method][key] for method in ("none", "sage"))
                cells += [f"{none['mean']:.3f}", f"{sage['mean']:.3f}", cell(sage["to none"], difference=True)]
            yield f"| {name}, {scenario} | {' | '.join(cells)} |"


def test_leaf_table():
    for row in leaf_rows():
        assert row in README, f"the table of leaves needs this row: {row}"


def test_problem_types_table():
    script = load_script("examples/problem_types.py")
    runs = json.loads((ROOT / "training" / "examples" / "problem_types.json").read_text())["runs"]
    assert len(runs) == 5 * 2 * len(script.FIGURES)
    assert f"<!-- problem types -->\n\n{script.table(runs)}\n\n" in (ROOT / "docs" / "models.md").read_text()


def test_defaults_are_the_documented_ones():
    from sage_hf import SageObjective, SageTrainingArguments

    args = SageTrainingArguments(output_dir="unused", use_cpu=True)
    assert args.objective() == SageObjective()
    stated = dict(re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([^|]+) \|", README, re.MULTILINE))
    checked = 0
    for names, defaults in stated.items():
        for name, default in zip(re.findall(r"`(\w+)`", names), defaults.split(", "), strict=False):
            if default != "off" and hasattr(args, name):
                value = getattr(args, name)
                assert str(value) == default.strip("`") or float(value) == float(default), name
                checked += 1
    assert checked >= 12


def test_python_examples_compile_and_name_what_exists():
    import sage_hf

    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        compile(block, "README.md", "exec")
        for names in re.findall(r"from sage_hf import (.*)", block):
            assert all(hasattr(sage_hf, name.strip()) for name in names.split(","))
