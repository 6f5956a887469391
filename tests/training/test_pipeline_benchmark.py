"""The benchmark of a row's stages: it runs, and its shares are shares."""

import json

import pytest

from tests.conftest import load_script


@pytest.fixture(scope="module")
def pipeline():
    return load_script("benchmarks/pipeline.py")


def test_it_runs_and_stages_are_parts_of_the_row(pipeline, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pipeline, "SIZES", {"160x120": (160, 120)})
    pipeline.main(["--rounds", "3", "--json", "--out", str(tmp_path / "record.json")])
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "record.json").read_text())
    shares = {row["stage"]: row["share"] for row in record["results"]}
    together = shares.pop(" + ".join(pipeline.ON_DEVICE))
    assert all(0 < share < 1 for share in shares.values())
    assert together == pytest.approx(sum(shares[stage] for stage in pipeline.ON_DEVICE), rel=0.5)
    assert 0.1 < sum(shares.values()) < 1.5
    assert {row["way"] for row in record["ways"]} == set(pipeline.OTHERWISE)
    assert all(row["ratio"] > 0 for row in record["ways"])


def test_table_has_a_column_for_each_size(pipeline):
    rows = [{"picture": picture, "stage": "jitter", "share": share} for picture, share in (("a", 0.5), ("b", 0.125))]
    assert pipeline.table(rows).splitlines()[-1] == "| jitter | 50.0 % | 12.5 % |"


def test_committed_shares_are_what_the_page_says(pipeline):
    """docs/data.md names the figures on which it was decided what stays in the loader."""
    folder = pipeline.Path(pipeline.__file__).parent
    record = json.loads((folder / "pipeline.json").read_text())
    page = (folder.parents[1] / "docs" / "data.md").read_text()
    assert pipeline.table(record["results"]) in page
