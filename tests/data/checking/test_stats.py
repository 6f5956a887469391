"""Figures against hand counts and naive loops."""

import math

import datasets
import numpy as np
import pytest
from PIL import Image

from sage_hf.data import dataset_stats
from tests.data.checking.planting import as_splits, encoded, healthy_rows


def stats_of_maps(maps, size=(96, 64)):
    rows = [{"image": Image.new("RGB", size), "saliency": None if m is None else Image.fromarray(m)} for m in maps]
    features = datasets.Features(image=datasets.Image(), saliency=datasets.Image())
    return dataset_stats(datasets.Dataset.from_list(rows, features=features))


def test_coverage_by_hand():
    """Of 8x5 pixels, 4, 10 and 20 reach half of their map's maximum."""
    maps = [np.zeros((5, 8), dtype=np.uint8) for _ in range(3)]
    maps[0][0, :4] = 9
    maps[1][:2, :5] = 100
    maps[1][4] = 49  # less than half
    maps[2][:, 4:] = 255
    maps[2][0, 4] = 128  # half, rounded up
    stats = stats_of_maps([*maps, np.zeros((5, 8), dtype=np.uint8), None], size=(8, 5))
    assert stats.coverage == {"5%": 0.115, "25%": 0.175, "50%": 0.25, "75%": 0.375, "95%": 0.475}
    assert stats.splits == {"train": {"rows": 5, "annotated": 3}}
    assert stats.annotators == {0: 2, 1: 3}
    assert (stats.sizes["width"], stats.sizes["height"]["median"]) == ({"min": 8, "median": 8, "max": 8}, 5)


def test_depths_are_counted_alike():
    """A 16-bit map and a floating-point one say what the 8-bit one says."""
    eight = np.zeros((32, 32), dtype=np.uint8)
    eight[3:9, 4:20] = 100
    deep = [eight, eight.astype(np.uint16) * 500, eight.astype(np.float32) / 1e4]
    figures = [stats_of_maps([values], size=(32, 32)) for values in deep]
    assert len({(str(one.coverage), str(one.centre_bias)) for one in figures}) == 1
    assert figures[0].coverage["50%"] == pytest.approx(6 * 16 / 32**2, abs=1e-6)


def test_centre_bias_against_a_naive_loop():
    generator = np.random.default_rng(3)
    maps = [(generator.random((64, 96)) ** 4 * 255).astype(np.uint8) for _ in range(3)]
    maps[0][:20] = 0
    bias = stats_of_maps(maps).centre_bias

    mean = np.zeros((32, 32))
    distances = []
    for values in maps:
        cells = np.zeros((32, 32))
        for down in range(64):
            for across in range(96):
                cells[down // 2, across // 3] += values[down, across]
        total = cells.sum()
        distance = 0.0
        for down in range(32):
            for across in range(32):
                mean[down, across] += cells[down, across] / total / 3
                from_centre = math.hypot(2 * down + 1 - 32, 3 * across + 1.5 - 48)
                distance += cells[down, across] / total * from_centre / math.hypot(32, 48)
        distances.append(distance)
    assert bias.distance == pytest.approx(sum(distances) / 3, abs=1e-4)

    variance = [0.0, 0.0]
    for down in range(32):
        for across in range(32):
            variance[0] += mean[down, across] * (down - 15.5) ** 2
            variance[1] += mean[down, across] * (across - 15.5) ** 2
    gaussian = [
        math.exp(-((down - 15.5) ** 2) / 2 / variance[0] - (across - 15.5) ** 2 / 2 / variance[1])
        for down in range(32)
        for across in range(32)
    ]
    assert bias.correlation == pytest.approx(np.corrcoef(mean.ravel(), gaussian)[0, 1], abs=1e-4)


def test_known_centre_bias():
    """Of the whole square the mean distance is (sqrt 2 + ln(1 + sqrt 2)) / 6 sides; half the diagonal is sqrt(1/2)."""
    bias = stats_of_maps([np.full((64, 64), 9, dtype=np.uint8)], size=(64, 64)).centre_bias
    assert bias.distance == pytest.approx((math.sqrt(2) + math.log(1 + math.sqrt(2))) / 6 / math.sqrt(0.5), abs=1e-3)
    assert bias.correlation == 0
    point = np.zeros((64, 64), dtype=np.uint8)
    point[31:33, 31:33] = 1
    assert stats_of_maps([point], size=(64, 64)).centre_bias.distance < 0.04


def test_classes_and_bytes():
    rows = healthy_rows(12)
    rows[0]["saliency"] = None
    rows[1]["saliency"] = encoded(np.zeros((40, 48), dtype=np.uint8), "1.png")
    stats = dataset_stats(as_splits(rows, classes=["healthy", "rust", "miner"]))
    assert stats.classes["healthy"].rows == {"train": 4, "test": 2}
    assert stats.classes["healthy"].annotated == {"train": 3, "test": 2}
    assert stats.classes["rust"].annotated == {"train": 3, "test": 2}
    assert stats.classes["rust"].blank == {"train": 1, "test": 0}
    assert (stats.classes["miner"].rows, stats.classes["miner"].coverage) == ({"train": 0, "test": 0}, None)
    assert stats.picture_bytes == sum(len(row["image"]["bytes"]) for row in rows)
    assert stats.map_bytes == sum(len(row["saliency"]["bytes"]) for row in rows if row["saliency"])


def test_several_labels_and_numbers():
    rows = healthy_rows(6)
    for index, row in enumerate(rows):
        row["label"] = [0, 1][: index % 3]
    labels = datasets.List(datasets.ClassLabel(names=["cyst", "stone"]))
    features = datasets.Features(image=datasets.Image(), saliency=datasets.Image(), label=labels)
    several = datasets.Dataset.from_list(rows, features=features)
    assert {name: one.rows["train"] for name, one in dataset_stats(several).classes.items()} == {"cyst": 4, "stone": 2}
    numbers = several.remove_columns("label").add_column("label", [0.5, 1.5, 2.0, 3.0, 4.0, 5.0])
    assert dataset_stats(numbers).classes == {}
