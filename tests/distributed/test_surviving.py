"""What goes wrong on one of two processes ends, or doesn't end, on both."""

import json

import pytest

from tests.distributed.test_two_processes import run


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    out = tmp_path_factory.mktemp("surviving")
    run(2, "train_surviving.py", "--out", str(out))
    return [json.loads((out / f"record-{index}.json").read_text()) for index in range(2)]


@pytest.mark.parametrize("name", ["rows", "stream"])
def test_broken_rows_do_not_cost_a_step(records, name):
    for record in records:
        assert record[name]["steps"] == 8
        assert record[name]["losses"] == records[0][name]["losses"]
        assert record[name]["skipped"]["times"] == 24  # two passes
    assert records[0][name]["skipped"]["rows"] == 12


def test_both_end_and_go_on_together(records):
    for record in records:
        assert record["told"] == [10, 143]
        assert record["resumed"] == record["whole"]


def test_both_stop_at_the_rows_of_one(records):
    assert records[0]["error"] == records[1]["error"]
    assert records[0]["places"] is None
    names = ", ".join(f"row {place}" for place in records[1]["places"])
    assert records[0]["error"].startswith("step 3: the loss is nan.")
    assert f"Rows of the batch: {names}." in records[0]["error"]
    assert records[0]["error"].count("Rows of the batch") == 1
