"""Tables on the page of the benchmarks hold what scripts print of the committed records, row by row."""

import json

import pytest
from study_report import cell

from tests.docs.blocks import ROOT
from tests.test_readme import leaf_rows

pytest.importorskip("griffe", reason="needs the extra docs")

from docs.generator.benchmarks import tables_of

FOLDER = ROOT / "training" / "benchmarks"


def digits_rows():
    """Model by model and correlation by correlation: none, SAGE and the difference, of two figures."""
    results = json.loads((FOLDER / "digits_shortcut" / "results.json").read_text())["results"]
    figures = {(row["model"], row["scenario"], row["method"]): row["figures"] for row in results}
    for model, name in (("convnext", "ConvNeXt"), ("vit", "ViT")):
        for correlation in ("0.9", "0.99", "1.0"):
            cells = []
            for key in ("shifted", "shifted_energy_auroc"):
                none, sage = (figures[model, correlation, method][key]["mean"] for method in ("none", "sage"))
                change = figures[model, correlation, "sage"][key]["to none"]
                cells += [f"{none:.3f}", f"{sage:.3f}", cell(change, difference=True).strip("*")]
            yield f"| {name}, {correlation} | {' | '.join(cells)} |"


def printed_rows():
    rows = {*digits_rows(), *leaf_rows()}
    for script in FOLDER.glob("*.py"):
        rows.update("\n".join(tables_of(script)).splitlines())
    for table in FOLDER.glob("*/table.md"):
        rows.update(table.read_text().splitlines())
    return rows


def test_results_are_those_of_the_script_with_the_longest_name():
    assert tables_of(FOLDER / "coffee_leaf.py") == []
    assert any("background, grown" in line for line in tables_of(FOLDER / "coffee_leaf_forms.py"))


def test_every_row_is_one_that_a_script_prints():
    lines = (FOLDER / "README.md").read_text().splitlines()
    tables = [index for index, line in enumerate(lines) if line.startswith("|---")]
    assert len(tables) >= 6
    printed = printed_rows()
    for index in tables:
        rows = lines[index + 1 : lines.index("", index)]
        assert rows
        for row in rows:
            assert row in printed, f"no script prints this row of training/benchmarks/README.md: {row}"
