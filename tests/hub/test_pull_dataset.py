"""`sage-hf data pull` against the Hub server of these tests, with the real client."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from sage_hf.data import DataError, load_saliency_dataset
from sage_hf.errors import PushError
from sage_hf.hub import pull_dataset
from sage_hf.hub.pull import local_card
from tests.hub.accounts import EXPIRED_TOKEN, STRANGER_TOKEN, WRITE_TOKEN
from tests.hub.client import client, online
from tests.hub.saliency_datasets import REPO, card_of, check_files, make_splits, push, run_cli, stored_rows
from tests.hub.server import Hub


@pytest.fixture
def server(tmp_path):
    with Hub(tmp_path / "hub") as server, online():
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What `load_dataset` makes of a folder is kept for the test alone."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def pull(server, out, token=WRITE_TOKEN, repo=REPO, **kwargs):
    return pull_dataset(repo, out, api=client(server, token), wait=lambda seconds: None, **kwargs)


def rows_of(folder):
    """What `load_dataset` and `sage-hf train` read of a folder, in both modes."""
    found = {name: stored_rows(split) for name, split in load_saliency_dataset(str(folder)).items()}
    for name, stream in datasets.load_dataset(str(folder), streaming=True).items():
        assert [row["label"] for row in stream] == [row["label"] for row in found[name]]
    return found


def upload(server, path, content, repo=REPO):
    client(server).upload_file(repo_id=repo, repo_type="dataset", path_or_fileobj=content, path_in_repo=path)


@pytest.mark.parametrize("several", [False, True])
def test_the_folder_has_the_rows_of_the_repository(server, tmp_path, several):
    splits = make_splits(several)
    pushed, _ = push(splits, server, private=True)
    upload(server, "make.py", b"print('no data')")
    pulled = pull(server, tmp_path / "out")
    assert pulled.commit == client(server).dataset_info(REPO).sha != pushed.commit
    assert rows_of(tmp_path / "out") == {name: stored_rows(split) for name, split in splits.items()}
    shown = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert shown == {"README.md", "data", "saliency_samples.png"}


def test_a_changed_folder_is_not_taken_for_the_one_before(server, tmp_path):
    """With the `configs` of the Hub's card, `load_dataset` keys its cache by that, and gives what it read first."""
    splits = make_splits()
    push(splits, server)
    out = tmp_path / "out"
    pull(server, out)
    before = rows_of(out)["train"]

    def change(folder):
        file = folder / "data" / "train-00000-of-00001.parquet"
        table = pq.read_table(file)
        labels = pa.array([2 - label for label in table["label"].to_pylist()])
        pq.write_table(table.set_column(2, table.schema.field("label"), labels).slice(0, 5), file)

    change(out)
    after = rows_of(out)["train"]
    assert [row["label"] for row in after] == [2 - row["label"] for row in before[:5]]
    with pytest.raises(FileExistsError, match=r"train-00000-of-00001.parquet was changed since it was pulled"):
        pull(server, out)
    assert rows_of(out)["train"] == after

    # That it would be, were the card the Hub's, is what makes the difference.
    plain = tmp_path / "plain"
    pull(server, plain)
    (plain / "README.md").write_text(card_of(server).replace("num_examples: 6", "num_examples: 5"))
    change(plain)
    for _ in range(2):
        assert load_saliency_dataset(str(plain))["train"]["label"] == [row["label"] for row in after]
        change(plain)


def test_a_folder_follows_its_repository(server, tmp_path):
    splits = make_splits()
    push(splits, server)
    out = tmp_path / "out"
    pull(server, out)
    (out / "notes.txt").write_text("mine")
    fewer = datasets.DatasetDict(train=splits["train"].select([5, 0]))
    push(fewer, server, pictures=0)
    gets = len(server.requests("GET", "/storage/"))
    pull(server, out)
    assert rows_of(out) == {"train": stored_rows(fewer["train"].flatten_indices())}
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "saliency_samples.png").exists()
    assert len(server.requests("GET", "/storage/")) == gets + 1
    pull(server, out)
    assert len(server.requests("GET", "/storage/")) == gets + 1
    # And back: what was not edited is no conflict, and nothing changes.
    commits = len(server.repo(REPO, "datasets").commits)
    push(out, server, pictures=0)
    assert len(server.repo(REPO, "datasets").commits) == commits
    check_files(server, {"train": fewer["train"].flatten_indices()})


