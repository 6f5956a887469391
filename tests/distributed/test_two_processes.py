"""`accelerate launch` on two CPU processes: the same global batch gives the same losses and weights as on one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def launch(out, processes, batch_size, kind, *more):
    run(processes, "train_rows.py", "--out", str(out), "--kind", kind, "--batch-size", str(batch_size), *more)
    return json.loads((out / "record.json").read_text()), load_file(out / "weights.safetensors")


def run(processes, script, *more):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines=1", "--mixed_precision=no"]
    command += [f"--num_processes={processes}", "--dynamo_backend=no", "--num_cpu_threads_per_process=1"]
    command += ["--multi_gpu", f"--main_process_port={port}"] if processes > 1 else []
    command += [str(HERE / script), *more]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# Rows 0 to 5 of 16 have a map. With four rows a process, the second process has two maps in the first step, and no
# process has any in the second; with two rows, the processes hold 2 + 2, 2 + 0, 0 + 0 and 0 + 0 maps.
@pytest.mark.parametrize(("kind", "batch_size"), [("vit", 4), ("vit", 2)])
def test_two_processes_train_as_one(tmp_path, kind, batch_size):
    one, weights = launch(tmp_path / "one", 1, 2 * batch_size, kind)
    two, other_weights = launch(tmp_path / "two", 2, batch_size, kind)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert len(one["logs"]) == len(two["logs"]) == 2 * 16 // (2 * batch_size)
    for log, other in zip(one["logs"], two["logs"], strict=True):
        assert log.keys() == other.keys()
        assert {"loss", "cross_entropy", "annotated", "grad_norm"} < log.keys()
        assert ("triplet" in log) == ("consistency" in log) == (log["annotated"] > 0)
        for name, value in log.items():
            assert value == pytest.approx(other[name], rel=1e-4, abs=1e-6), name
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, other_weights[name], rtol=1e-4, atol=1e-6)
    # Three rows a batch leave an uneven end. Not eval_loss: Trainer averages the rows in that it has added as padding.
    for name in ("eval_accuracy", "eval_balanced_accuracy", "eval_macro_f1"):
        assert one["metrics"][name] == pytest.approx(two["metrics"][name], rel=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        ("--settings", '{"class_weights": ["0.2", "1", "3"], "label_smoothing_factor": 0.1, "freeze_backbone": true}'),
        ("--own-loss",),
        ("--settings", '{"view_forward": "recomputed", "degradation": "blur"}'),
        # It differentiates twice, and a process may have no row to do so.
        ("--settings", '{"guidance": "gradient"}', "--eager"),
    ],
)
def test_other_losses_train_as_on_one_process(tmp_path, more):
    one, weights = launch(tmp_path / "one", 1, 4, "vit", *more)
    two, other_weights = launch(tmp_path / "two", 2, 2, "vit", *more)
    for log, other in zip(one["logs"], two["logs"], strict=True):
        for name, value in log.items():
            assert value == pytest.approx(other[name], rel=1e-4, abs=1e-6), name
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, other_weights[name], rtol=1e-4, atol=1e-6)


def test_batch_norm_models_do_not_hang_when_one_process_has_no_map(tmp_path):
    # Two rows a process: in the second step one process makes two passes and the other one.
    record, _ = launch(tmp_path / "two", 2, 2, "resnet")
    assert record["processes"] == 2
    assert [round(log["annotated"] * 4) for log in record["logs"]] == [4, 2, 0, 0] * 2
