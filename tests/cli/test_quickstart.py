"""The quickstart in small; `make quickstart` is the whole."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from transformers import AutoModelForImageClassification

from sage_hf.cli import main
from sage_hf.data.digits import CUE, SIZE, digits_with_shortcut


@pytest.fixture(scope="module")
def splits():
    return digits_with_shortcut()


def test_writes_results_picture_and_checkpoint(tmp_path, capsys):
    out = tmp_path / "quickstart"
    assert main(["quickstart", "--seeds", "1", "--epochs", "1", "--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"none", "sage"}
    for splits in results.values():
        assert set(splits) == {"in_distribution", "shifted"}
        assert all(len(values) == 1 and 0 <= values[0] <= 1 for values in splits.values())
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sage ")]
    assert row.split()[1:] == [f"{results['sage'][split][0]:.3f}" for split in ("in_distribution", "shifted")]
    with Image.open(out / "views.png") as picture:
        assert picture.width > 4 * 128
    model = AutoModelForImageClassification.from_pretrained(out / "checkpoint")
    assert model.config.sage["guidance"] == "sage"
    # Again: it replaces its own files, and nothing else.
    assert main(["quickstart", "--seeds", "1", "--epochs", "1", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]).keys() == results.keys()
    (out / "mine.txt").write_text("mine")
    assert main(["quickstart", "--out", str(out)]) == 1
    assert "holds files that are not the quickstart's: mine.txt" in capsys.readouterr().err
    (tmp_path / "runs" / "checkpoint").mkdir(parents=True)
    assert main(["quickstart", "--out", str(tmp_path / "runs")]) == 1
    assert "not the quickstart's: checkpoint" in capsys.readouterr().err


def colour(row):
    """The hue's index of the square, found as the most saturated column at the right edge."""
    pixels = np.asarray(row["image"].convert("HSV")).astype(int)[:, SIZE - CUE :]
    square = pixels[(pixels[..., 1] > 250) & (pixels[..., 2] > 250)]
    assert len(square) == CUE * CUE
    return round(np.median(square[:, 0]) / 25.5) % 10


def test_the_colour_gives_the_class_away_in_training_alone(splits):
    agreement = {name: np.mean([colour(row) == row["label"] for row in split]) for name, split in splits.items()}
    # Random colours agree in one case of ten.
    for name in ("train", "validation", "in_distribution"):
        assert agreement[name] == pytest.approx(0.98 + 0.02 * 0.1, abs=0.025)
    for name in ("shifted", "shifted_validation"):
        assert agreement[name] == pytest.approx(0.1, abs=0.05)


def test_the_digits_are_the_real_ones_and_each_in_one_part(splits):
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 997,
        "validation": 400,
        "shifted_validation": 400,
        "in_distribution": 400,
        "shifted": 400,
    }
    assert splits["shifted"]["label"] == splits["in_distribution"]["label"]
    assert splits["shifted_validation"]["label"] == splits["validation"]["label"]
    labels = [label for name in ("train", "validation", "in_distribution") for label in splits[name]["label"]]
    assert np.array_equal(np.bincount(labels), np.bincount(load_digits().target))


def test_the_map_marks_the_digit_and_not_the_square(splits):
    for row in splits["shifted"].select(range(50)):
        saliency = np.asarray(row["saliency"]) > 0
        brightness = np.asarray(row["image"].convert("L")).astype(int)
        assert saliency.sum() == 16 * 16
        assert not saliency[:, SIZE - CUE :].any()
        left = brightness[:, : SIZE - CUE]
        assert left[saliency[:, : SIZE - CUE]].max() > 100
        assert left[~saliency[:, : SIZE - CUE]].max() <= 40
