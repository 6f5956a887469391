"""Training that goes on from a checkpoint on the Hub server of these tests."""

import json
import shutil

import pytest
import torch
from transformers import TrainerCallback

from sage_hf import SageTrainer
from sage_hf.errors import PushError
from tests.conftest import CLASSES, make_args, make_dataset, make_model
from tests.hub.accounts import STRANGER_TOKEN, WRITE_TOKEN
from tests.hub.client import client, endpoint, online
from tests.hub.server import Hub

REPO = "me/run"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with Hub(tmp_path_factory.mktemp("hub")) as server, online(), endpoint(server):
        yield server


@pytest.fixture
def server(hub, monkeypatch):
    monkeypatch.setattr("sage_hf.hub.attempts.WAITS", (0.0, 0.0))
    yield hub
    hub.faults.clear()


class StopAt(TrainerCallback):
    """The end of the machine's time."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def make_trainer(folder, processor, stop=None, model="vit", **settings):
    settings = {"max_steps": 6, "save_steps": 1, "horizontal_flip": 0.5, "hub_token": WRITE_TOKEN} | settings
    callbacks = [] if stop is None else [StopAt(stop)]
    data = {"train_dataset": make_dataset(12, annotated=9), "eval_dataset": make_dataset(4)}
    model = make_model(model) if isinstance(model, str) else model
    return SageTrainer(model, make_args(folder, **settings), **data, processing_class=processor, callbacks=callbacks)


def same_weights(one, other):
    assert one.state_dict().keys() == other.state_dict().keys()
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.fixture(scope="module")
def processor():
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": 32, "width": 32})


@pytest.fixture(scope="module")
def whole(tmp_path_factory, processor):
    """A run that nothing interrupted."""
    trainer = make_trainer(tmp_path_factory.mktemp("whole"), processor, save_strategy="no")
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def published(hub, tmp_path_factory, processor):
    """A run that stopped after the fourth of six steps: the last checkpoint, and all of them, on branches too."""
    for repo, strategy in ((REPO, "checkpoint"), ("me/all", "all_checkpoints")):
        trainer = make_trainer(
            tmp_path_factory.mktemp("part"),
            processor,
            stop=4,
            save_steps=2,
            push_to_hub=True,
            hub_model_id=repo,
            hub_strategy=strategy,
            hub_always_push=True,
            hub_private_repo=repo == "me/all",
            eval_strategy="steps",
            eval_steps=2,
            load_best_model_at_end=True,
        )
        trainer.train()
        shutil.rmtree(trainer.args.output_dir)
        client(hub).create_tag(repo, tag="stopped")
    assert {name.split("/")[0] for name in hub.files(REPO) if "checkpoint" in name} == {"last-checkpoint"}
    return hub


@pytest.mark.parametrize(
    ("address", "step"),
    [
        ("me/run", 4),
        ("me/run@stopped", 4),
        ("me/run/last-checkpoint", 4),
        ("me/all", 4),
        ("me/all/checkpoint-2", 2),
        ("me/all/checkpoint-2@stopped", 2),
    ],
)
def test_a_run_resumed_from_the_hub_ends_where_the_uninterrupted_one_does(
    server, published, whole, processor, tmp_path, address, step
):
    resumed = make_trainer(tmp_path / "new", processor)
    output = resumed.train(resume_from_checkpoint=address)
    assert output.global_step == 6
    saved = sorted(path.name for path in (tmp_path / "new").glob("checkpoint-*"))
    assert saved == [f"checkpoint-{number}" for number in range(step, 7, 2)]
    assert same_weights(resumed.model, whole.model)
    assert not any(path.name.startswith("_fetched") for path in (tmp_path / "new").iterdir())


def test_the_latest_of_both_kinds_is_taken(server, published, processor, tmp_path):
    api = client(server)
    for repo, source in (("me/old-last", "me/all"), ("me/new-last", "me/run")):
        api.create_repo(repo)
        folder = api.snapshot_download(source, cache_dir=tmp_path / "cache")
        api.upload_folder(repo_id=repo, folder_path=folder)
    four = api.snapshot_download("me/all", cache_dir=tmp_path / "cache")
    api.upload_folder(repo_id="me/old-last", folder_path=f"{four}/checkpoint-2", path_in_repo="last-checkpoint")
    api.upload_folder(repo_id="me/new-last", folder_path=f"{four}/checkpoint-2", path_in_repo="checkpoint-2")
    for repo in ("me/old-last", "me/new-last"):
        trainer = make_trainer(tmp_path / repo, processor, save_strategy="no", max_steps=5)
        trainer.train(resume_from_checkpoint=repo)
        assert [path.name for path in (tmp_path / repo).glob("checkpoint-*")] == ["checkpoint-4"]


def test_no_pickle_but_the_states_is_downloaded(server, published, processor, tmp_path):
    api = client(server)
    for name in ("training_args.bin", "pytorch_model.bin", "evil.pkl"):
        api.upload_file(repo_id="me/all", path_or_fileobj=b"pickle", path_in_repo=f"checkpoint-4/{name}")
    trainer = make_trainer(tmp_path / "new", processor, save_strategy="no")
    trainer.train(resume_from_checkpoint="me/all")
    files = {path.name for path in (tmp_path / "new" / "checkpoint-4").iterdir()}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= files
    assert not {"training_args.bin", "pytorch_model.bin", "evil.pkl"} & files


class Planted:
    def __reduce__(self):
        return (open, ("planted", "w"))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_state_that_would_run_code_is_refused(server, published, processor, tmp_path, monkeypatch, name):
    import pickle

    monkeypatch.chdir(tmp_path)
    api, repo = client(server), f"me/evil-{name.split('.')[0]}"
    api.create_repo(repo)
    api.upload_folder(repo_id=repo, folder_path=api.snapshot_download("me/run", cache_dir=tmp_path / "cache"))
    torch.save({"state": Planted()}, "evil.pt")
    api.upload_file(repo_id=repo, path_or_fileobj="evil.pt", path_in_repo=f"last-checkpoint/{name}")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        make_trainer(tmp_path / "new", processor).train(resume_from_checkpoint=repo)
    assert not (tmp_path / "planted").exists()


def test_the_best_checkpoint_so_far_comes_along(server, published, processor, tmp_path, monkeypatch):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    settings |= {"learning_rate": 1e-2, "metric_for_best_model": "loss"}
    api = client(server)
    folder = tmp_path / "copy"
    api.snapshot_download("me/all", local_dir=folder)
    state = json.loads((folder / "checkpoint-4" / "trainer_state.json").read_text())
    # As if the second step had been far better than any other.
    state |= {"best_metric": -1.0, "best_global_step": 2, "best_model_checkpoint": "/elsewhere/checkpoint-2"}
    (folder / "checkpoint-4" / "trainer_state.json").write_text(json.dumps(state))
    api.create_repo("me/best")
    api.upload_folder(repo_id="me/best", folder_path=folder, ignore_patterns=[".cache/*"])
    resumed = make_trainer(tmp_path / "new", processor, **settings)
    resumed.train(resume_from_checkpoint="me/best")
    assert resumed.state.best_model_checkpoint == str(tmp_path / "new" / "checkpoint-2")
    best = type(resumed.model).from_pretrained(folder / "checkpoint-2")
    assert same_weights(resumed.model, best)

    # Where it is not there, the best of those that come is kept, and that is said.
    api.delete_folder("checkpoint-2", repo_id="me/best")
    said = []
    monkeypatch.setattr("sage_hf.checkpoints.logger.warning", lambda text, *args: said.append(text % args))
    resumed = make_trainer(tmp_path / "newer", processor, **settings)
    resumed.train(resume_from_checkpoint="me/best")
    assert resumed.state.best_global_step == 6
    assert resumed.state.best_model_checkpoint == str(tmp_path / "newer" / "checkpoint-6")
    assert "checkpoint-2 is not there" in said[0]


def test_a_folder_of_that_name_wins(server, published, processor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    client(server).snapshot_download("me/all", local_dir=tmp_path / "all")
    shutil.copytree(tmp_path / "all" / "checkpoint-2", tmp_path / "me" / "run")
    requests = len(server.records)
    trainer = make_trainer(tmp_path / "new", processor, max_steps=3)
    trainer.train(resume_from_checkpoint="me/run")
    assert len(server.records) == requests
    assert trainer.state.log_history[-1]["step"] == 3
    assert not (tmp_path / "new" / "checkpoint-4").exists()


def test_an_attempt_that_failed_early_may_be_repeated_and_another_run_is_not_overwritten(
    server, published, processor, tmp_path, whole
):
    class FailingError(Exception):
        pass

    class Fail(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            raise FailingError

    first = make_trainer(tmp_path / "new", processor)
    first.add_callback(Fail())
    with pytest.raises(FailingError):
        first.train(resume_from_checkpoint="me/run")
    again = make_trainer(tmp_path / "new", processor)
    again.train(resume_from_checkpoint="me/run")
    assert same_weights(again.model, whole.model)
    with pytest.raises(FileExistsError, match=r"already holds a run \(checkpoint-4, checkpoint-6"):
        make_trainer(tmp_path / "new", processor).train(resume_from_checkpoint="me/run")
    other = tmp_path / "other" / "checkpoint-4"
    other.mkdir(parents=True)
    (other / "trainer_state.json").write_text("{}")
    with pytest.raises(FileExistsError, match="holds another checkpoint"):
        make_trainer(tmp_path / "other", processor).train(resume_from_checkpoint="me/run")
    assert [path.name for path in other.iterdir()] == ["trainer_state.json"]


@pytest.mark.parametrize(
    ("address", "token", "message"),
    [
        ("me/nothing", WRITE_TOKEN, r"no such folder here, and no repository me/nothing on the Hub that you may read"),
        ("me/all", STRANGER_TOKEN, "If it is private, log in"),
        ("me/all", None, "If it is private, log in"),
        ("me/run@nowhere", WRITE_TOKEN, "me/run has no revision 'nowhere'"),
        ("me/run/checkpoint-2", WRITE_TOKEN, r"\(it has last-checkpoint\)"),
        ("me/plain", WRITE_TOKEN, r"none at all.*hub_strategy='checkpoint'.*give me/plain as the model"),
        ("me/slim", WRITE_TOKEN, r"checkpoint-1 of me/slim lacks optimizer.pt, scheduler.pt, model.safetensors"),
    ],
)
def test_what_can_not_be_resumed_from_is_said(server, published, processor, tmp_path, address, token, message):
    api = client(server)
    api.create_repo("me/plain", exist_ok=True)
    api.create_repo("me/slim", exist_ok=True)
    for repo, name in (("me/plain", "model.safetensors"), ("me/slim", "checkpoint-1/trainer_state.json")):
        api.upload_file(repo_id=repo, path_or_fileobj=b"{}", path_in_repo=name)
    trainer = make_trainer(tmp_path / "new", processor, hub_token=token)
    with pytest.raises(ValueError, match=message):
        trainer.train(resume_from_checkpoint=address)
    assert not list((tmp_path / "new").glob("*"))


@pytest.mark.parametrize(
    ("kind", "classes"), [("convnext", CLASSES), ("vit", ["healthy", "rust", "other"]), ("wide", CLASSES)]
)
def test_a_checkpoint_of_another_model_is_refused(server, published, processor, tmp_path, kind, classes):
    model = make_model("vit" if kind == "wide" else kind)
    if kind == "wide":
        model = type(model)(type(model.config)(**model.config.to_dict() | {"hidden_size": 32}))
    trainer = make_trainer(tmp_path / "new", processor, model=model)
    trainer.model_config.id2label = dict(enumerate(["healthy", "rust", "other"] if kind == "vit" else CLASSES))
    message = {"convnext": "model_type vit, here convnext", "wide": "hidden_size 16, here 32"}
    expected = message.get(kind, "id2label healthy, rust, miner, here healthy, rust, other")
    with pytest.raises(ValueError, match=f"checkpoint of another model: .*{expected}"):
        trainer.train(resume_from_checkpoint="me/run")
    assert not list((tmp_path / "new").glob("*"))


def test_a_hub_that_can_not_be_reached(server, published, processor, tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path / "new", processor)
    server.faults.add("GET", "/api/models/me/run", times=None, status=503)
    with pytest.raises(PushError, match=r"me/run could not be read from the Hub \(status 503\)"):
        trainer.train(resume_from_checkpoint="me/run")
    server.faults.clear()
    server.faults.add("GET", "/api/models/me/run", status=503)
    assert trainer.train(resume_from_checkpoint="me/run").global_step == 6
