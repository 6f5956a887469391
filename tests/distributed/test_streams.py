"""Two processes share a stream: each row once a pass, no process waits for another, and a resumption is exact."""

import json
from itertools import groupby

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.test_two_processes import run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one process and two saw, and the weights that came of it."""
    found = []
    for processes in (1, 2):
        out = tmp_path_factory.mktemp(str(processes))
        run(processes, "train_stream.py", "--out", str(out))
        records = [json.loads((out / f"record-{index}.json").read_text()) for index in range(processes)]
        found.append((records, load_file(out / "weights.safetensors")))
    return found


def passes(records, name):
    """Rows of all processes, pass by pass, with their crops."""
    steps = sorted((entry for record in records for entry in record[name]["seen"]), key=lambda entry: entry[0])
    rows = [[], []]
    for _, entries in groupby(steps, key=lambda entry: entry[0]):
        current = rows[0] if len(rows[0]) < 13 else rows[1]
        for _, greys, crops in entries:
            current += zip(greys, crops, strict=True)
    return rows


@pytest.mark.parametrize("name", ["rows", "shards", "workers"])
def test_a_pass_has_each_row_once_on_both_processes_together(runs, name):
    crops = []
    for processes, (records, _) in enumerate(runs, start=1):
        assert len(records) == processes
        assert all(record[name]["seen"] for record in records)
        first, _ = passes(records, name)
        assert sorted(row for row, _ in first) == list(range(13))
        crops.append(dict(first))
    # A row is augmented alike on one process and on two, and unlike any other row.
    assert crops[0] == crops[1]
    assert len(set(crops[0].values())) == 13


@pytest.mark.parametrize("name", ["shards", "workers"])
def test_a_resumption_is_exact(runs, name):
    for records, weights in runs:
        for record in records:
            whole, killed, resumed = (record[run] for run in (name, f"{name}-killed", f"{name}-resumed"))
            assert len(whole["losses"]) == 8
            assert killed["seen"] + resumed["seen"] == whole["seen"]
        assert records[0][f"{name}-resumed"]["losses"] == records[0][name]["losses"]
        kept = [key.removeprefix(f"{name}/") for key in weights if key.startswith(f"{name}/")]
        assert kept
        for key in kept:
            assert torch.equal(weights[f"{name}/{key}"], weights[f"{name}-resumed/{key}"]), key


def test_evaluation_on_a_stream_counts_each_row_once(runs):
    (one, _), (two, _) = runs
    # Seven rows on two processes leave an uneven end. The weights differ, as batches do; what is counted does not.
    for records in (one, two):
        for record in records:
            assert record["rows"]["accuracy"] * 7 == pytest.approx(round(record["rows"]["accuracy"] * 7))
