"""`sage-hf data build` joins annotations to a dataset on the Hub server of these tests, with the real client."""

import json

import datasets
import numpy as np

from tests.data.annotated import write_table
from tests.hub.client import client, online
from tests.hub.saliency_datasets import REPO, build, jpeg, make_splits, run_cli
from tests.hub.server import Hub


def test_boxes_join_a_dataset_on_the_hub(tmp_path):
    boxes = [{"id": f"{number}.jpg", "x1": 2, "y1": 3, "x2": 9, "y2": 8} for number in range(9)]
    write_table(tmp_path / "boxes.csv", boxes)
    (tmp_path / "pictures").mkdir()
    labels = [{"file_name": f"{number}.jpg", "label": "rust"} for number in range(3)]
    for number in range(3):
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(jpeg(number))
    write_table(tmp_path / "pictures" / "metadata.csv", labels)
    arguments = ["build", "--saliency", tmp_path / "boxes.csv", "--json"]
    with Hub(tmp_path / "hub") as server, online():
        api = client(server)
        # Bytes in tables, and pictures that are files of the repository.
        for repo, folder in ((REPO, build(tmp_path / "tables", make_splits())), ("me/files", tmp_path / "pictures")):
            api.create_repo(repo, repo_type="dataset")
            api.upload_folder(repo_id=repo, repo_type="dataset", folder_path=folder)
        done = run_cli([*arguments, "--dataset", REPO, "--out", tmp_path / "out"], server, tmp_path)
        assert done.returncode == 0, done.stderr
        files = run_cli([*arguments, "--dataset", "me/files", "--out", tmp_path / "files"], server, tmp_path)
        assert files.returncode == 0, files.stderr
    figures = json.loads(done.stdout)
    assert (figures["kept"], figures["annotated"], figures["splits"]) == (10, 9, {"train": 6, "test": 4})
    assert list(figures["classes"]) == ["healthy", "rust", "miner"]
    expected = np.zeros((16, 24), dtype=np.uint8)
    expected[3:8, 2:9] = 255
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert np.array_equal(np.asarray(rows[0]["saliency"]), expected)
    for folder, count in (("out", 6), ("files", 3)):
        rows = datasets.load_dataset(str(tmp_path / folder), split="train")
        raw = rows.cast_column("image", datasets.Image(decode=False))
        assert [row["image"]["bytes"] for row in raw] == [jpeg(number) for number in range(count)]
