"""Adapters whose base model lies here: pushed under the name that it has on the Hub, or not at all."""

import json

import pytest
from huggingface_hub import snapshot_download

from sage_hf.hub.push import push_run
from tests.conftest import make_model
from tests.hub.accounts import WRITE_TOKEN
from tests.hub.client import client, online
from tests.hub.server import Hub

REPO = "me/adapter"


@pytest.fixture
def server(tmp_path):
    with Hub(tmp_path / "hub") as server, online():
        yield server


@pytest.fixture
def base(server, tmp_path):
    """A model here that is on the Hub too, as `me/base`."""
    make_model("vit").save_pretrained(tmp_path / "base")
    client(server).create_repo("me/base")
    client(server).upload_folder(repo_id="me/base", folder_path=tmp_path / "base")
    return tmp_path / "base"


def make_adapter(folder, base, base_model=None):
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), "r": 4}))
    if base_model is not None:
        record = {"model_name": "adapter", "loading": "adapter", "problem_type": "single_label_classification"}
        record |= {"classes": ["a"], "sage": {"guidance": "none"}, "hyperparameters": {}, "world_size": 1}
        record |= {"versions": {}, "hardware": "CPU", "base_model": base_model}
        (folder / "run.json").write_text(json.dumps(record))
    return folder


def push(folder, server):
    return push_run(folder, REPO, api=client(server), wait=lambda seconds: None)


def pushed_base(server):
    config = json.loads(server.read(REPO, "adapter_config.json"))
    assert config["r"] == 4
    return config["base_model_name_or_path"], config["revision"]


def test_a_base_model_of_the_cache_is_named_by_its_id(server, base, tmp_path):
    commit = server.repo("me/base").find("main")
    cached = snapshot_download("me/base", endpoint=server.endpoint, token=WRITE_TOKEN, cache_dir=tmp_path / "cache")
    push(make_adapter(tmp_path / "run", cached), server)
    assert pushed_base(server) == ("me/base", commit)


@pytest.mark.parametrize("known_by", ["record", "config"])
def test_a_copy_is_named_by_the_id_that_is_known_of_it(server, base, tmp_path, known_by):
    if known_by == "config":
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(config | {"_name_or_path": "me/base"}))
    push(make_adapter(tmp_path / "run", base, "me/base" if known_by == "record" else None), server)
    assert pushed_base(server) == ("me/base", server.repo("me/base").find("main"))


@pytest.mark.parametrize("base_model", ["me/other", "me/missing", None])
def test_another_or_an_unknown_base_model_is_refused(server, base, tmp_path, base_model):
    other = make_model("vit")
    other.classifier.weight.data += 1
    other.save_pretrained(tmp_path / "other")
    client(server).create_repo("me/other")
    client(server).upload_folder(repo_id="me/other", folder_path=tmp_path / "other")
    folder = make_adapter(tmp_path / "run", base, base_model)
    before = (folder / "adapter_config.json").read_bytes()
    said = f"{base_model} on the Hub has other weights, or none" if base_model else "Publish that first"
    with pytest.raises(ValueError, match=rf"names the local base model {base}\..*{said}"):
        push(folder, server)
    assert (folder / "adapter_config.json").read_bytes() == before
    assert server.storage.get("models", REPO) is None
