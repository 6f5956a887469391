"""`sage-hf push` against the Hub server of these tests, with the real client."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, snapshot_download
from transformers import AutoModelForImageClassification

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.errors import PushError
from sage_hf.hub import RunRecord, write_model_card
from sage_hf.hub.push import published_files, push_run
from tests.conftest import make_dataset, make_model
from tests.hub.accounts import EXPIRED_TOKEN, READ_TOKEN, STRANGER_TOKEN, WRITE_TOKEN
from tests.hub.client import client, environment, online
from tests.hub.server import Hub

REPO = "me/leaves-sage"


@pytest.fixture
def server(tmp_path):
    with Hub(tmp_path / "hub") as server, online():
        yield server


@pytest.fixture
def folder(tmp_path, processor):
    """A run of two steps, with a card and checkpoints."""
    args = SageTrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=2,
        save_steps=1,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        hub_token="hf_" + "secret" * 6,
    )
    trainer = SageTrainer(make_model("vit"), args, train_dataset=make_dataset(8), processing_class=processor)
    trainer.train()
    trainer.save_model(_internal_call=True)
    trainer.save_state()
    trainer.create_model_card(metrics={"test": {"accuracy": 0.5}}, dataset="me/leaves")
    return tmp_path / "run"


def push(folder, server, token=WRITE_TOKEN, **kwargs):
    waits = []
    pushed = push_run(folder, REPO, api=client(server, token), wait=waits.append, **kwargs)
    return pushed, waits


def card_of(server, revision="main"):
    return server.read(REPO, "README.md", revision=revision).decode()


def test_a_run_is_published_with_a_card_for_its_repository(server, folder, tmp_path):
    left_behind = (
        "emissions.csv",
        "trainer_progress.json",
        "logs/events.out.tfevents.1.host",
        "run-0/checkpoint-1/model.safetensors",
    )
    for name in left_behind:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    pushed, waits = push(folder, server)
    assert waits == []
    files = set(server.files(REPO))
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "run.json"} <= files
    assert ".eval_results/me_leaves_test.yaml" in files
    assert not [name for name in files if "checkpoint-" in name or "optimizer" in name]
    assert not set(left_behind) & files
    assert not [name for name in files if name.startswith("_")]
    assert f'pipeline("image-classification", "{REPO}")' in card_of(server)
    assert pushed.url == f"{server.endpoint}/{REPO}"
    assert not server.repo(REPO).private
    local = snapshot_download(REPO, endpoint=server.endpoint, token=WRITE_TOKEN, cache_dir=tmp_path / "cache")
    AutoModelForImageClassification.from_pretrained(local)


def test_nothing_secret_or_local_leaves(server, folder, tmp_path):
    push(folder, server)
    assert server.pushed()
    for path, content in server.pushed():
        for secret in (b"hf_secret", str(tmp_path).encode(), WRITE_TOKEN.encode()):
            assert secret not in content, path


def test_a_repeated_push_makes_no_second_commit(server, folder):
    first, _ = push(folder, server)
    commits = len(server.repo(REPO).commits)
    second, _ = push(folder, server)
    assert len(server.repo(REPO).commits) == commits
    assert second.commit == first.commit


def test_edits_on_the_hub_and_here_survive(server, folder):
    push(folder, server)
    edited = card_of(server).replace("## Results", "## Who to ask\n\nMe.\n\n## Results").replace("0.5000", "one half")
    client(server).upload_file(repo_id=REPO, path_or_fileobj=edited.encode(), path_in_repo="README.md")
    push(folder, server)
    assert "Who to ask" in card_of(server)
    assert "one half" in card_of(server)
    assert "Who to ask" in (folder / "README.md").read_text()

    # What is added, changed or taken back here counts as long as nobody touched the card there.
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nCall 555.\n")
    push(folder, server)
    assert "Call 555." in card_of(server)
    card.write_text(card.read_text().replace("Call 555.", "Call 556."))
    push(folder, server)
    assert "Call 556." in card_of(server)
    card.write_text(card.read_text().replace("\nCall 556.\n", ""))
    push(folder, server)
    assert "Call" not in card_of(server)

    edited = card_of(server) + "\nFrom there.\n"
    client(server).upload_file(repo_id=REPO, path_or_fileobj=edited.encode(), path_in_repo="README.md")
    card.write_text(card.read_text() + "\nFrom here.\n")
    with pytest.raises(ValueError, match=r"README.md was edited both in .* and on the Hub"):
        push(folder, server)


def test_a_card_that_can_not_be_read_is_not_taken_for_none(server, folder):
    push(folder, server)
    edited = card_of(server).replace("0.5000", "one half")
    client(server).upload_file(repo_id=REPO, path_or_fileobj=edited.encode(), path_in_repo="README.md")
    server.faults.add("HEAD", "README.md", times=100, status=503)
    with pytest.raises(PushError, match="did not arrive"):
        push(folder, server)
    assert card_of(server) == edited
    server.faults.clear()
    push(folder, server)
    assert "one half" in card_of(server)


def test_the_licence_of_a_repository_made_on_the_website_stays(server, folder):
    client(server).create_repo(REPO)
    client(server).upload_file(
        repo_id=REPO,
        path_or_fileobj=b"---\nlicense: mit\nlanguage: 'no'\nversion: 1.10\n---\n",
        path_in_repo="README.md",
    )
    push(folder, server)
    card = card_of(server)
    assert "license: mit" in card
    assert "language: 'no'" in card
    assert "version: '1.10'" in card
    assert "## Results" in card


def test_what_an_earlier_push_left_goes(server, folder):
    push(folder, server)
    client(server).upload_file(repo_id=REPO, path_or_fileobj=b"x" * 9, path_in_repo="model-00001-of-00002.safetensors")
    record = RunRecord.load(folder)
    record.dataset, record.metrics = "me/others", {"test": {"accuracy": 0.75}}
    write_model_card(folder, record)
    push(folder, server)
    files = server.files(REPO)
    assert ".eval_results/me_others_test.yaml" in files
    assert ".eval_results/me_leaves_test.yaml" not in files
    assert "model-00001-of-00002.safetensors" not in files
    assert "model.safetensors" in files
    assert "- me/leaves\n" not in card_of(server)


def test_names_with_brackets_are_pushed(server, folder):
    (folder / "view[1].png").write_bytes(b"picture")
    push(folder, server)
    assert "view[1].png" in server.files(REPO)


def test_private_branches_and_pull_requests(server, folder):
    push(folder, server, private=True)
    assert server.repo(REPO).private
    push(folder, server, revision="next")
    assert "next" in {ref.name for ref in client(server).list_repo_refs(REPO).branches}
    (folder / "results.json").write_text("{}")
    pushed, _ = push(folder, server, create_pr=True)
    assert "results.json" in server.files(REPO, revision=f"refs/pr/{pushed.pull_request}")
    assert "results.json" not in server.files(REPO)


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429, "headers": {"Retry-After": "7"}}, {"lose": True}])
def test_a_commit_that_fails_is_sent_again_and_made_once(server, folder, fault):
    server.faults.add("POST", "/commit/", **fault)
    _, waits = push(folder, server)
    assert waits == [7.0 if fault.get("status") == 429 else 1.0]
    messages = [commit.title for commit in client(server).list_repo_commits(REPO)]
    assert sum(message.startswith("Upload run") for message in messages) == 1


def test_a_hub_that_is_down_loses_nothing_and_the_push_can_be_repeated(server, folder):
    fault = server.faults.add("POST", "/commit/", times=100, status=503)
    with pytest.raises(PushError, match=r"did not arrive \(status 503\).*Repeat the push"):
        push(folder, server)
    assert fault.fired == 5
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    server.faults.clear()
    puts = len(server.requests("PUT", "/storage/"))
    push(folder, server)
    assert len(server.requests("PUT", "/storage/")) == puts  # the weights had arrived
    assert {path: path.read_bytes() for path in before} == before
    assert "model.safetensors" in server.files(REPO)


def test_a_cut_upload_and_a_restart_of_the_server_are_survived(server, folder):
    server.faults.add("PUT", "/storage/", cut=1000, hook=lambda: server.restart(0.2))
    push(folder, server)
    assert server.read(REPO, "model.safetensors", revision="main") == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"path": "/storage/", "method": "PUT", "status": 507}, "The Hub has no space"),
        ({"path": "/commit/", "method": "POST", "status": 413}, "The Hub has no space"),
    ],
)
def test_no_space_is_said_at_once(server, folder, fault, message):
    fault = dict(fault)
    server.faults.add(fault.pop("method"), fault.pop("path"), times=100, **fault)
    with pytest.raises(PushError, match=message):
        push(folder, server)


@pytest.mark.parametrize(
    ("token", "message"), [(EXPIRED_TOKEN, "does not know you: log in"), (READ_TOKEN, "token may not write")]
)
def test_tokens_that_do_not_do(server, folder, token, message):
    client(server).create_repo(REPO)
    done = run_cli([folder, REPO], server, folder.parent, token)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_token_that_expires_in_the_middle(server, folder):
    server.faults.add("PUT", "/storage/", hook=lambda: server.accounts.expire(WRITE_TOKEN), delay=0)
    with pytest.raises(PushError, match="does not know you: log in"):
        push(folder, server)


def run_cli(arguments, server, work, token=WRITE_TOKEN):
    command = [sys.executable, "-m", "sage_hf", "push", *map(str, arguments)]
    outer = environment(server, work / "home", token)
    return subprocess.run(command, env=outer, capture_output=True, text=True, timeout=300, check=False)


def test_the_command_in_a_process_of_its_own(server, folder, tmp_path):
    done = run_cli([folder, REPO, "--private", "--json"], server, tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["url"] == f"{server.endpoint}/{REPO}"
    file = hf_hub_download(REPO, "run.json", endpoint=server.endpoint, token=WRITE_TOKEN, cache_dir=tmp_path / "cache")
    assert json.loads(Path(file).read_text())["repo_id"] == REPO
    offline = environment(server, tmp_path / "home") | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "sage_hf", "push", str(folder), REPO],
        env=offline,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert "offline" in done.stderr.lower()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("training_args.bin", b"x", "training_args.bin is a pickle"),
        ("model.PTH", b"x", "model.PTH is a pickle"),
        ("notes.md", b"token hf_" + b"a" * 34, "notes.md holds a Hub token"),
        ("train.log", b"token hf_" + b"a" * 34, "train.log holds a Hub token"),
        ("cwd.json", f'"{os.path.expanduser("~")}"'.encode(), "cwd.json names your home folder"),
        ("adapter_config.json", b'{"base_model_name_or_path": "/data/base"}', "names the local base model /data/base"),
        ("notes.json", f'"{os.path.expanduser("~")}/data"'.encode(), "notes.json names your home folder"),
    ],
)
def test_what_should_not_be_published_is_refused(server, folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        push(folder, server)
    assert not server.records


def test_a_folder_without_a_checkpoint_is_refused(server, tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint"):
        push(tmp_path, server)


def test_a_pull_request_whose_answer_is_lost_is_not_opened_again(server, folder):
    client(server).create_repo(REPO)
    title = f"Upload {folder.name}"
    earlier = client(server).create_pull_request(REPO, title=title).num
    stranger = client(server, STRANGER_TOKEN)
    fault = server.faults.add(
        "POST", "/discussions$", lose=True, hook=lambda: stranger.create_pull_request(REPO, title=title)
    )
    pushed, waits = push(folder, server, create_pr=True)
    assert (fault.fired, waits) == (1, [1.0])
    ours = [one for one in client(server).get_repo_discussions(REPO, author="me") if one.title == title]
    assert sorted(one.num for one in ours) == sorted([earlier, pushed.pull_request])
    assert pushed.pull_request != earlier
    assert "model.safetensors" in server.files(REPO, revision=f"refs/pr/{pushed.pull_request}")


def test_a_pull_request_that_was_not_opened_is_asked_for_again(server, folder):
    server.faults.add("POST", "/discussions$", status=503)
    pushed, waits = push(folder, server, create_pr=True)
    assert waits == [1.0]
    assert [one.num for one in client(server).get_repo_discussions(REPO)] == [pushed.pull_request]


def test_folders_where_checkpoints_come_and_go_are_not_looked_into(tmp_path, monkeypatch):
    for name in ("model.safetensors", ".saving/checkpoint-2/model.safetensors", "checkpoint-1/model.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "test.yaml").write_text("")
    looked_into, scan = [], os.scandir

    def scandir(path):
        looked_into.append(Path(path).name)
        return scan(path)

    monkeypatch.setattr("os.scandir", scandir)
    found = [path.relative_to(tmp_path).as_posix() for path in published_files(tmp_path)]
    assert sorted(found) == [".eval_results/test.yaml", "model.safetensors"]
    assert looked_into == [tmp_path.name, ".eval_results"]
