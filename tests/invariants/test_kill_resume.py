"""A run that is killed and started again is the run that was not: the benchmark of fifty kills, in small."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_two_kills(tmp_path):
    script = ROOT / "training" / "benchmarks" / "kill_resume.py"
    command = [sys.executable, str(script), "--kills", "2", "--out", str(tmp_path / "found.json")]
    command += ["--settings", "stream, accumulated, one kept"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["survived"] == found["kills"] == 2


def test_the_benchmark_was_run():
    found = json.loads((ROOT / "training" / "benchmarks" / "kill_resume.json").read_text())
    assert found["survived"] == found["kills"] == 50
    assert all(run["equal_log"] and run["equal_weights"] for run in found["runs"])
