"""`sage-hf data push` against the Hub server of these tests, with the real client."""

import inspect
import io
import json
import os

import datasets
import pytest
import yaml
from PIL import PngImagePlugin

from sage_hf.cli import main
from sage_hf.data import DataError, Source, build_dataset
from sage_hf.data.parquet import ShardedWriter
from sage_hf.errors import PushError
from sage_hf.hub.datasets import push_dataset
from tests.conftest import CLASSES, make_dataset, make_rows
from tests.hub.accounts import EXPIRED_TOKEN, WRITE_TOKEN
from tests.hub.client import client, online, run_script
from tests.hub.saliency_datasets import (
    COUNTS,
    REPO,
    build,
    card_of,
    check_files,
    check_rows,
    expected,
    files_of,
    front_of,
    loaded,
    make_splits,
    published,
    push,
    run_cli,
    stored_rows,
)
from tests.hub.server import Hub


@pytest.fixture
def server(tmp_path):
    with Hub(tmp_path / "hub") as server, online():
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Builders of this process keep what they make for the test alone."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.mark.parametrize("several", [False, True])
def test_splits_in_memory_load_alike_in_both_modes(server, tmp_path, several):
    splits = make_splits(several)
    pushed, waits = push(splits, server)
    assert waits == []
    assert pushed.url == f"{server.endpoint}/datasets/{REPO}"
    assert {"README.md", "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"} <= files_of(server)
    check_rows(loaded(server, tmp_path / "work"), splits)


def test_a_built_folder_goes_as_it_is(server, tmp_path):
    splits = make_splits()
    folder = build(tmp_path / "built", splits)
    (folder / "notes.txt").write_text("not for others")
    push(folder, server)
    for path in folder.glob("data/*"):
        assert server.read(REPO, f"data/{path.name}", kind="datasets") == path.read_bytes()
    assert "notes.txt" not in files_of(server)
    assert front_of(server)["license"] == "mit"
    check_files(server, splits)


def test_what_build_wrote_is_pushed_with_a_whole_card(server, tmp_path):
    lines = ["file,class"]
    for folder in ("images", "maps"):
        (tmp_path / folder).mkdir()
    for index, row in enumerate(stored_rows(make_splits()["train"])):
        (tmp_path / "images" / f"{index}.jpg").write_bytes(row["image"]["bytes"])
        if row["saliency"]:
            (tmp_path / "maps" / f"{index}.png").write_bytes(row["saliency"]["bytes"])
        lines.append(f"{index}.jpg,{CLASSES[row['label']]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    folders = {"images": tmp_path / "images", "saliency": (tmp_path / "maps",)}
    source = Source(**folders, labels=tmp_path / "labels.csv", label_column="class")
    build_dataset(source, out)
    push(out, server)
    name = "data/train-00000-of-00001.parquet"
    assert server.read(REPO, name, kind="datasets") == (out / name).read_bytes()
    assert "# leaves\n" in card_of(server)
    assert "## Known limits" in card_of(server)
    assert "# out" not in card_of(server)


def test_the_front_matter_says_what_the_hub_wants(server, tmp_path):
    splits = make_splits()
    push(splits, server, license="cc-by-4.0")
    front = front_of(server)
    assert front["configs"] == [
        {
            "config_name": "default",
            "data_files": [{"split": "train", "path": "data/train-*"}, {"split": "test", "path": "data/test-*"}],
        }
    ]
    info = front["dataset_info"]
    assert {split["name"]: split["num_examples"] for split in info["splits"]} == COUNTS
    assert all(split["num_bytes"] > 1000 for split in info["splits"])
    files = server.files(REPO, kind="datasets")
    assert info["download_size"] == sum(file.size for name, file in files.items() if name.endswith(".parquet"))
    assert info["dataset_size"] == sum(split["num_bytes"] for split in info["splits"])
    assert (front["license"], front["size_categories"]) == ("cc-by-4.0", ["n<1K"])
    assert front["task_categories"] == ["image-classification"]
    assert "saliency" in front["tags"]
    own = datasets.DatasetInfo(features=splits["train"].features)._to_yaml_dict()
    assert info["features"] == own["features"]


def test_other_sources(server, tmp_path):
    splits = make_splits()
    splits.save_to_disk(tmp_path / "saved")
    push(tmp_path / "saved", server, repo="me/saved")
    assert published(server, "me/saved") == {name: stored_rows(split) for name, split in splits.items()}
    assert not any("pushed" in path.name for path in (tmp_path / "saved").iterdir() if not path.name.startswith("."))
    assert set(datasets.load_from_disk(tmp_path / "saved")) == set(splits)

    # An ImageFolder: files on disk, labels as words.
    folder = tmp_path / "pictures"
    lines = ["file_name,saliency_file_name,label"]
    for index, row in enumerate(stored_rows(splits["train"])):
        name = f"train/{index}.jpg"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(row["image"]["bytes"])
        if row["saliency"]:
            (folder / f"train/{index}_map.png").write_bytes(row["saliency"]["bytes"])
        lines.append(f"{index}.jpg,{f'{index}_map.png' if row['saliency'] else ''},{CLASSES[row['label']]}")
    (folder / "train" / "metadata.csv").write_text("\n".join(lines) + "\n")
    push(folder, server, repo="me/pictures", allow=["blank-map"])
    found = loaded(server, tmp_path / "work", "me/pictures")
    assert found["False"] == found["True"]
    assert [row["image"] for row in found["True"]["train"]] == [
        [f"{index}.jpg", row["image"][1]] for index, row in enumerate(expected(splits)["train"])
    ]
    assert str(sorted(CLASSES)) in found["features"]


def test_parquet_files_of_other_names_and_words_for_labels(server, tmp_path):
    splits = make_splits()
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: '*.parquet'\n---\n"
    )
    for rows in (
        splits["train"],
        splits["test"],
    ):  # the second time, `load_dataset` of the folder would give the first
        names = [CLASSES[label] for label in rows["label"]]
        words = rows.remove_columns("label").add_column("label", names)
        words.to_parquet(folder / "all.parquet")
        push(folder, server)
        found = published(server)["train"]
        assert [sorted(CLASSES)[row["label"]] for row in found] == names
        assert [row["image"]["bytes"] for row in found] == [row["image"]["bytes"] for row in stored_rows(rows)]
        assert datasets.load_dataset(str(folder))["train"].num_rows == COUNTS["train"]


