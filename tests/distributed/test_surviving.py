"""What goes wrong on one of two processes ends, or doesn't end, on both."""

import json
import sys

import pytest

from tests.distributed.test_two_processes import run


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("surviving")
    run(2, "train_surviving.py", "--out", str(folder))
    return folder


@pytest.fixture(scope="module")
def records(out):
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


@pytest.mark.skipif(sys.platform != "linux", reason="names of threads are read from /proc")
def test_threads_of_the_group_end_with_it(out):
    """One that outlived it could abort the process while the interpreter ends."""
    for index in range(2):
        names = json.loads((out / f"threads-{index}.json").read_text())
        assert any("python" in name for name in names)
        assert not [name for name in names if "gloo" in name]
