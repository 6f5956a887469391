"""Six pictures of 30x20 pixels, and the same rectangle marked in five of them in every common way."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (30, 20)
BOX = (3, 2, 11, 9)
"""Left, top, right, bottom: pixels 3 to 10 and 2 to 8."""
NAMES = [f"{index}.png" for index in range(6)]
CLASSES = ["rust" if index % 2 else "healthy" for index in range(6)]


def expected() -> np.ndarray:
    """The map of the rectangle."""
    saliency = np.zeros(SIZE[::-1], dtype=np.uint8)
    saliency[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    return saliency


def make_pictures(folder: Path, names: list[str] = NAMES) -> Path:
    generator = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(folder / name)
    return folder


def make_labels(path: Path, names: list[str] = NAMES) -> Path:
    return write_table(path, [{"file": name, "class": label} for name, label in zip(names, CLASSES, strict=True)])


def write_table(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        import pandas

        pandas.DataFrame(rows).to_parquet(path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return path


def make_maps(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in NAMES[:5]:
        Image.fromarray(expected()).save(folder / name)
    return folder


def coco(names: list[str] = NAMES) -> dict:
    """Polygon, box, uncompressed run lengths, box and polygon of two classes' objects; the sixth has nothing."""
    left, top, right, bottom = BOX
    polygon = [left, top, right, top, right, bottom, left, bottom]
    runs, inside = [left * SIZE[1] + top], bottom - top
    for _ in range(right - left - 1):
        runs += [inside, SIZE[1] - inside]
    runs += [inside, SIZE[0] * SIZE[1] - sum(runs) - inside]
    shapes = [
        {"segmentation": [polygon]},
        {"bbox": [left, top, right - left, bottom - top]},
        {"segmentation": {"counts": runs, "size": [SIZE[1], SIZE[0]]}, "iscrowd": 1},
        {"segmentation": [], "bbox": [left, top, right - left, bottom - top]},
        {"segmentation": [polygon]},
    ]
    return {
        "images": [
            {"id": 10 + index, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
            for index, name in enumerate(names)
        ],
        "annotations": [
            {"id": index, "image_id": 10 + index, "category_id": 1 + index % 2, **shape}
            for index, shape in enumerate(shapes)
        ],
        "categories": [{"id": 1, "name": "healthy"}, {"id": 2, "name": "rust"}],
    }


def make_coco(path: Path, content: dict | None = None) -> Path:
    path.write_text(json.dumps(content or coco()))
    return path


def make_voc(folder: Path) -> Path:
    folder.mkdir(parents=True)
    left, top, right, bottom = BOX
    for index, name in enumerate(NAMES[:5]):
        # Pascal VOC counts pixels from 1, and both corners are inside.
        (folder / name).with_suffix(".xml").write_text(
            f"<annotation><filename>{name}</filename><size><width>30</width><height>20</height></size>"
            f"<object><name>{CLASSES[index]}</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
            f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object></annotation>"
        )
    return folder


def box_rows(box_format: str, normalised: bool = False) -> list[dict]:
    left, top, right, bottom = BOX
    width, height = SIZE if normalised else (1, 1)
    values = {
        "xyxy": {"xmin": left / width, "ymin": top / height, "xmax": right / width, "ymax": bottom / height},
        "xywh": {
            "x": left / width,
            "y": top / height,
            "width": (right - left) / width,
            "height": (bottom - top) / height,
        },
        "cxcywh": {
            "cx": (left + right) / 2 / width,
            "cy": (top + bottom) / 2 / height,
            "w": (right - left) / width,
            "h": (bottom - top) / height,
        },
    }[box_format]
    return [{"file": name, **values, "class": label} for name, label in zip(NAMES[:5], CLASSES[:5], strict=True)]
