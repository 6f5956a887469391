"""The notebooks run from the top, and what is stored with them is of their present code."""

import json

import pytest

from docs.generator.execute import digest, execute
from docs.generator.notebooks import notebook_page
from tests.docs.blocks import DOCS

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["compare", "own_annotations", "ten_lines"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_without_errors_and_warnings(path):
    notebook = execute(path)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_of_this_code(path, tmp_path):
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["sources"] == digest(notebook), "run `make notebooks`, and look at what came out"
    page = notebook_page(path, tmp_path)
    assert "```python" in page
    assert list(tmp_path.glob("*.png"))


def test_no_numbers_are_typed():
    """Figures in the text come from cells: prose holds no decimal that a run could contradict."""
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "markdown":
                words = "".join(cell["source"]).split("```")[::2]
                assert not any(part.strip("().,*").replace("0.", "", 1).isdigit() and "." in part.strip(".,")
                               for text in words for part in text.split()), path  # fmt: skip
