"""A model that is split over two processes by FSDP2 trains as a whole one does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.test_two_processes import HERE, ROOT, launch

CONFIG = ROOT / "training" / "accelerate" / "fsdp2.yaml"


def test_two_halves_train_as_one(tmp_path):
    one, _ = launch(tmp_path / "one", 1, 8, "vit")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG)]
    command += ["--num_processes=2", "--mixed_precision=no", f"--main_process_port={port}"]
    command += [
        str(Path(HERE) / "train_fsdp2.py"),
        "--out",
        str(tmp_path / "two"),
        "--kind",
        "vit",
        "--batch-size",
        "4",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    two = json.loads((tmp_path / "two" / "record.json").read_text())
    assert two["processes"] == 2
    assert len(one["logs"]) == len(two["logs"]) == 4
    for log, other in zip(one["logs"], two["logs"], strict=True):
        assert log.keys() == other.keys()
        for name, value in log.items():
            assert value == pytest.approx(other[name], rel=1e-4, abs=1e-6), name