def test_a_copy_of_a_dataset_on_the_hub(server, tmp_path):
    splits = make_splits()
    push(splits, server)
    script = """
from sage_hf.hub import push_dataset
push_dataset("me/leaves", "lab/copy", source_revision="main")
"""
    run_script(script, server, tmp_path)
    check_rows(loaded(server, tmp_path / "work", "lab/copy"), splits)


def test_shards_are_bounded_and_stale_ones_go_in_the_same_commit(server, tmp_path, monkeypatch):
    splits = make_splits()
    monkeypatch.setattr(ShardedWriter, "ROWS", 1)
    monkeypatch.setattr("sage_hf.hub.dataset_files.BATCH_ROWS", 1)
    monkeypatch.setattr("sage_hf.data.parquet.SHARD_BYTES", 4000)
    push(splits, server)
    shards = sorted(name for name in files_of(server) if name.startswith("data/train"))
    assert len(shards) > 1
    assert shards[0] == f"data/train-00000-of-{len(shards):05d}.parquet"
    check_files(server, splits)
    client(server).upload_file(repo_id=REPO, repo_type="dataset", path_or_fileobj=b"mine", path_in_repo="make.py")
    client(server).upload_file(repo_id=REPO, repo_type="dataset", path_or_fileobj=b"x", path_in_repo="raw/a.parquet")
    monkeypatch.undo()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    before = len(server.repo(REPO, "datasets").commits)
    push(splits, server)
    assert len(server.repo(REPO, "datasets").commits) == before + 1
    assert sorted(name for name in files_of(server) if name.startswith("data/")) == [
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
    ]
    assert {"make.py", "raw/a.parquet"} <= files_of(server)
    check_files(server, splits)


def test_a_repeated_push_makes_no_second_commit(server, tmp_path):
    folder = build(tmp_path / "built", make_splits())
    first, _ = push(folder, server)
    commits = len(server.repo(REPO, "datasets").commits)
    second, _ = push(folder, server)
    assert len(server.repo(REPO, "datasets").commits) == commits
    assert second.commit == first.commit


def leaking():
    """The same picture in both splits."""
    splits = make_splits()
    splits["test"] = datasets.concatenate_datasets([splits["test"], splits["train"].select([0])])
    return splits


def test_nothing_is_sent_before_the_checks_have_passed(server, tmp_path):
    splits = leaking()
    for dataset in (splits, build(tmp_path / "built", splits)):
        with pytest.raises(DataError, match=r"nothing was sent.\n  duplicates-across-splits: .*(.|\n)*--allow dupl"):
            push(dataset, server)
    done = run_cli(["push", tmp_path / "built", REPO], server, tmp_path)
    assert done.returncode == 1
    assert "duplicates-across-splits" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(ValueError, match="There is no check 'duplicates'"):
        push(splits, server, allow=["duplicates"])
    assert not server.records

    push(splits, server, allow=["duplicates-across-splits"])
    assert "**duplicates-across-splits** (1; an error, published all the same)" in card_of(server)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"note": "token hf_" + "a" * 34}, "train, rows 0 to 5, column 'note' holds a Hub token"),
        ({"note": "from " + os.path.expanduser("~")}, "column 'note' names your home folder"),
    ],
)
def test_secrets_in_columns_are_refused(server, column, message):
    with pytest.raises(DataError, match=message):
        push(make_splits(**column), server, allow=["absolute-path"])
    assert not server.records


