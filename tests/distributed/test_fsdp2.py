"""A model that is split over two processes by FSDP2 trains as a whole one does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sage_hf import SageTrainingArguments
from sage_hf.checks import check_split_model
from sage_hf.forwarding import Encoder
from tests.conftest import make_model
from tests.distributed.test_two_processes import HERE, ROOT, launch
from tests.test_trainer import make_trainer

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


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("resnet", {}, "view_forward='concatenated'"),
        ("vit", {"view_forward": "separate"}, "view_forward='concatenated'"),
        ("vit", {"view_forward": "recomputed"}, "view_forward='concatenated'"),
        ("resnet", {"guidance": "cyborg"}, "differentiates twice"),
    ],
)
def test_what_a_split_model_would_wait_for_is_refused(tmp_path, dataset, processor, kind, settings, message):
    trainer = make_trainer(tmp_path, kind, train_dataset=dataset, processing_class=processor, **settings)
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match=message):
        trainer.train()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("vit", {}),
        ("vit", {"guidance": "none"}),
        ("resnet", {"guidance": "none"}),
        ("resnet", {"view_forward": "concatenated"}),
    ],
)
def test_what_a_split_model_can_do_is_not_refused(kind, settings):
    args = SageTrainingArguments(output_dir="run", use_cpu=True, **settings)
    encoder = Encoder(make_model(kind), view_forward=args.view_forward)
    check_split_model(args.objective(), encoder.view_forward)