def test_revisions(server, tmp_path):
    splits = make_splits()
    first, _ = push(splits, server)
    fewer = datasets.DatasetDict(train=splits["train"])
    push(fewer, server, revision="next")
    assert set(rows_of(pull(server, tmp_path / "main").folder)) == {"train", "test"}
    assert set(rows_of(pull(server, tmp_path / "next", revision="next").folder)) == {"train"}
    assert pull(server, tmp_path / "old", revision=first.commit).commit == first.commit
    with pytest.raises(DataError, match=r"There is no revision 'none' of dataset 'me/leaves'"):
        pull(server, tmp_path / "none", revision="none")


def test_what_is_in_the_way_stays(server, tmp_path):
    push(make_splits(), server)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="already exists and is not empty"):
        pull(server, tmp_path / "mine")
    pull(server, tmp_path / "out")
    push(make_splits(), server, repo="me/other")
    with pytest.raises(FileExistsError, match="was pulled from me/leaves, not from me/other"):
        pull(server, tmp_path / "out", repo="me/other")
    (tmp_path / "out" / "extra.png").write_bytes(b"mine")
    upload(server, "extra.png", b"theirs")
    with pytest.raises(FileExistsError, match=r"extra.png is not of the earlier pull, and would be overwritten"):
        pull(server, tmp_path / "out")
    assert (tmp_path / "out" / "extra.png").read_bytes() == b"mine"


def test_a_pull_that_was_cut_off_goes_on(server, tmp_path):
    splits = make_splits()
    push(splits, server)
    fault = server.faults.add("GET", "/storage/", at=2, times=None, status=503, headers={"Retry-After": "0"})
    with pytest.raises(PushError, match=r"did not arrive \(status 503\).*repeat the pull"):
        pull(server, tmp_path / "out")
    assert fault.fired
    server.faults.clear()
    server.faults.add("GET", "/storage/", cut=500)
    pull(server, tmp_path / "out")
    assert rows_of(tmp_path / "out") == {name: stored_rows(split) for name, split in splits.items()}


def test_who_may_not_read(server, tmp_path):
    push(make_splits(), server, private=True)
    with pytest.raises(DataError, match="There is no dataset 'me/leaves' on the Hub that you can read"):
        pull(server, tmp_path / "out", STRANGER_TOKEN)
    with pytest.raises(PushError, match="does not know you: log in"):
        pull(server, tmp_path / "out", EXPIRED_TOKEN)
    assert not (tmp_path / "out").exists()


def test_a_repository_without_data(server, tmp_path):
    client(server).create_repo(REPO, repo_type="dataset")
    with pytest.raises(DataError, match=r"holds no parquet files and no pictures: .gitattributes"):
        pull(server, tmp_path / "out")


def test_configurations_that_names_do_not_tell_stay():
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: PATH\n---\nText.\n"
    shard = "data/train-00000-of-00001.parquet"
    assert local_card(card.replace("PATH", "data/train-*"), [shard], "c") == "---\n{}\n---\nText.\n"
    for files, path in (([shard, "raw/b.parquet"], "data/train-*"), (["a.parquet"], "a.parquet")):
        kept = yaml.safe_load(local_card(card.replace("PATH", path), files, "c").split("---\n")[1])
        assert kept["configs"][0]["description"] == "commit c"
        assert kept["configs"][0]["data_files"] == [{"split": "train", "path": path}]
    assert local_card("No front matter.\n", [shard], "c") == "No front matter.\n"


def test_kept_configurations_load(server, tmp_path):
    push(make_splits(), server)
    content = server.read(REPO, "data/test-00000-of-00001.parquet", kind="datasets")
    upload(server, "raw/extra.parquet", content)
    pull(server, tmp_path / "out")
    assert {name: len(split) for name, split in rows_of(tmp_path / "out").items()} == {"train": 6, "test": 4}


def test_the_command_in_a_process_of_its_own(server, tmp_path):
    push(make_splits(), server)
    done = run_cli(["pull", REPO, "--out", tmp_path / "out", "--json"], server, tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["repo_id"], told["files"]) == (REPO, 4)
    assert set(rows_of(tmp_path / "out")) == {"train", "test"}
