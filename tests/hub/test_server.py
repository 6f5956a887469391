"""The real client of the Hub against the server that the other tests push to: all that it can do, on a good day."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    get_session,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub.accounts import EXPIRED_TOKEN, READ_TOKEN, STRANGER_TOKEN, WRITE_TOKEN
from tests.hub.client import client, online, run_script
from tests.hub.server import Hub

WEIGHTS = np.random.default_rng(0).bytes(300_000)
REPO = "me/tiny"


@pytest.fixture
def server(tmp_path):
    with Hub(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def api(server):
    with online():
        yield client(server)


@pytest.fixture
def repo(api):
    return api.create_repo(REPO).repo_id


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def download(server, path, cache, **kwargs):
    file = hf_hub_download(REPO, path, endpoint=server.endpoint, cache_dir=cache, token=WRITE_TOKEN, **kwargs)
    return Path(file).read_bytes()


def refused(status):
    return pytest.raises(HfHubHTTPError, check=lambda error: error.response.status_code == status)


def test_whoami(server, api):
    assert api.whoami()["name"] == "me"
    assert client(server, READ_TOKEN).whoami()["auth"]["accessToken"]["role"] == "read"
    for token in (EXPIRED_TOKEN, "hf_unknown"):
        with refused(401):
            client(server, token).whoami()


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_repositories(server, api, kind):
    extra = {"space_sdk": "static"} if kind == "space" else {}
    url = api.create_repo("me/new", repo_type=kind, private=True, **extra)
    prefix = "" if kind == "model" else f"{kind}s/"
    assert str(url) == f"{server.endpoint}/{prefix}me/new"
    assert (url.repo_id, url.repo_type) == ("me/new", kind)
    with refused(409):
        api.create_repo("me/new", repo_type=kind, **extra)
    assert api.create_repo("new", repo_type=kind, exist_ok=True, **extra).repo_id == "me/new"
    info = api.repo_info("me/new", repo_type=kind)
    assert info.private
    assert [sibling.rfilename for sibling in info.siblings] == [".gitattributes"]
    api.update_repo_settings("me/new", repo_type=kind, private=False)
    assert not api.repo_info("me/new", repo_type=kind).private
    api.delete_repo("me/new", repo_type=kind)
    assert not api.repo_exists("me/new", repo_type=kind)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("me/new", repo_type=kind)


def test_bytes_arrive_as_sent_regular_and_lfs(server, api, repo, tmp_path):
    folder = tmp_path / "folder"
    sent = {
        "config.json": b'{"a": 1}',
        "model.safetensors": WEIGHTS,
        "runs/deep/log.txt": b"",
        "big.txt": b"x" * 10**7,
    }
    for name, content in sent.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="all of it")
    files = server.files(repo)
    assert {name: file.sha256 for name, file in files.items() if name in sent} == {
        name: sha256(content) for name, content in sent.items()
    }
    assert {name for name, file in files.items() if file.lfs} == {"model.safetensors", "big.txt"}
    assert commit.oid == api.repo_info(repo).sha == server.repo(repo).find("main")
    assert len(server.requests("PUT", "/storage/")) == 2
    got = Path(snapshot_download(repo, endpoint=server.endpoint, cache_dir=tmp_path / "cache", token=WRITE_TOKEN))
    assert {name: (got / name).read_bytes() for name in sent} == sent
    assert got.name == commit.oid

    # What the server has, the client doesn't send again.
    count = len(server.requests("PUT", "/storage/"))
    again = api.upload_folder(repo_id=repo, folder_path=folder)
    assert again.oid == commit.oid
    api.upload_file(repo_id=repo, path_or_fileobj=WEIGHTS, path_in_repo="other.safetensors")
    assert len(server.requests("PUT", "/storage/")) == count


def test_listing(api, repo):
    for path in ("a.txt", "b/c.txt", "b/d/e.bin"):
        api.upload_file(repo_id=repo, path_or_fileobj=path.encode(), path_in_repo=path)
    assert api.list_repo_files(repo) == [".gitattributes", "a.txt", "b/c.txt", "b/d/e.bin"]
    tree = {entry.path: entry for entry in api.list_repo_tree(repo, recursive=True)}
    assert list(tree) == [".gitattributes", "a.txt", "b", "b/c.txt", "b/d", "b/d/e.bin"]
    # git's own name of the text: printf 'a.txt' | git hash-object --stdin
    assert tree["a.txt"].blob_id == "8d14cbf983b3fad683171c9418998d9f68340823"
    assert tree["b/d/e.bin"].lfs.sha256 == sha256(b"b/d/e.bin")
    assert [entry.path for entry in api.list_repo_tree(repo, "b")] == ["b/c.txt", "b/d"]
    assert [entry.path for entry in api.get_paths_info(repo, ["a.txt", "b", "none"])] == ["a.txt", "b"]
    assert api.file_exists(repo, "a.txt")
    assert not api.file_exists(repo, "none")
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "none"))
    with pytest.raises(RevisionNotFoundError):
        api.list_repo_files(repo, revision="none")
    sizes = {entry.rfilename: entry.size for entry in api.model_info(repo, files_metadata=True).siblings}
    assert sizes["b/d/e.bin"] == 9


def test_commits_change_delete_and_copy(server, api, repo, tmp_path):
    old = b"0123456789" * 50
    first = api.create_commit(
        repo,
        [CommitOperationAdd("a.txt", old), CommitOperationAdd("w.bin", WEIGHTS), CommitOperationAdd("d/x", b"x")],
        commit_message="first",
    ).oid
    operations = [
        CommitOperationAdd("a.txt", b"new"),
        CommitOperationCopy("w.bin", "copy.bin"),
        CommitOperationCopy("a.txt", "old.txt", src_revision=first),
        CommitOperationDelete("w.bin"),
        CommitOperationDelete("d/"),
    ]
    second = api.create_commit(repo, operations, commit_message="second", commit_description="why").oid
    assert api.list_repo_files(repo) == [".gitattributes", "a.txt", "copy.bin", "old.txt"]
    assert server.read(repo, "copy.bin") == WEIGHTS
    assert download(server, "a.txt", tmp_path) == b"new"
    assert download(server, "a.txt", tmp_path, revision=first) == old == server.read(repo, "old.txt")
    assert download(server, "w.bin", tmp_path, revision=first) == WEIGHTS
    history = api.list_repo_commits(repo)
    assert [commit.title for commit in history] == ["second", "first", "initial commit"]
    assert [commit.commit_id for commit in history][:2] == [second, first]
    assert history[0].message == "why"
    with pytest.raises(EntryNotFoundError, match=r"w\.bin"):
        api.delete_file("w.bin", repo)
    operation = CommitOperationAdd("never.bin", b"never uploaded")
    operation._upload_mode, operation._is_uploaded = "lfs", True
    with pytest.raises(BadRequestError, match="LFS pointer"):
        api.create_commit(repo, [operation], commit_message="pointer to nothing")


def test_a_commit_onto_another_than_its_parent_is_refused(api, repo):
    parent = api.repo_info(repo).sha
    api.upload_file(repo_id=repo, path_or_fileobj=b"1", path_in_repo="a", parent_commit=parent)
    with refused(412) as caught:
        api.upload_file(repo_id=repo, path_or_fileobj=b"2", path_in_repo="a", parent_commit=parent)
    assert "A commit has happened since" in str(caught.value)
    assert len(api.list_repo_commits(repo)) == 2


@pytest.mark.parametrize("name", ["a.txt", "a.bin"])
def test_ranges_and_headers(server, api, repo, name):
    api.upload_file(repo_id=repo, path_or_fileobj=WEIGHTS[:1000], path_in_repo=name)
    url = f"{server.endpoint}/{repo}/resolve/main/{name}"
    meta = api.get_hf_file_metadata(url=url)
    assert (meta.size, meta.commit_hash) == (1000, api.repo_info(repo).sha)
    assert meta.etag == (sha256(WEIGHTS[:1000]) if name == "a.bin" else server.files(repo)[name].oid)
    assert meta.location.startswith(server.storage_endpoint if name == "a.bin" else server.endpoint)
    for wanted, expected in {"0-9": WEIGHTS[:10], "990-": WEIGHTS[990:1000], "-5": WEIGHTS[995:1000]}.items():
        answer = get_session().get(url, headers={"Range": f"bytes={wanted}"})
        assert (answer.status_code, answer.content) == (206, expected)
    assert get_session().get(url, headers={"Range": "bytes=1000-"}).status_code == 416
    stored = server.requests("GET", "/storage/")
    assert not any("authorization" in map(str.lower, record.header_names) for record in stored)


def test_branches_and_tags(server, api, repo, tmp_path):
    first = api.upload_file(repo_id=repo, path_or_fileobj=b"1", path_in_repo="a").oid
    api.create_tag(repo, tag="v1")
    api.create_branch(repo, branch="exp/one", revision=first)
    api.create_branch(repo, branch="exp/one", exist_ok=True)
    with refused(409):
        api.create_branch(repo, branch="exp/one")
    second = api.upload_file(repo_id=repo, path_or_fileobj=b"2", path_in_repo="a", revision="exp/one").oid
    refs = api.list_repo_refs(repo)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "exp/one": second}
    assert [(ref.ref, ref.target_commit) for ref in refs.tags] == [("refs/tags/v1", first)]
    found = {revision: download(server, "a", tmp_path, revision=revision) for revision in ("main", "v1", "exp/one")}
    assert found == {"main": b"1", "v1": b"1", "exp/one": b"2"}
    with pytest.raises(BadRequestError, match="not a branch"):
        api.upload_file(repo_id=repo, path_or_fileobj=b"3", path_in_repo="a", revision="v1")
    api.delete_tag(repo, tag="v1")
    api.delete_branch(repo, branch="exp/one")
    for name in ("v1", "exp/one"):
        with pytest.raises(RevisionNotFoundError):
            api.repo_info(repo, revision=name)


def test_pull_requests(server, api, repo, tmp_path):
    api.upload_file(repo_id=repo, path_or_fileobj=b"1", path_in_repo="a")
    pull = api.upload_file(repo_id=repo, path_or_fileobj=b"2", path_in_repo="a", create_pr=True)
    assert (pull.pr_num, pull.pr_revision) == (1, "refs/pr/1")
    assert download(server, "a", tmp_path) == b"1"
    assert download(server, "a", tmp_path, revision="refs/pr/1") == b"2"
    api.upload_file(repo_id=repo, path_or_fileobj=WEIGHTS, path_in_repo="w.bin", revision="refs/pr/1")
    assert api.comment_discussion(repo, 1, "good").content == "good"
    api.merge_pull_request(repo, 1)
    assert server.read(repo, "a") == b"2"
    assert server.read(repo, "w.bin") == WEIGHTS
    details = api.get_discussion_details(repo, 1)
    assert (details.status, details.merge_commit_oid) == ("merged", api.repo_info(repo).sha)

    draft = api.create_pull_request(repo, title="a draft")
    assert (draft.num, draft.status, draft.git_reference) == (2, "draft", "refs/pr/2")
    for revision, content in (("refs/pr/2", b"3"), ("main", b"4")):
        api.upload_file(repo_id=repo, path_or_fileobj=content, path_in_repo="a", revision=revision)
    with refused(409):
        api.merge_pull_request(repo, 2)
    api.change_discussion_status(repo, 2, "closed")
    assert [(one.num, one.status) for one in api.get_repo_discussions(repo)] == [(2, "closed"), (1, "merged")]
    assert [ref.name for ref in api.list_repo_refs(repo, include_pull_requests=True).pull_requests] == ["1", "2"]

    stranger = client(server, STRANGER_TOKEN)
    with refused(403):
        stranger.upload_file(repo_id=repo, path_or_fileobj=b"5", path_in_repo="a")
    assert stranger.upload_file(repo_id=repo, path_or_fileobj=b"5", path_in_repo="a", create_pr=True).pr_num == 3


def test_private_repositories(server, api, tmp_path):
    api.create_repo(REPO, private=True)
    api.upload_file(repo_id=REPO, path_or_fileobj=b"secret", path_in_repo="a")
    assert client(server, READ_TOKEN).list_repo_files(REPO)
    for token, status in ((False, 401), (STRANGER_TOKEN, 404)):
        for name in (REPO, "me/none"):  # that one exists can't be told from that none does
            with pytest.raises(RepositoryNotFoundError) as caught:
                client(server, token).repo_info(name)
            assert caught.value.response.status_code == status
            with pytest.raises(RepositoryNotFoundError):
                hf_hub_download(name, "a", endpoint=server.endpoint, cache_dir=tmp_path, token=token)


def test_tokens(server, api, repo):
    reader = client(server, READ_TOKEN)
    with refused(403) as caught:
        reader.upload_file(repo_id=repo, path_or_fileobj=b"1", path_in_repo="a")
    assert "write token" in str(caught.value)
    with refused(403):
        api.create_repo("somebody/else")
    with refused(401):
        client(server, False).upload_file(repo_id=repo, path_or_fileobj=b"1", path_in_repo="a")
    for token, message in ((EXPIRED_TOKEN, "is expired"), ("hf_unknown", "Invalid credentials")):
        with refused(401) as caught:
            client(server, token).upload_file(repo_id=repo, path_or_fileobj=b"1", path_in_repo="a")
        assert message in str(caught.value)
    assert "a" not in server.files(repo)


def test_cards(server, api, repo):
    text = "---\nlicense: mit\ntags:\n- saliency\nlibrary_name: transformers\n---\n# A card\n"
    api.upload_file(repo_id=repo, path_or_fileobj=text.encode(), path_in_repo="README.md")
    info = api.model_info(repo)
    assert (info.card_data.license, info.tags, info.library_name) == ("mit", ["saliency"], "transformers")
    for wrong in ("---\nlicense: [\n---\n", "---\nlicense: 3\n---\n"):
        with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
            api.upload_file(repo_id=repo, path_or_fileobj=wrong.encode(), path_in_repo="README.md")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(repo_id=repo, path_or_fileobj=b"# None", path_in_repo="README.md")


def test_what_git_ignores_is_not_committed(server, api, repo, tmp_path):
    for name, content in {".gitignore": "*.log\ntmp/\n", "a.log": "a", "tmp/b": "b", "c": "c"}.items():
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_text(content)
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "f")
    assert sorted(server.files(repo)) == [".gitattributes", ".gitignore", "c"]


def test_upload_in_parts(tmp_path):
    with Hub(tmp_path / "hub", part_size=70_000) as server, online():
        api = client(server)
        api.create_repo(REPO)
        (tmp_path / "w.bin").write_bytes(WEIGHTS)
        api.upload_file(repo_id=REPO, path_or_fileobj=tmp_path / "w.bin", path_in_repo="w.bin")
        assert [record.size for record in server.requests("PUT", "/storage/")] == [70_000] * 4 + [20_000]
        assert server.read(REPO, "w.bin") == WEIGHTS


def test_content_outlives_the_server(tmp_path):
    folder = tmp_path / "hub" / "models" / "them" / "filled"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("by hand")
    (folder / "w.bin").write_bytes(WEIGHTS)
    with online():
        with Hub(tmp_path / "hub") as server:
            api, port = client(server), server.port
            assert api.list_repo_files("them/filled") == ["a.txt", "w.bin"]
            api.create_repo(REPO, private=True)
            api.create_repo("me/gone")
            api.delete_repo("me/gone")
            api.upload_file(repo_id=REPO, path_or_fileobj=WEIGHTS, path_in_repo="w.bin")
            api.create_tag(REPO, tag="v1")
            before = [api.repo_info(name).sha for name in (REPO, "them/filled")]
            server.stop()
            server.start()
            assert server.port == port
            assert [api.repo_info(name).sha for name in (REPO, "them/filled")] == before
        with Hub(tmp_path / "hub") as server:
            api = client(server)
            assert [api.repo_info(name).sha for name in (REPO, "them/filled")] == before
            assert api.repo_info(REPO, revision="v1").private
            assert download(server, "w.bin", tmp_path / "cache") == WEIGHTS
            assert not api.repo_exists("me/gone")


def test_all_that_was_pushed_can_be_scanned(server, api, repo):
    api.upload_file(repo_id=repo, path_or_fileobj=b"regular secret", path_in_repo="a")
    api.upload_file(repo_id=repo, path_or_fileobj=b"large secret", path_in_repo="a.bin", commit_message="said secret")
    server.faults.add("PUT", "/storage/", cut=4, times=1)
    api.upload_file(repo_id=repo, path_or_fileobj=b"half a secret", path_in_repo="b.bin")
    contents = [content for _, content in server.pushed()]
    for secret in (b"regular secret", b"large secret", b"half", b"half a secret"):
        assert secret in contents
    assert any(b"said secret" in content for content in contents)
    names = {name.lower() for record in server.records for name in record.header_names}
    assert {"authorization", "user-agent"} <= names
    assert not any(WRITE_TOKEN in repr(record) for record in server.records)


DATASETS = """
import datasets, json
table = datasets.Dataset.from_dict({"x": list(range(100)), "name": [f"n{i}" for i in range(100)]})
table.push_to_hub("me/table", num_shards=3)
table.select(range(7)).push_to_hub("me/table", split="test", private=True)
whole = datasets.load_dataset("me/table")
streamed = list(datasets.load_dataset("me/table", split="train", streaming=True))
print(json.dumps({"same": whole["train"].to_list() == table.to_list() == streamed, "test": len(whole["test"])}))
"""


def test_datasets_round_trip(server, tmp_path):
    assert json.loads(run_script(DATASETS, server, tmp_path).splitlines()[-1]) == {"same": True, "test": 7}
    files = server.files("me/table", "datasets")
    assert {path: file.lfs for path, file in files.items() if path.endswith(".parquet")} == {
        "data/test-00000-of-00001.parquet": True,
        **{f"data/train-{shard:05d}-of-00003.parquet": True for shard in range(3)},
    }


TRANSFORMERS = """
import torch, transformers
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

