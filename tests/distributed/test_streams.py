"""Two processes share a stream: each row once a pass, no process waits for another, and a resumption is exact."""

import json
from itertools import groupby

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf import AlignedTransform
from sage_hf.data.dataset import Augmentation
from sage_hf.data.streams import StreamedDataset
from tests.conftest import SIZE
from tests.distributed.test_two_processes import run
from tests.distributed.train_stream import make_stream

ROWS = 13


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What each of two processes saw, and the weights that came of it."""
    out = tmp_path_factory.mktemp("two")
    run(2, "train_stream.py", "--out", str(out))
    return [json.loads((out / f"record-{index}.json").read_text()) for index in range(2)], load_file(
        out / "weights.safetensors"
    )


def first_pass(records, name):
    """Rows of both processes with their crops, step by step until there are as many as the stream has."""
    steps = sorted((entry for record in records for entry in record[name]["seen"]), key=lambda entry: entry[0])
    rows = []
    for _, entries in groupby(steps, key=lambda entry: entry[0]):
        rows += [row for _, greys, crops in entries for row in zip(greys, crops, strict=True)]
        if len(rows) >= ROWS:
            break
    return rows


@pytest.mark.parametrize(("name", "num_shards"), [("rows", 3), ("shards", 2), ("workers", 4)])
def test_a_pass_has_each_row_once_on_both_processes_together(runs, name, num_shards):
    records, _ = runs
    assert all(record[name]["seen"] for record in records)
    rows = first_pass(records, name)
    assert sorted(row for row, _ in rows) == list(range(ROWS))
    # A row is augmented as on one process that reads the stream in its own order.
    processor = ViTImageProcessorPil(size={"height": SIZE, "width": SIZE})
    transform = AlignedTransform(processor, random_crop_scale=0.4)
    alone = StreamedDataset(make_stream(ROWS, num_shards), transform, "train dataset", Augmentation(42))
    assert dict(rows) == {row: inputs["saliency"].double().sum().item() for row, inputs in enumerate(alone)}
    assert len(set(dict(rows).values())) > ROWS // 2  # small pictures have few crops


@pytest.mark.parametrize("name", ["shards", "workers"])
def test_a_resumption_is_exact(runs, name):
    records, weights = runs
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
    # Seven rows on two processes leave an uneven end: a row that counts twice would make it eighths.
    for record in runs[0]:
        sevenths = record["rows"]["accuracy"] * 7
        assert sevenths == pytest.approx(round(sevenths))
