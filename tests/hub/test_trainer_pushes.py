"""Pushes of the Trainer, while it trains and after, against the Hub server of these tests."""

import time
from concurrent.futures import Future
from threading import Event

import pytest
from huggingface_hub import CommitInfo
from transformers import TrainerCallback

from sage_hf import SageTrainer
from sage_hf.errors import PushError
from tests.conftest import make_args, make_dataset, make_model
from tests.hub.accounts import WRITE_TOKEN
from tests.hub.client import client, endpoint, online
from tests.hub.server import Hub

REPO = "me/leaves-sage"


@pytest.fixture
def server(tmp_path, monkeypatch):
    with Hub(tmp_path / "hub") as server, online(), endpoint(server):
        monkeypatch.setattr("sage_hf.hub.attempts.WAITS", (0.0, 0.0))
        yield server


@pytest.fixture
def make_run(tmp_path, processor):
    def make(name="run", model="vit", callbacks=(), **settings):
        settings = {"hub_model_id": REPO, "hub_token": WRITE_TOKEN} | settings
        args = make_args(tmp_path / name, **{"max_steps": 2, "save_steps": 1, **settings})
        model = make_model(model) if isinstance(model, str) else model
        data = {"train_dataset": make_dataset(8), "eval_dataset": make_dataset(4)}
        return SageTrainer(model, args, **data, processing_class=processor, callbacks=[*callbacks])

    return make


class AtSave(TrainerCallback):
    """Does something once, after the checkpoint of a step was pushed."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


@pytest.fixture
def warnings_of(monkeypatch):
    """What the trainer warns of: transformers' loggers don't reach pytest's."""
    said = []
    monkeypatch.setattr("sage_hf.publishing.logger.warning", lambda text, *args: said.append(text % args))
    return said


@pytest.mark.parametrize("strategy", ["end", "every_save", "checkpoint", "all_checkpoints"])
def test_nothing_pushed_holds_the_token_or_a_local_path(server, make_run, tmp_path, strategy):
    trainer = make_run(
        push_to_hub=True,
        hub_strategy=strategy,
        hub_always_push=True,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
    )
    trainer.train()
    trainer.save_model(_internal_call=True)
    trainer.save_state()
    trainer.create_model_card(metrics={"test": {"accuracy": 0.875}}, dataset="me/leaves")
    trainer.push_to_hub()
    titles = [commit.title for commit in client(server).list_repo_commits(REPO)][::-1]
    progress = [f"Training in progress, step {step}" for step in (1, 2)]
    ends = {"end": (), "every_save": ("",)}.get(strategy, ("", ", checkpoint"))
    expected = [title + end for title in progress for end in ends]
    assert [title for title in titles if title.startswith("Training")] == expected
    assert titles[-1] == "End of training"
    for path, content in server.pushed():
        assert not path.endswith("training_args.bin")
        assert WRITE_TOKEN.encode() not in content, path
        assert str(tmp_path).encode() not in content, path
    files = server.files(REPO)
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"} < set(files)
    card = server.read(REPO, "README.md").decode()
    assert "| test | 0.8750 |" in card
    assert "me/leaves" in card


def edit_card(server, *replaced):
    def edit():
        text = server.read(REPO, "README.md").decode()
        assert replaced[0] in text
        client(server).upload_file(
            repo_id=REPO, path_or_fileobj=text.replace(*replaced).encode(), path_in_repo="README.md"
        )

    return edit


def test_what_people_write_on_the_hub_during_training_stays(server, make_run):
    def edit():
        trainer._finish_current_push()
        edit_card(server, "## Results", "## Who to ask\n\nMe.\n\n## Results")()

    strategy = {"push_to_hub": True, "hub_strategy": "every_save", "hub_always_push": True, "logging_steps": 1}
    trainer = make_run(callbacks=[AtSave(1, edit)], **strategy)
    trainer.train()
    card = server.read(REPO, "README.md").decode()
    assert "Who to ask" in card
    assert "\n| **2** |" in card  # written anew all the same: the log has the second step
    trainer.push_to_hub()
    assert "Who to ask" in server.read(REPO, "README.md").decode()


def test_a_push_that_fails_during_training_is_reported_and_training_goes_on(server, make_run, warnings_of):
    fault = server.faults.add("POST", "/commit/", times=None, status=503)
    trainer = make_run(push_to_hub=True, hub_strategy="checkpoint", hub_always_push=True)
    assert trainer.train().global_step == 2
    assert fault.fired == 12  # four pushes, three attempts each
    assert len(warnings_of) == 1
    assert "4 of 4 pushes during training failed" in warnings_of[0]
    assert "did not arrive (status 503)" in warnings_of[0]
    assert f"sage-hf push {trainer.args.output_dir} {REPO}" in warnings_of[0]
    server.faults.clear()
    trainer.push_to_hub()
    assert len(warnings_of) == 1
    assert "model.safetensors" in server.files(REPO)


def test_a_lost_answer_during_training_is_mended_without_a_word(server, make_run, warnings_of):
    server.faults.add("POST", "/commit/", lose=True)
    make_run(push_to_hub=True, hub_strategy="every_save", hub_always_push=True).train()
    assert not warnings_of
    titles = [commit.title for commit in client(server).list_repo_commits(REPO)]
    assert titles.count("Training in progress, step 1") == 1


