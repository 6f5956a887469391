import json
from dataclasses import replace

import coffee_leaf
import coffee_leaf_forms
import datasets
import numpy as np
import pytest
import study
import torch
from PIL import Image
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    EfficientNetConfig,
    EfficientNetForImageClassification,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

NAMES = ["healthy", "miner", "rust", "phoma", "cercospora"]
ROWS = {"train": 8, "validation": 2, "test": 3}
"""Of each class."""


def leaf(label, number):
    """A green picture of its own shade; a disease is a square of its own colour at a place of its own."""
    generator = np.random.default_rng((label, number))
    picture = np.full((24, 32, 3), (20, 60 + number, 20), np.uint8)
    marks = np.zeros((24, 32), np.uint8)
    if label:
        top, left = generator.integers(4, 16), generator.integers(4, 24)
        picture[top : top + 4, left : left + 4] = (200, 40 * label, 10)
        marks[top : top + 4, left : left + 4] = 255
    return {"image": Image.fromarray(picture), "saliency": Image.fromarray(marks) if label else None, "label": label}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A dataset as `data build` makes it, and checkpoints of sixteen narrow blocks and of twelve narrow layers."""
    folder = tmp_path_factory.mktemp("coffee")
    features = datasets.Features(
        {"image": datasets.Image(), "saliency": datasets.Image(mode="L"), "label": datasets.ClassLabel(names=NAMES)}
    )
    number = iter(range(1000))
    splits = {
        name: datasets.Dataset.from_list(
            [leaf(label, next(number)) for label in range(5) for _ in range(count)], features=features
        )
        for name, count in ROWS.items()
    }
    datasets.DatasetDict(splits).save_to_disk(folder / "data")
    config = EfficientNetConfig(
        width_coefficient=0.1,
        depth_coefficient=1.0,
        image_size=32,
        hidden_dim=128,
        num_labels=7,
        drop_connect_rate=0.0,
    )
    side = {"height": 32, "width": 32}
    EfficientNetForImageClassification(config).save_pretrained(folder / coffee_leaf.MODEL)
    EfficientNetImageProcessorPil(size=side).save_pretrained(folder / coffee_leaf.MODEL)
    layers = Dinov2Config(hidden_size=16, num_hidden_layers=12, num_attention_heads=2, image_size=32, patch_size=8)
    Dinov2ForImageClassification(layers).save_pretrained(folder / coffee_leaf.DINOV2)
    BitImageProcessorPil(size=side, do_center_crop=False).save_pretrained(folder / coffee_leaf.DINOV2)
    return str(folder / "data"), str(folder)


@pytest.fixture(scope="module")
def leaves(folders):
    return coffee_leaf.load_leaves(folders[0], f"{folders[1]}/{coffee_leaf.MODEL}")


def a_run(scenario="25 %", seed=0, method="none", stage="test", model=coffee_leaf.MODEL, **settings):
    return study.Run(stage, model, scenario, method, {"learning_rate": 1e-3} | settings, seed, 1, True)


def shades(rows):
    """Each picture's own shade of green."""
    return [row["image"].getpixel((0, 0))[1] for row in rows]


@pytest.mark.parametrize(
    ("scenario", "of_each"),
    [("10 %", 2), ("25 %", 2), ("full", 8), ("25 % of the maps", 8), ("25 % of the maps of 75 %", 6)],
)
def test_scenarios(leaves, scenario, of_each):
    split = coffee_leaf.split_leaves(leaves, a_run(scenario, seed=1))
    assert np.bincount([row["label"] for row in split.train]).tolist() == [of_each] * 5
    # No picture is in two parts; what is not trained on can choose settings; the test is the test split.
    parts = [shades(split.train), shades(split.validation), shades(split.test)]
    assert len({shade for part in parts for shade in part}) == sum(map(len, parts)) == 5 * sum(ROWS.values())
    assert parts[2] == shades(leaves.splits["test"])
    with_maps = [row["label"] for row in split.train if row["saliency"] is not None]
    # Of healthy leaves it is known that there is nothing to mark.
    assert np.bincount(with_maps).tolist() == [of_each, *[2 if "of the maps" in scenario else of_each] * 4]
    assert all(
        (row["saliency"].getextrema() == (0, 0)) == (row["label"] == 0) for row in split.train if row["saliency"]
    )
    again, other = (coffee_leaf.split_leaves(leaves, a_run(scenario, seed=seed)) for seed in (1, 2))
    assert shades(again.train) == parts[0]
    assert (shades(other.train) == parts[0]) == (of_each == 8)


