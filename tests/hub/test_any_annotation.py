"""COCO, Pascal VOC and fixations, each by the commands alone: built, checked, pushed, and loaded in both modes."""

import json

import datasets
import numpy as np
import pytest

from sage_hf.cli import main
from tests.hub.client import online
from tests.hub.saliency_datasets import check_rows, jpeg, loaded, push
from tests.hub.server import Hub

BOX = (5, 4, 13, 10)
"""Left, top, right, lower of what is marked in each picture of 24x16 pixels."""
ROWS = 6


def coco(folder):
    left, top, right, lower = BOX
    corners = [left, top, right, top, right, lower, left, lower]
    content = {
        "images": [{"id": row, "file_name": f"{row}.jpg", "width": 24, "height": 16} for row in range(ROWS)],
        "annotations": [
            {"id": row, "image_id": row, "category_id": row % 2, "segmentation": [corners]} for row in range(ROWS)
        ],
        "categories": [{"id": 0, "name": "rust"}, {"id": 1, "name": "miner"}],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return [folder / "coco.json"]


def voc(folder):
    left, top, right, lower = BOX
    (folder / "voc").mkdir()
    for row in range(ROWS):
        (folder / "voc" / f"{row}.xml").write_text(
            f"<annotation><size><width>24</width><height>16</height></size><object><name>{('rust', 'miner')[row % 2]}"
            f"</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{lower}</ymax>"
            "</bndbox></object></annotation>"
        )
    return [folder / "voc"]


def fixations(folder):
    lines = ["file,x,y,duration,label"]
    lines += [
        f"{row}.jpg,{x},7,{duration},{('rust', 'miner')[row % 2]}"
        for row in range(ROWS)
        for x, duration in ((8, 300), (9, 100))
    ]
    (folder / "gaze.csv").write_text("\n".join(lines))
    return [folder / "gaze.csv", "--sigma", "2"]


def filled():
    values = np.zeros((16, 24), dtype=np.uint8)
    values[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    return values


def gaze():
    rows, columns = np.mgrid[:16, :24]
    spots = [weight * np.exp(-((rows - 7) ** 2 + (columns - x) ** 2) / (2 * 2**2)) for x, weight in ((8, 3), (9, 1))]
    return np.round(sum(spots) / np.max(sum(spots)) * 255)


@pytest.mark.parametrize(("annotate", "marked"), [(coco, filled), (voc, filled), (fixations, gaze)])
def test_from_annotation_to_the_hub_and_back(tmp_path, capsys, monkeypatch, annotate, marked):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    (tmp_path / "photos").mkdir()
    for row in range(ROWS):
        (tmp_path / "photos" / f"{row}.jpg").write_bytes(jpeg(row))
    with Hub(tmp_path / "hub") as server, online():
        flags = ["--images", tmp_path / "photos", "--saliency", *annotate(tmp_path), "--label-from", "annotation"]
        assert main(["data", "build", *map(str, flags), "--out", str(tmp_path / "built"), "--json"]) == 0
        figures = json.loads(capsys.readouterr().out)
        assert (figures["kept"], figures["annotated"], figures["classes"]) == (ROWS, ROWS, {"miner": 3, "rust": 3})
        assert main(["data", "check", str(tmp_path / "built"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["passed"]
        push(tmp_path / "built", server, repo="me/marked")
        found = loaded(server, tmp_path / "work", "me/marked")
    splits = datasets.load_dataset(str(tmp_path / "built"), cache_dir=str(tmp_path / "cache"))
    check_rows(found, splits)
    for number, row in enumerate(splits["train"]):
        assert np.abs(np.asarray(row["saliency"], dtype=float) - marked()).max() <= 1
        assert splits["train"].features["label"].int2str(row["label"]) == ("rust", "miner")[number % 2]