config = ViTConfig(image_size=8, patch_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                   intermediate_size=8, num_labels=2)
model = ViTForImageClassification(config)
model.push_to_hub("pushed", private=True, revision="exp")
again = ViTForImageClassification.from_pretrained("me/pushed", revision="exp")
assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))

class Rows(Dataset):
    def __len__(self): return 8
    def __getitem__(self, index): return {"pixel_values": torch.ones(3, 8, 8) * index, "labels": index % 2}

arguments = TrainingArguments("out", max_steps=4, save_steps=2, use_cpu=True, report_to="none", push_to_hub=True,
                              hub_model_id="lab/trained", hub_strategy="checkpoint", hub_always_push=True)
trainer = Trainer(model, arguments, train_dataset=Rows())
trainer.train()
trainer.push_to_hub("the end")
again = ViTForImageClassification.from_pretrained("lab/trained")
assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
"""


def test_transformers_and_its_trainer(server, tmp_path):
    run_script(TRANSFORMERS, server, tmp_path)
    assert server.repo("me/pushed").private
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert server.read("lab/trained", "model.safetensors") == weights
    assert {"README.md", "last-checkpoint/trainer_state.json"} <= set(server.files("lab/trained"))
    titles = [commit.title for commit in server.repo("lab/trained").commits.values()]
    assert "Training in progress, step 2, checkpoint" in titles
    assert titles[-1] == "the end"