def test_an_unknown_disease_is_in_no_training(leaves):
    for seed in range(5):
        held_out = 1 + seed % 4
        split = coffee_leaf.split_leaves(leaves, a_run("unknown disease", seed))
        assert {row["label"] for row in split.unknown} == {held_out}
        assert len(split.unknown) == sum(ROWS.values())
        for part in (split.train, split.validation, split.test):
            assert {row["label"] for row in part} == set(range(4))
            assert not set(shades(part)) & set(shades(split.unknown))


def test_replaced_regions_are_those_of_healthy_leaves():
    pictures = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 20, 20)  # each of one shade
    labels = torch.tensor([0, 0, 1, 2, 1, 0])
    maps = torch.zeros(6, 1, 20, 20)
    maps[2:4, :, 8:12, 8:12] = 1
    found, truth = coffee_leaf.replaced(pictures, maps, labels, healthy=0, backgrounds=3)
    assert truth.tolist() == [1, 2] * 3  # the unmarked leaf of class 1 is left out
    assert found[:, 0, 10, 10].tolist() == [2.0, 3.0] * 3
    assert set(found[:, 0, 0, 0].tolist()) <= {0.0, 1.0, 5.0}
    assert (found[:, 0, 7, 10] != found[:, 0, 0, 0]).all()  # a margin of a pixel


def test_pictures_are_the_same_whatever_guides(leaves):
    rows = leaves.splits["train"]
    one, other = (coffee_leaf.Augmented(rows, leaves.augmenting, seed=3) for _ in range(2))
    torch.randn(5)
    first = one[6]["pixel_values"]
    torch.randn(7)
    assert torch.equal(other[6]["pixel_values"], first)
    assert not torch.equal(one[6]["pixel_values"], first)  # the next epoch's


@pytest.mark.parametrize("method", ["none", "sage", "augment", "cyborg", "gradient"])
def test_a_run_of_each_method(leaves, method):
    settings = {} if method in ("none", "cyborg", "gradient") else coffee_leaf.GROWN
    run = a_run("unknown disease", method=method, **settings)
    scores = coffee_leaf.train_and_score(leaves, run)
    shown = {figure.key for table in coffee_leaf.make_study("", "").tables.values() for figure in table}
    assert shown <= set(scores)
    assert all(0 <= value <= 1 for value in scores.values())
    if method == "none":
        assert set(coffee_leaf.train_and_score(leaves, replace(run, stage="search"))) == {"validation"}


