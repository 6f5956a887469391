"""The files and datasets that the pages' commands name, all small."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import numpy as np
import transformers
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

SIZE = 48
CONVNEXT = {"image_size": 32, "patch_size": 4, "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]}
VIT = {
    "image_size": 32,
    "patch_size": 16,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
CHECKPOINTS = {
    "facebook/convnextv2-tiny-1k-224": ("ConvNextV2ForImageClassification", CONVNEXT),
    "google/vit-base-patch16-224": ("ViTForImageClassification", VIT),
    "microsoft/resnet-50": ("ResNetForImageClassification", RESNET),
}
SPLITS = ["train"] * 12 + ["validation"] * 6 + ["test"] * 6
NAMES = [f"leaf-{index:02}.png" for index in range(1, len(SPLITS) + 1)]
BOX = (10, 8, 30, 26)


def write_table(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def labelled(path: Path, column: str, classes: list[str]) -> None:
    """A table of all pictures, their classes in turn."""
    rows = [
        {"file": name, column: classes[index % len(classes)], "split": SPLITS[index]}
        for index, name in enumerate(NAMES)
    ]
    write_table(path, rows)


def make_pictures(folder: Path) -> None:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in NAMES:
        Image.fromarray(generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(folder / name)


def make_maps(folder: Path, value: int = 255) -> None:
    folder.mkdir()
    left, top, right, bottom = BOX
    for index, name in enumerate(NAMES):
        if index % 5 != 4:
            saliency = np.zeros((SIZE, SIZE), dtype=np.uint8)
            saliency[top + index // 2 : bottom + index // 2, left:right] = value
            Image.fromarray(saliency).save(folder / name)


def make_material(folder: Path) -> None:
    """Everything that a page may name, in one folder."""
    folder.mkdir(parents=True)
    for name in ("photos", "radiographs", "faces", "parts"):
        make_pictures(folder / name)
    for name in ("masks", "drawn"):
        make_maps(folder / name)
    make_maps(folder / "lesions", value=2)
    labelled(folder / "labels.csv", "class", ["healthy", "rust", "miner"])
    labelled(folder / "findings.csv", "finding", ["none", "effusion"])
    labelled(folder / "presentations.csv", "presentation", ["live", "print", "replay"])
    labelled(folder / "parts.csv", "state", ["good", "scratch"])
    gaze = [
        {"file": name, "x": 20 + reader, "y": 15 + index / 2, "duration": 0.3, "annotator": f"reader {reader}"}
        for index, name in enumerate(NAMES)
        for reader in (1, 2)
    ]
    write_table(folder / "gaze.csv", gaze)
    left, top, right, bottom = BOX
    shares = {"x_center": 0.4, "y_center": 0.35, "width": 0.4, "height": 0.4}
    write_table(folder / "boxes.csv", [{"file": name, **shares} for name in NAMES])
    coco = {
        "images": [{"id": i, "file_name": name, "width": SIZE, "height": SIZE} for i, name in enumerate(NAMES)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [left, top, right - left, bottom - top]}
            for i in range(len(NAMES) - 2)
        ],
        "categories": [{"id": 1, "name": "scratch"}, {"id": 2, "name": "dent"}],
    }
    (folder / "instances.json").write_text(json.dumps(coco))
    (folder / "annotations").mkdir()
    for name in NAMES:
        (folder / "annotations" / name).with_suffix(".xml").write_text(
            f"<annotation><filename>{name}</filename><size><width>{SIZE}</width><height>{SIZE}</height></size>"
            f"<object><name>scratch</name><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>"
            f"<ymax>{bottom}</ymax></bndbox></object></annotation>"
        )
    make_dataset(["none", "effusion"], ["test"]).save_to_disk(folder / "other-hospital")
    known = ["live", "print", "replay", "mask"]
    make_dataset(known, ["validation", "test"], seed=3).save_to_disk(folder / "pad-with-masks")
    (folder / "run.yaml").write_text(
        "model: facebook/convnextv2-tiny-1k-224\ndataset: you/lesions\noutput_dir: from-file\nmax_steps: 2\n"
    )


def make_dataset(classes: list[str], splits: list[str], seed: int = 1) -> datasets.DatasetDict:
    """Splits of twelve rows of noise."""
    generator = np.random.default_rng(seed)
    features = datasets.Features(
        image=datasets.Image(), saliency=datasets.Image(mode="L"), label=datasets.ClassLabel(names=classes)
    )
    made = {}
    for split in splits:
        pictures = [Image.fromarray(generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)) for _ in range(12)]
        marked = np.zeros((SIZE, SIZE), dtype=np.uint8)
        marked[10:30, 12:34] = 255
        columns = {
            "image": pictures,
            "saliency": [Image.fromarray(marked)] * 10 + [None] * 2,
            "label": [index % len(classes) for index in range(12)],
        }
        made[split] = datasets.Dataset.from_dict(columns, features=features)
    return datasets.DatasetDict(made)


def make_hub(root: Path) -> None:
    """Tiny checkpoints and a dataset, under the names that the pages use."""
    for name, (kind, settings) in CHECKPOINTS.items():
        model = getattr(transformers, kind)
        model(model.config_class(**settings, num_labels=10)).save_pretrained(root / "models" / name)
        ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(root / "models" / name)
    for split, rows in make_dataset(["healthy", "rust", "miner"], ["train", "validation"]).items():
        file = root / "datasets" / "you" / "lesions" / "data" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(file)
