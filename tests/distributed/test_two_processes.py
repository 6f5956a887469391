"""Two CPU processes: the same global batch gives the same losses, weights and metrics as on one, copied and split."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from tests.distributed.train_cases import CASES, train

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FSDP2 = ROOT / "training" / "accelerate" / "fsdp2.yaml"
WAYS = [("ddp", name) for name in CASES] + [("fsdp", name) for name, case in CASES.items() if case.split]


ON_CPU = {"ACCELERATE_USE_CPU": "true"}


def run(processes, script, *more, flags=(), environment=ON_CPU):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags, "--num_machines=1", "--mixed_precision=no"]
    command += [f"--num_processes={processes}", "--dynamo_backend=no", "--num_cpu_threads_per_process=1"]
    command += ["--multi_gpu"] if processes > 1 and not flags else []
    command += [f"--main_process_port={port}"] if processes > 1 else []
    command += [str(HERE / script), *more]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths} | environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    run(2, "train_cases.py", "--out", str(folder), flags=(f"--config_file={FSDP2}",))
    return folder


def read_runs(out):
    """Records and weights of all runs on two processes."""
    records, weights = json.loads((out / "record.json").read_text()), load_file(out / "weights.safetensors")
    return {
        run: (record, {name.removeprefix(f"{run}/"): w for name, w in weights.items() if name.startswith(f"{run}/")})
        for run, record in records.items()
    }


@pytest.fixture(scope="module")
def two(out):
    return read_runs(out)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The same on this process, once for each case."""
    folder, runs = tmp_path_factory.mktemp("one"), {}

    def get(name):
        if name not in runs:
            runs[name] = train(folder / name, CASES[name], **CASES[name].arguments(1))
        return runs[name]

    return get


def assert_same(first, second, rtol=1e-4, atol=1e-6):
    (record, weights), (other, other_weights) = first, second
    assert len(record["logs"]) == len(other["logs"]) > 0
    for log, other_log in zip(record["logs"], other["logs"], strict=True):
        assert log.keys() == other_log.keys()
        for name, value in log.items():
            assert value == pytest.approx(other_log[name], rel=rtol, abs=atol), name
    assert weights.keys() == other_weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, other_weights[name], rtol=rtol, atol=atol, msg=name)
    # Three rows a batch leave an uneven end, which rows are added to that count nowhere.
    for name in ("eval_loss", "eval_accuracy", "eval_balanced_accuracy", "eval_macro_f1"):
        if name == "eval_loss" and "own_loss" in record["logs"][0]:
            continue  # of batches, not of rows, and averaged as Trainer does
        assert record["metrics"][name] == pytest.approx(other["metrics"][name], rel=rtol), name


@pytest.mark.parametrize(("way", "name"), WAYS)
def test_two_processes_train_as_one(two, one, way, name):
    record, _ = two[f"{way}/{name}"]
    assert (record["processes"], one(name)[0]["processes"]) == (2, 1)
    assert record["split"] == (way == "fsdp")
    for log in record["logs"]:
        assert {"loss", "annotated", "grad_norm"} < log.keys()
        if not CASES[name].settings:
            assert ("triplet" in log) == ("consistency" in log) == (log["annotated"] > 0)
    assert_same(two[f"{way}/{name}"], one(name))


def test_steps_have_the_rows_that_they_should(one):
    """What is compared above is what its comments say."""
    annotated = {name: [log["annotated"] for log in one(name)[0]["logs"]] for name in CASES}
    assert annotated["two rows each"] == [1, 0.5, 0, 0] * 2
    assert annotated["four rows each"] == annotated["accumulated"] == [0.75, 0] * 2
    assert annotated["uneven"] == pytest.approx([1, 0, 4 / 6] * 2)  # rows 12, 13, and 0 to 3 again


def test_a_split_model_trains_on_a_stream_as_copies_do(two):
    assert len(two["fsdp/stream"][0]["logs"]) == 6
    assert two["fsdp/stream"][0]["split"]
    assert_same(two["fsdp/stream"], two["ddp/stream"])


@pytest.mark.parametrize(
    ("way", "whole"), [("ddp", "ddp"), ("fsdpFULL", "fsdpSHARDED"), ("fsdpSHARDED", "fsdpSHARDED")]
)
def test_killed_and_resumed_is_uninterrupted(two, out, way, whole):
    # How checkpoints are stored is nothing to the uninterrupted run.
    resumed, expected = two[f"{way}/resumed"], two[f"{whole}/whole"]
    assert resumed[0]["split"] == way.startswith("fsdp")
    assert resumed[0]["logs"] == expected[0]["logs"]
    for name, tensor in resumed[1].items():
        assert torch.equal(tensor, expected[1][name]), name
    assert_same(resumed, two["ddp/whole"])
    assert {path.name for path in (out / way).glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-4"}


@pytest.mark.parametrize("kind", ["FULL", "SHARDED"])
def test_a_split_model_goes_on_in_its_stream(two, kind):
    resumed, expected = two[f"fsdp{kind}/stream resumed"], two["fsdpSHARDED/stream"]
    assert resumed[0]["split"]
    assert len(expected[0]["logs"]) == 6
    assert resumed[0]["logs"] == expected[0]["logs"]
    for name, tensor in resumed[1].items():
        assert torch.equal(tensor, expected[1][name]), name


@pytest.mark.parametrize("way", ["ddp", "fsdpFULL"])
def test_what_is_saved_is_whole(two, out, way):
    model = AutoModelForImageClassification.from_pretrained(out / way)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, two[f"{way}/resumed"][1][name]), name


def test_sharded_checkpoints_hold_no_model_for_others(out):
    # Which is why `sage-hf train` refuses them.
    assert not list((out / "fsdpSHARDED").rglob("model.safetensors"))


def test_batch_norm_models_do_not_hang_when_one_process_has_no_map(two):
    # Two rows a process: in the second step one process makes two passes and the other one.
    assert [round(log["annotated"] * 4) for log in two["ddp/resnet"][0]["logs"]] == [4, 2, 0, 0] * 2