def test_secrets_in_cards_and_pictures_are_refused(server, tmp_path):
    with pytest.raises(ValueError, match="The card names your home folder"):
        push(make_splits(), server, annotation=f"drawn with {os.path.expanduser('~')}/tool")
    rows = make_rows(2)
    buffer, text = io.BytesIO(), PngImagePlugin.PngInfo()
    text.add_text("Comment", "hf_" + "a" * 34)
    rows[0]["image"].save(buffer, format="PNG", pnginfo=text)
    rows[0]["image"] = {"bytes": buffer.getvalue(), "path": "1.png"}
    with pytest.raises(DataError, match="column 'image' holds a Hub token, in a file's metadata"):
        push(make_dataset(rows=rows), server)
    assert not server.records
    folder = build(tmp_path / "built", make_splits(), "My token: hf_" + "a" * 34)
    with pytest.raises(ValueError, match="The card holds a Hub token"):
        push(folder, server)
    assert "README.md" not in files_of(server)


def test_paths_become_names_and_nothing_local_leaves(server, tmp_path):
    folder = tmp_path / "somewhere"
    folder.mkdir()
    splits = make_splits()
    rows = stored_rows(splits["train"])
    for index, row in enumerate(rows):
        (folder / f"{index}.jpg").write_bytes(row["image"]["bytes"])
        row["image"] = str(folder / f"{index}.jpg")
    table = {name: [row[name] for row in rows] for name in splits["train"].features}
    push(datasets.Dataset.from_dict(table, features=splits["train"].features), server)
    check_files(server, {"train": splits["train"]})
    (folder / "0.jpg").unlink()
    with pytest.raises(DataError, match="train, rows 0 to 5: a picture is missing"):
        push(datasets.Dataset.from_dict(table, features=splits["train"].features), server)
    for path, content in server.pushed():
        for secret in (str(tmp_path).encode(), str(tmp_path.parent).encode(), WRITE_TOKEN.encode()):
            assert secret not in content, path


def test_private_branches_and_pull_requests(server, tmp_path):
    splits = make_splits()
    push(splits, server, private=True)
    assert server.repo(REPO, "datasets").private
    push(splits, server, revision="next")
    fewer = datasets.DatasetDict(train=splits["train"].select(range(4)))
    pushed, _ = push(fewer, server, create_pr=True)
    request = f"refs/pr/{pushed.pull_request}"
    assert "data/test-00000-of-00001.parquet" not in files_of(server, revision=request)
    assert "data/test-00000-of-00001.parquet" in files_of(server)
    check_rows(loaded(server, tmp_path / "work", revision="next"), splits)
    check_files(server, fewer, request)
    with pytest.raises(ValueError, match="leave revision out"):
        push(splits, server, revision="next", create_pr=True)


def test_private_data_never_go_to_a_public_repository(server):
    client(server).create_repo(REPO, repo_type="dataset")
    with pytest.raises(ValueError, match="exists already and is public"):
        push(make_splits(), server, private=True)
    assert files_of(server) == {".gitattributes"}


def test_edits_on_the_hub_and_here_survive(server, tmp_path):
    folder = build(tmp_path / "built", make_splits())
    push(folder, server)
    edited = card_of(server).replace("## Content", "## Who to ask\n\nMe.\n\n## Content").replace("not stated;", "two;")
    edited = edited.replace("license: mit", "license: mit\nlanguage: en")
    client(server).upload_file(
        repo_id=REPO, repo_type="dataset", path_or_fileobj=edited.encode(), path_in_repo="README.md"
    )
    build(folder, datasets.DatasetDict(train=make_splits()["train"]))
    (folder / "data/test-00000-of-00001.parquet").unlink()
    push(folder, server)
    card = card_of(server)
    assert "Who to ask" in card
    assert "two;" in card
    assert front_of(server)["language"] == "en"
    assert [split["name"] for split in front_of(server)["dataset_info"]["splits"]] == ["train"]
    assert "| test |" not in card

    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Ours\n\nFrom here.\n")
    edited = card_of(server) + "\nFrom there.\n"
    client(server).upload_file(
        repo_id=REPO, repo_type="dataset", path_or_fileobj=edited.encode(), path_in_repo="README.md"
    )
    with pytest.raises(ValueError, match=r"README.md was edited both in .* and on the Hub"):
        push(folder, server)


