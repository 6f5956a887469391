"""Maps by a model for the rows that nobody has marked, told apart from people's."""

import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, pipeline
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from sage_hf.cli import main
from sage_hf.data import Source, build_dataset
from sage_hf.data.annotations import MachineSaliency


@pytest.fixture
def model(tmp_path):
    names = {"id2label": {0: "sky", 1: "leaf"}, "label2id": {"sky": 0, "leaf": 1}}
    sizes = {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [8, 8]}
    more = {"patch_sizes": [3, 3], "strides": [2, 2], "num_attention_heads": [1, 1], "mlp_ratios": [2, 2]}
    torch.manual_seed(0)
    segmenter = SegformerForSemanticSegmentation(SegformerConfig(**sizes, **more, decoder_hidden_size=8, **names))
    segmenter.save_pretrained(tmp_path / "segmenter")
    SegformerImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "segmenter")
    return tmp_path / "segmenter"


def test_a_model_fills_in(model, tmp_path, capsys):
    generator = np.random.default_rng(0)
    for folder in ("photos/a", "photos/b", "masks/a"):
        (tmp_path / folder).mkdir(parents=True)
    pictures = {}
    for name in ("a/0", "a/1", "b/0", "b/1"):
        pictures[name] = Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        pictures[name].save(tmp_path / "photos" / f"{name}.png")
    drawn = np.zeros((16, 16), dtype=np.uint8)
    drawn[3:7, 2:9] = 255
    Image.fromarray(drawn).save(tmp_path / "masks/a/0.png")

    arguments = [
        "--images",
        tmp_path / "photos",
        "--saliency",
        tmp_path / "masks",
        "--out",
        tmp_path / "out",
        "--json",
    ]
    machine = ["--machine-saliency", model, "--machine-labels", "leaf"]
    assert main(["data", "build", *map(str, [*arguments, *machine])]) == 0
    figures = json.loads(capsys.readouterr().out)

    # What the pipeline says of each picture, asked directly.
    segment = pipeline("image-segmentation", str(model))
    expected = {
        name: any(found["label"] == "leaf" for found in segment(picture)) for name, picture in pictures.items()
    }
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert rows.features["saliency_source"] == datasets.Value("string")
    by_name = dict(zip(sorted(pictures), rows, strict=True))
    assert by_name["a/0"]["saliency_source"] == "human"
    assert np.array_equal(np.asarray(by_name["a/0"]["saliency"]), drawn)
    for name in ("a/1", "b/0", "b/1"):
        row = by_name[name]
        assert row["saliency_source"] == ("machine: segmenter" if expected[name] else None)
        assert (row["saliency"] is not None) == expected[name]
    made = sum(expected[name] for name in ("a/1", "b/0", "b/1"))
    assert made, "the model marks nothing in any picture"
    assert (figures["annotated"], figures["machine_made"]) == (1 + made, made)
    assert f"({made})" in (tmp_path / "out" / "README.md").read_text()
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text()


def test_a_model_that_does_not_know_the_class_is_found_before_the_work(model, tmp_path, capsys):
    (tmp_path / "photos/a").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "photos/a/0.png")
    Image.new("L", (16, 16), 9).save(tmp_path / "0.png")
    arguments = ["--images", tmp_path / "photos", "--saliency", tmp_path, "--out", tmp_path / "out"]
    machine = ["--machine-saliency", model, "--machine-labels", "cat"]
    assert main(["data", "build", *map(str, [*arguments, *machine])]) == 1
    assert "cat" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_granularity_and_column_follow_what_the_model_made(tmp_path, monkeypatch):
    """A model that marks a diagonal in the first picture, and nothing in the second."""
    drawn = np.eye(16, dtype=np.float32)
    monkeypatch.setattr(MachineSaliency, "load", lambda self: None)
    monkeypatch.setattr(
        MachineSaliency, "saliency_of", lambda self, image: drawn if image.getpixel((0, 0)) == (9, 9, 9) else None
    )
    machine = MachineSaliency("me/model", "segmentation", labels=("leaf",))
    (tmp_path / "photos/a").mkdir(parents=True)
    for index, shade in enumerate((9, 0)):
        Image.new("RGB", (16, 16), (shade,) * 3).save(tmp_path / f"photos/a/{index}.png")
    (tmp_path / "masks/a").mkdir(parents=True)
    Image.new("L", (16, 16), 9).save(tmp_path / "masks/a/0.png")
    alone = Source(images=tmp_path / "photos")
    report = build_dataset(alone, tmp_path / "box", machine=machine, granularity="box")
    assert (report.annotated, report.machine_made) == (1, 1)
    rows = datasets.load_dataset(str(tmp_path / "box"), split="train")
    assert np.asarray(rows[0]["saliency"]).min() == 255
    assert rows["saliency_source"][:] == ["machine: me/model", None]
    people = Source(images=tmp_path / "photos", saliency=tmp_path / "masks")
    report = build_dataset(people, tmp_path / "people", machine=machine)
    assert (report.annotated, report.machine_made) == (1, 0)
    assert datasets.load_dataset(str(tmp_path / "people"), split="train").column_names == [
        "image",
        "saliency",
        "label",
    ]