def test_the_last_checkpoint_on_the_hub_holds_nothing_of_an_earlier_one(server, make_run):
    def leave():
        trainer._finish_current_push()
        client(server).upload_file(repo_id=REPO, path_or_fileobj=b"x", path_in_repo="last-checkpoint/rng_state_1.pth")

    strategy = {"push_to_hub": True, "hub_strategy": "checkpoint", "hub_always_push": True}
    trainer = make_run(callbacks=[AtSave(1, leave)], **strategy)
    trainer.train()
    files = {name for name in server.files(REPO) if name.startswith("last-checkpoint/")}
    assert "last-checkpoint/rng_state.pth" in files
    assert "last-checkpoint/rng_state_1.pth" not in files


def test_a_checkpoint_stays_while_it_is_uploaded(server, make_run, tmp_path, monkeypatch):
    done, uploaded = Event(), []

    def slow(folder, *args, **kwargs):
        assert done.wait(60)
        uploaded.append((folder.name, sorted(path.name for path in folder.iterdir())))

    monkeypatch.setattr("sage_hf.publishing.send_checkpoint", slow)
    strategy = {"push_to_hub": True, "hub_strategy": "checkpoint", "save_total_limit": 1, "max_steps": 3}
    make_run(callbacks=[AtSave(3, done.set)], **strategy).train()
    ((name, files),) = uploaded
    assert name == "checkpoint-1"
    assert {"model.safetensors", "optimizer.pt", "trainer_state.json"} <= set(files)
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-2")] == []


def test_the_last_checkpoint_is_not_removed_before_it_is_uploaded(server, make_run, monkeypatch):
    uploaded = []

    def slow(folder, *args, **kwargs):
        time.sleep(1)
        uploaded.append((folder.name, folder.is_dir() and (folder / "model.safetensors").is_file()))

    monkeypatch.setattr("sage_hf.publishing.send_checkpoint", slow)
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    more = {"eval_strategy": "steps", "eval_steps": 1, "save_total_limit": 1, "learning_rate": 1e-2, "max_steps": 4}
    trainer = make_run(push_to_hub=True, hub_strategy="checkpoint", hub_always_push=True, **best, **more)
    trainer.train()
    assert trainer.state.best_global_step < 4
    assert uploaded[-1] == ("checkpoint-4", True)


def test_what_split_models_resume_from_is_not_published(server, make_run):
    def save_more(folder):
        plain(folder)
        for name in ("pytorch_model_fsdp.bin", "latest", "zero_to_fp32.py"):
            (folder / name).write_bytes(b"x")

    trainer = make_run(push_to_hub=True, hub_strategy="every_save", hub_always_push=True)
    plain, trainer._save_more = trainer._save_more, save_more
    trainer.train()
    trainer.push_to_hub()
    assert {"model.safetensors", "config.json"} <= server.files(REPO).keys()
    assert not {name for name in server.files(REPO) if name.startswith(("pytorch_model", "latest", "zero_"))}


def test_a_card_pushed_during_training_says_what_was_given_before(server, make_run):
    trainer = make_run(push_to_hub=True, hub_strategy="every_save", hub_always_push=True)
    trainer.keep_for_card(dataset="me/leaves", license="mit", annotation=None)
    trainer.train()
    card = server.read(REPO, "README.md").decode()
    assert "license: mit" in card
    assert "- me/leaves\n" in card


def test_push_to_hub_checks_merges_and_tries_again(server, make_run, tmp_path):
    trainer = make_run(save_strategy="no")
    trainer.train()
    trainer.push_to_hub(metrics={"test": {"accuracy": 0.5}})
    edit_card(server, "0.5000", "one half")()
    server.faults.add("POST", "/commit/", status=503)
    done = trainer.push_to_hub("Second", metrics={"test": {"accuracy": 0.75}}, tags="leaves")
    assert isinstance(done, CommitInfo)
    assert done.commit_message == "Second"
    card = server.read(REPO, "README.md").decode()
    assert "one half" in card
    assert "- leaves\n" in card
    assert f'"{REPO}"' in card

    later = trainer.push_to_hub("Third", blocking=False, revision="next", metrics={"test": {"accuracy": 0.25}})
    assert isinstance(later, Future)
    assert isinstance(later.result(), CommitInfo)
    assert "next" in {ref.name for ref in client(server).list_repo_refs(REPO).branches}

    (tmp_path / "run" / "notes.pkl").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"notes\.pkl is a pickle"):
        trainer.push_to_hub()
    (tmp_path / "run" / "notes.pkl").unlink()
    server.faults.add("POST", "/commit/", times=None, status=503)
    (tmp_path / "run" / "note.txt").write_text("x")
    with pytest.raises(PushError, match="did not arrive"):
        trainer.push_to_hub()


def test_push_to_hub_of_a_run_that_named_no_repository(server, make_run):
    trainer = make_run(hub_model_id=None, hub_private_repo=True, save_strategy="no", max_steps=1)
    trainer.model.add_model_tags("own")
    trainer.train()
    trainer.push_to_hub()
    assert trainer.hub_model_id == "me/run"
    assert server.repo("me/run").private
    card = server.read("me/run", "README.md").decode()
    assert "# run\n" in card
    assert "- own\n" in card
    assert '"me/run"' in card