@pytest.mark.parametrize(
    ("name", "body", "blocks", "frozen"),
    [
        (coffee_leaf.MODEL, "efficientnet", "encoder.blocks", range(11)),
        (coffee_leaf.DINOV2, "dinov2", "encoder.layer", range(8)),
    ],
)
def test_frozen_blocks_stay_as_they_are(folders, name, body, blocks, frozen):
    model = coffee_leaf.make_model(f"{folders[1]}/{name}", 5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(pixel_values=torch.randn(4, 3, 32, 32)).logits[:, 0].sum().backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    start = f"{body}.{blocks}."
    assert not [name for name in changed if name.startswith(f"{body}.embeddings.")]
    assert "squeeze_excite" not in " ".join(changed)
    of_blocks = {int(name.removeprefix(start).split(".")[0]) for name in changed if name.startswith(start)}
    count = len(model.get_submodule(f"{body}.{blocks}"))
    assert of_blocks == set(range(count)) - set(frozen)


@pytest.mark.parametrize("method", ["none", "sage", "attention", "gradient"])
def test_a_run_of_the_second_model(folders, method):
    leaves = coffee_leaf.load_leaves(folders[0], f"{folders[1]}/{coffee_leaf.DINOV2}")
    settings = {"none": {}, "sage": coffee_leaf.GROWN}.get(method, {"guidance_weight": 0.1})
    run = a_run(method=method, stage="search", model=coffee_leaf.DINOV2, **settings)
    scores = coffee_leaf.train_and_score(leaves, run)
    assert 0 <= scores["validation"] <= 1


def test_every_method_searches_settings_that_it_takes(tmp_path):
    models = coffee_leaf.make_study("", "").models.values()
    for method, settings in [item for model in models for item in model.search.items()]:
        for one in settings:
            study.SageTrainingArguments(output_dir=str(tmp_path), guidance=method, use_cpu=True, **one)


def test_a_quick_try(folders, tmp_path):
    threads = torch.get_num_threads()
    arguments = ["--data", folders[0], "--checkpoints", folders[1], "--out", str(tmp_path / "out")]
    coffee_leaf.run_main(["run", "--quick", "--seeds", "1", *arguments])
    torch.set_num_threads(threads)
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {(row["model"], row["method"]) for row in record["results"]} == {
        (model, method) for model in (coffee_leaf.MODEL, coffee_leaf.DINOV2) for method in coffee_leaf.MAIN
    }
    assert "Open set" not in (tmp_path / "out" / "table.md").read_text()  # that scenario is not in a quick try


def test_data_without_healthy_leaves_are_refused(folders, tmp_path):
    rows = datasets.load_from_disk(folders[0])["train"].cast_column(
        "label", datasets.ClassLabel(names=[f"class {index}" for index in range(5)])
    )
    datasets.DatasetDict(train=rows).save_to_disk(tmp_path / "data")
    with pytest.raises(ValueError, match="none of them is 'healthy'"):
        coffee_leaf.load_leaves(str(tmp_path / "data"), f"{folders[1]}/{coffee_leaf.MODEL}")


def test_forms_are_compared_seed_by_seed(folders, tmp_path, capsys):
    threads = torch.get_num_threads()
    out = tmp_path / "forms.json"
    arguments = [
        "--out",
        str(out),
        "--data",
        folders[0],
        "--checkpoints",
        folders[1],
        "--epochs",
        "1",
        "--only",
        "background, grown; one pass",
    ]
    coffee_leaf_forms.main([*arguments, "--seeds", "1"])
    first = json.loads(out.read_text())["runs"]
    assert [(run["name"], run["seed"]) for run in first] == [
        ("none", 2000),
        ("background, grown; one pass", 2000),
    ]
    assert all(set(run["scores"]) == set(coffee_leaf_forms.SCORES) for run in first)
    coffee_leaf_forms.main([*arguments, "--seeds", "1"])  # nothing is left to do
    torch.set_num_threads(threads)
    assert json.loads(out.read_text())["runs"] == first
    assert capsys.readouterr().out.count("2000 {") == 2
    with pytest.raises(SystemExit):
        coffee_leaf_forms.main([*arguments, "--model", coffee_leaf.DINOV2])
    assert "has runs of efficientnet-lite0" in capsys.readouterr().err


def test_differences_of_forms_are_paired():
    def run(name, seed, value):
        return {"name": name, "seed": seed, "scores": dict.fromkeys(coffee_leaf_forms.SCORES, value)}

    runs = [run("none", 1, 0.5), run("none", 2, 0.9), run("shuffle", 1, 0.6), run("shuffle", 2, 0.8)]
    lines = coffee_leaf_forms.table(runs).splitlines()
    assert lines[2] == f"| none | 2 |{' 0.700 |' * len(coffee_leaf_forms.SCORES)}"
    # Differences +0.1 and -0.1: mean 0, deviation 0.1414 over two, t(0.975, 1) = 12.706: 12.706 * 0.1.
    assert lines[3].startswith("| shuffle | 2 | 0.700 (+0.000 ± 1.271) |")


def test_every_form_is_one_that_the_arguments_take(tmp_path):
    for method, settings in coffee_leaf_forms.FORMS.values():
        study.SageTrainingArguments(output_dir=str(tmp_path), guidance=method, use_cpu=True, **settings)
