"""From a dataset on the Hub to a model on the Hub and back, with the real client and the real command."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.conftest import make_dataset, make_model, make_rows
from tests.hub.accounts import WRITE_TOKEN
from tests.hub.client import client, environment, online, run_script
from tests.hub.server import Hub

EVALUATE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sage_hf":
            raise ImportError("sage_hf is not installed here")

sys.meta_path.insert(0, Blocked())
from datasets import load_dataset
from transformers import pipeline

rows = load_dataset("me/leaves", split="test")
classify = pipeline("image-classification", "me/leaves-sage", top_k=1)
names = rows.features["label"].names
right = [classify(row["image"].convert("RGB"))[0]["label"] == names[row["label"]] for row in rows]
print("accuracy", sum(right) / len(right))
"""


@pytest.fixture
def server(tmp_path):
    with Hub(tmp_path / "hub") as server, online():
        yield server


def command(server, work, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "sage_hf", *map(str, arguments)],
        cwd=work,
        env=environment(server, work / "home"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    return done


@pytest.fixture
def published(server, tmp_path, processor):
    """A dataset and a base model on the Hub."""
    import datasets

    work = tmp_path / "work"
    work.mkdir()
    rows = make_rows(27)
    parts = {"train": rows[:12], "validation": rows[12:18], "test": rows[18:]}
    splits = {name: make_dataset(rows=part) for name, part in parts.items()}
    datasets.DatasetDict(splits).save_to_disk(work / "data")
    command(server, work, "data", "push", "data", "me/leaves", "--annotation", "drawn by hand")
    make_model("vit", num_labels=5).save_pretrained(work / "base")
    processor.save_pretrained(work / "base")
    client(server).create_repo("me/base")
    client(server).upload_folder(repo_id="me/base", folder_path=work / "base")
    return work


def test_the_whole_way(server, published, tmp_path):
    command(
        server,
        published,
        *("train", "--model", "me/base", "--dataset", "me/leaves", "--output_dir", "run", "--use_cpu"),
        *("--num_train_epochs", 2, "--learning_rate", 0.003, "--bootstrap_resamples", 50, "--report_to", "none"),
        *("--push_to_hub", "--hub_model_id", "me/leaves-sage", "--license", "mit", "--annotation", "drawn by hand"),
    )
    shutil.rmtree(published)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    output = run_script(EVALUATE, server, fresh)
    found = float(output.split("accuracy")[1])

    assert "drawn by hand" in server.read("me/leaves", "README.md", kind="datasets").decode()
    card = server.read("me/leaves-sage", "README.md").decode()
    front = yaml.safe_load(card.split("---")[1])
    stated = {
        metric["type"]: metric["value"]
        for result in front["model-index"][0]["results"]
        if result["dataset"]["split"] == "test"
        for metric in result["metrics"]
    }
    assert stated["accuracy"] == pytest.approx(found)
    entries = yaml.safe_load(server.read("me/leaves-sage", ".eval_results/me_leaves_test.yaml"))
    values = {entry["dataset"]["task_id"]: entry["value"] for entry in entries}
    assert values["test_accuracy"] == pytest.approx(found)
    assert re.search(rf"\| test \|.* {found:.4f} \(0\.\d+ to \d\.\d+\)", card)

    assert front["base_model"] == "me/base"
    assert front["datasets"] == ["me/leaves"]
    assert front["license"] == "mit"
    revision = server.repo("me/leaves", "datasets").find("main")
    assert entries[0]["dataset"]["revision"] == revision
    assert f"(revision `{server.repo('me/base').find('main')[:12]}`)" in card
    assert "drawn by hand" in card
    for path, content in server.pushed():
        for secret in (WRITE_TOKEN.encode(), str(tmp_path).encode()):
            assert secret not in content, path
        assert not path.endswith((".bin", ".pt", ".pkl")), path

    done = command(
        server,
        fresh,
        *("evaluate", "me/leaves-sage", "me/leaves", "--split", "test", "--bootstrap_resamples", 50),
        *("--use_cpu", "--saliency", "--json"),
    )
    figures = json.loads(done.stdout)
    assert figures["metrics"]["test"] == pytest.approx(stated)
    assert figures["model_revision"] == server.repo("me/leaves-sage").find("main")
    assert figures["dataset_revision"] == revision
    interval = figures["intervals"]["test"]["accuracy"]
    assert f"{found:.4f} ({interval['low']:.4f} to {interval['high']:.4f})" in card
    assert figures["saliency_alignment"]["test"]["pictures"] == 9


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("end", set()), ("checkpoint", {"last-checkpoint"}), ("all_checkpoints", {"checkpoint-1", "checkpoint-2"})],
)
def test_hub_strategies(server, published, strategy, expected):
    data = "me/leaves"
    if strategy == "end":
        command(server, published, "data", "pull", data, "--out", "pulled")
        data = "pulled"
    command(
        server,
        published,
        *("train", "--model", "me/base", "--dataset", data, "--output_dir", "run", "--use_cpu"),
        *("--max_steps", 2, "--save_steps", 1, "--bootstrap_resamples", 0, "--report_to", "none", "--hub_always_push"),
        *(
            "--push_to_hub",
            "--hub_model_id",
            "me/leaves-sage",
            "--hub_strategy",
            strategy,
            "--hub_private_repo",
            "true",
        ),
    )
    assert server.repo("me/leaves-sage").private
    files = server.files("me/leaves-sage")
    assert {"README.md", "config.json", "model.safetensors", "results.json", "run.json"} <= set(files)
    assert {name.split("/")[0] for name in files if "checkpoint" in name} == expected
    if strategy == "checkpoint":
        # And training goes on from what was pushed.
        done = command(
            server,
            published,
            *("train", "--model", "me/base", "--dataset", "me/leaves", "--output_dir", "again", "--use_cpu", "--json"),
            *("--max_steps", 3, "--save_steps", 1, "--bootstrap_resamples", 0, "--report_to", "none"),
            *("--resume_from_checkpoint", "me/leaves-sage"),
        )
        assert json.loads(done.stdout)["steps"] == 3
        state = json.loads((published / "again" / "trainer_state.json").read_text())
        assert {path.name for path in (published / "again").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}
        assert state["global_step"] == 3
