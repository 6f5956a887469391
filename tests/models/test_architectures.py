"""Every architecture of transformers' image-classification mapping trains, saves and reloads, or says why not."""

import importlib.util

import pytest

from sage_hf.cli.models import architectures, markdown_table
from tests.models.architectures import CLASSES, CONFIGS, END, PAGES, START, outcome

# Optional dependencies of two architectures; the table says what was found with timm and without natten.
NEEDS = {"timm_wrapper": ("timm", True), "dinat": ("natten", False)}


@pytest.mark.parametrize("kind", CLASSES)
def test_architecture(kind):
    package, wanted = NEEDS.get(kind, (None, None))
    if package is not None and (importlib.util.find_spec(package) is not None) != wanted:
        pytest.skip(f"the table says what happens {'with' if wanted else 'without'} {package}")
    row = next(row for row in architectures() if row["architecture"] == kind)
    assert outcome(kind) == row


def test_the_table_is_complete():
    rows = architectures()
    assert [row["architecture"] for row in rows] == list(CLASSES)
    assert set(CONFIGS) == set(CLASSES)
    assert sum(row["works"] for row in rows) >= 38
    assert all(row["works"] == (row["reason"] is None) for row in rows)


def test_the_readme_says_how_many_work():
    rows = architectures()
    assert f"{sum(row['works'] for row in rows)} of the {len(rows)} image-classification" in PAGES[0].read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_show_the_table(page):
    assert f"{START}\n\n{markdown_table(architectures())}\n\n{END}" in page.read_text()
