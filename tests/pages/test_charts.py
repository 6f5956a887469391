"""Charts: what they say in words and in their tables, and that they take the colours of the page."""

import re
import subprocess
import sys

import numpy as np
import pytest

from sage_hf.pages import Page
from sage_hf.pages.charts import histogram, interval_chart, line_chart, matrix_chart, number
from sage_hf.pages.palette import LIGHT

from .reading import check_page


def charts():
    x = [0.0, 0.5, 1.0]
    return [
        line_chart(
            {"a <b>": (x, [0, 0.7, 1]), "$x^2$": (x, [0, float("nan"), 0.9])},
            title="ROC",
            x_label="false positive rate",
            y_label="true positive rate",
            diagonal="chance",
            unit_square=True,
            mark=(0.5, "kept"),
        ),
        histogram({"known": [0.9, 0.8, 0.7], "unknown": [0.2]}, title="Scores", x_label="score", bins=7),
        interval_chart(
            {"test": {"value": 0.9, "low": 0.8, "high": 0.95}, "loss": {"value": 1.5}}, title="R", x_label="v"
        ),
        matrix_chart([[3, 1], [0, 2]], ["cat", "dog"], title="Confusion", x_label="predicted", y_label="label"),
    ]


def test_every_chart_on_a_page():
    page = Page("Charts")
    page.add("All", *charts())
    read = check_page(page.html())
    assert len(read.all("svg")) == 4
    written = " ".join(one.text for one in read.all("text"))
    for word in ("false positive rate", "a <b>", "$x^2$", "chance", "kept", "cat", "% of the rows"):
        assert word in written  # real text, not outlines


@pytest.mark.parametrize("chart", charts(), ids=["line", "histogram", "interval", "matrix"])
def test_colours_are_those_of_the_page(chart):
    bare = re.sub(r"var\(--[\w-]+, #[0-9a-f]{6}\)", "", chart.image)
    assert not re.findall(r"#[0-9a-f]{6}\b", bare)
    assert f"var(--ink, {LIGHT['ink']})" in chart.image
    assert "rgb(" not in bare


def test_words_and_table_of_lines():
    roc = charts()[0]
    assert roc.alt == (
        "ROC. a <b>: from 0 (false positive rate 0) to 1 (false positive rate 1), lowest 0 (false positive rate 0), "
        "highest 1 (false positive rate 1). $x^2$: from 0 (false positive rate 0) to 0.9 (false positive rate 1), "
        "lowest 0 (false positive rate 0), highest 0.9 (false positive rate 1)."
    )
    assert roc.table.rows[1] == ["0.5", "0.7", "not a number"]
    long = {"a": (range(1000), range(1000)), "b": ([1], [2])}
    table = line_chart(long, title="t", x_label="x", y_label="y").table
    assert table.caption == "t, 31 of 1001 points"
    assert table.rows[0] == ["a", "0", "0"]
    assert table.rows[29] == ["a", "999", "999"]


def test_words_and_table_of_a_histogram():
    rng = np.random.default_rng(0)
    values = rng.normal(size=500)
    chart = histogram({"known": values}, title="Energy", x_label="energy", bins=20)
    low, middle, high = np.percentile(values, [25, 50, 75])
    assert f"500 rows, median {middle:.4g}, middle half from {low:.4g} to {high:.4g}." in chart.alt
    assert sum(float(row[1]) for row in chart.table.rows) == pytest.approx(100)


def test_words_of_a_matrix():
    chart = charts()[3]
    assert chart.alt == "Confusion. 5 of 6 on the diagonal. Most often beside it: 1 cat as dog."
    assert chart.table.rows == [["cat", "3", "1"], ["dog", "0", "2"]]


def test_bad_data_are_refused():
    with pytest.raises(ValueError, match="has no line"):
        line_chart({}, title="t", x_label="x", y_label="y")
    with pytest.raises(ValueError, match="'a' has 1 x and 2 y values"):
        line_chart({"a": ([1], [1, 2])}, title="t", x_label="x", y_label="y")
    with pytest.raises(ValueError, match="finite values of 'a'"):
        histogram({"a": [float("nan")]}, title="t", x_label="x")
    with pytest.raises(ValueError, match=r"shape \(1, 2\) for 2 classes"):
        matrix_chart([[1, 2]], ["a", "b"], title="t", x_label="x", y_label="y")
    with pytest.raises(ValueError, match="has no numbers"):
        interval_chart({}, title="t", x_label="x")


def test_numbers():
    assert [number(value) for value in (0, 1e-9, 1234567.0, 0.5, float("inf"))] == [
        "0",
        "1e-09",
        "1.235e+06",
        "0.5",
        "infinity",
    ]


def test_matplotlib_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"sage_hf\[report\]"):
        line_chart({"a": ([1], [1])}, title="t", x_label="x", y_label="y")


def test_matplotlib_is_imported_when_a_chart_is_drawn():
    code = "import sys, sage_hf.pages.charts; print('matplotlib' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
