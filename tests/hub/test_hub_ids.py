"""From Hub ids to a checkpoint, with the real client and the real command, against a server on loopback."""

import json
import os
import subprocess
import sys

import pytest

from sage_hf.data.build import BuildReport, _write_card
from tests.conftest import make_dataset, make_model
from tests.hub.server import hub


@pytest.fixture
def repos(tmp_path, processor):
    root = tmp_path / "hub"
    make_model("convnext").save_pretrained(root / "models/me/tiny")
    processor.save_pretrained(root / "models/me/tiny")
    for split, count in (("train", 8), ("validation", 4)):
        file = root / f"datasets/me/leaves/data/{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        make_dataset(count, split=split).to_parquet(file)
    report = BuildReport(kept=12, annotated=12, splits={"train": 8, "validation": 4})
    _write_card(root / "datasets/me/leaves", make_dataset(1).features, report)
    return root


def command(*arguments, endpoint, home):
    # The package that may serve large files another way speaks to hosts of its own.
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    run = [sys.executable, "-m", "sage_hf", *map(str, arguments)]
    return subprocess.run(run, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_train_from_hub_ids(repos, tmp_path):
    arguments = ["train", "--model", "me/tiny", "--dataset", "me/leaves", "--output_dir", tmp_path / "out"]
    arguments += ["--max_steps", 2, "--per_device_train_batch_size", 4, "--use_cpu", "--json"]
    with hub(repos) as endpoint:
        done = command(*arguments, endpoint=endpoint, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert results["steps"] == 2
    assert set(results["metrics"]) == {"validation"}
    assert results["annotated"] == 1.0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model: me/tiny" in card
    assert "- me/leaves" in card


def test_view_by_hub_ids(repos, tmp_path):
    with hub(repos) as endpoint:
        arguments = ["view", "me/leaves", "me/tiny", "--json", "--use_cpu"]
        done = command(*arguments, endpoint=endpoint, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["split"], found["models"], found["order"]) == ("validation", ["me/tiny"], "maps")
    agreement = [row["models"][0]["alignment"]["cam"]["cc"] for row in found["rows"]]
    assert len(agreement) == 4
    assert agreement == sorted(agreement)
    assert found["rows"][0]["models"][0]["model"] == "me/tiny"


def test_what_is_not_on_the_hub_is_said(repos, tmp_path):
    with hub(repos) as endpoint:
        done = command(
            "train", "--model", "me/tiny", "--dataset", "me/none", endpoint=endpoint, home=tmp_path / "home"
        )
    assert done.returncode == 1
    assert "'me/none' is neither a folder here nor a dataset on the Hub that you can read" in done.stderr
    assert "Traceback" not in done.stderr