def test_a_card_of_ones_own_gets_the_front_matter_alone(server, tmp_path):
    folder = build(tmp_path / "built", make_splits(), "# My leaves\n\nAll mine.\n")
    push(folder, server)
    assert card_of(server).endswith("---\n# My leaves\n\nAll mine.\n")
    assert front_of(server)["dataset_info"]["splits"]


def test_other_configurations_on_the_hub_stay(server, tmp_path):
    client(server).create_repo(REPO, repo_type="dataset")
    theirs = {"configs": [{"config_name": "raw", "data_files": "raw/*.parquet"}], "license": "mit"}
    text = f"---\n{yaml.safe_dump(theirs)}---\n"
    client(server).upload_file(
        repo_id=REPO, repo_type="dataset", path_or_fileobj=text.encode(), path_in_repo="README.md"
    )
    splits = make_splits()
    push(splits, server)
    assert [config["config_name"] for config in front_of(server)["configs"]] == ["default", "raw"]
    check_rows(loaded(server, tmp_path / "work"), splits)


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429, "headers": {"Retry-After": "7"}}, {"lose": True}])
def test_a_commit_that_fails_is_sent_again_and_made_once(server, tmp_path, fault):
    splits = make_splits()
    push(datasets.DatasetDict(extra=splits["train"]), server)
    server.faults.add("POST", "/commit/", **fault)
    _, waits = push(splits, server)
    assert waits == [7.0 if fault.get("status") == 429 else 1.0]
    titles = [commit.title for commit in client(server).list_repo_commits(REPO, repo_type="dataset")]
    assert titles == ["Upload dataset", "Upload dataset", "initial commit"]
    assert "data/extra-00000-of-00001.parquet" not in files_of(server)


def test_a_hub_that_is_down_loses_nothing_and_the_push_can_be_repeated(server, tmp_path):
    splits = make_splits()
    server.faults.add("POST", "/commit/", times=100, status=503)
    with pytest.raises(PushError, match=r"did not arrive \(status 503\).*Repeat the push"):
        push(splits, server)
    server.faults.clear()
    puts = len(server.requests("PUT", "/storage/"))
    push(splits, server)
    assert len(server.requests("PUT", "/storage/")) == puts  # the data had arrived
    check_files(server, splits)


def test_a_cut_upload_and_a_restart_of_the_server_are_survived(server, tmp_path):
    splits = make_splits()
    server.faults.add("PUT", "/storage/", cut=1000, hook=lambda: server.restart(0.2))
    push(splits, server)
    check_files(server, splits)


def test_a_token_that_the_hub_does_not_know(server):
    with pytest.raises(PushError, match="does not know you: log in"):
        push(make_splits(), server, EXPIRED_TOKEN)


def test_a_token_that_expires_in_the_middle(server):
    server.faults.add("PUT", "/storage/", hook=lambda: server.accounts.expire(WRITE_TOKEN))
    with pytest.raises(PushError, match="does not know you: log in"):
        push(make_splits(), server)


def test_a_stream_is_no_dataset_to_push(server):
    with pytest.raises(TypeError, match="not IterableDataset"):
        push(make_splits()["train"].to_iterable_dataset(), server)


def test_the_command_in_a_process_of_its_own(server, tmp_path):
    folder = build(tmp_path / "built", make_splits())
    (tmp_path / "cite.bib").write_text("@misc{leaves, title = {Leaves}}\n")
    told = ("--annotation", "drawn | by hand", "--license", "cc0-1.0", "--citation", tmp_path / "cite.bib")
    more = ("--private", "--revision", "v1", "--card-pictures", 1, "--num-proc", 2, "--json")
    done = run_cli(["push", folder, REPO, *told, *more], server, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["url"] == f"{server.endpoint}/datasets/{REPO}"
    card = card_of(server, revision="v1")
    assert "drawn \\| by hand" in card
    assert "@misc{leaves, title = {Leaves}}" in card
    assert "saliency_samples.png" in files_of(server, revision="v1")
    assert "license: cc0-1.0" in card
    push(folder, server, revision="v1", pictures=0)
    assert "saliency_samples.png" not in files_of(server, revision="v1")
    assert "saliency_samples.png" not in card_of(server, revision="v1")


@pytest.mark.parametrize(("flags", "private"), [((), None), (("--private",), True)])
def test_a_repository_is_as_private_as_its_owner_has_set(monkeypatch, flags, private):
    """The Hub makes it public if it is told `False`, whatever an organization has set."""
    asked = {}

    def stop(*_, **settings):
        asked.update(settings)
        raise ValueError("stop here")

    monkeypatch.setattr("sage_hf.hub.datasets.push_dataset", stop)
    assert main(["data", "push", "folder", REPO, *flags]) == 1
    assert asked["private"] is private
    assert inspect.signature(push_dataset).parameters["private"].default is None
