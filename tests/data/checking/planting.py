"""A healthy dataset, and what damages its rows, for tests that plant defects."""

from __future__ import annotations

import io
import zlib
from typing import Any

import datasets
import numpy as np
from PIL import Image, PngImagePlugin

CLASSES = ["healthy", "rust"]
SIZE = (48, 40)
SHAPE = SIZE[::-1]


def encoded(image: Image.Image | np.ndarray, name: str, **settings: Any) -> dict[str, Any]:
    """A picture as a dataset stores it; the file's format is told by its name."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, format=Image.registered_extensions()["." + name.rpartition(".")[2]], **settings)
    return {"bytes": buffer.getvalue(), "path": name}


def healthy_rows(count: int = 24, seed: int = 0) -> list[dict[str, Any]]:
    """Pictures of random blobs, each with a map that marks a rectangle somewhere, and every class alike."""
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        blobs = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(SIZE)
        rows.append(
            {
                "image": encoded(blobs, f"{index}.png"),
                "saliency": encoded(healthy_map(generator), f"{index}.png"),
                "label": index % len(CLASSES),
            }
        )
    return rows


def healthy_map(generator: np.random.Generator) -> np.ndarray:
    """uint8 (40, 48): a rectangle of 8 to 12 pixels on each side, anywhere."""
    values = np.zeros(SIZE[::-1], dtype=np.uint8)
    height, width = generator.integers(8, 13, 2)
    top, left = generator.integers(SIZE[1] - height + 1), generator.integers(SIZE[0] - width + 1)
    values[top : top + height, left : left + width] = generator.integers(100, 256)
    return values


def as_splits(
    rows: list[dict[str, Any]], saliency: Any = None, classes: list[str] | None = None, **features: Any
) -> datasets.DatasetDict:
    """The first two thirds as `train`, the rest as `test`."""
    columns = datasets.Features(
        {
            "image": datasets.Image(),
            "saliency": saliency or datasets.Image(),
            "label": datasets.ClassLabel(names=classes or CLASSES),
            **features,
        }
    )
    columns = datasets.Features({name: columns[name] for name in columns if any(name in row for row in rows)})
    cut = len(rows) * 2 // 3
    return datasets.DatasetDict(
        train=datasets.Dataset.from_list(rows[:cut], features=columns),
        test=datasets.Dataset.from_list(rows[cut:], features=columns),
    )


def image_of(stored):
    return Image.open(io.BytesIO(stored["bytes"]))


def with_exif(stored, name="0.jpg", **tags):
    image = image_of(stored)
    exif = image.getexif()
    for tag, value in tags.items():
        exif[getattr(Image.ExifTags.Base, tag)] = value
    return encoded(image.convert("RGB"), name, exif=exif)


def gps(stored):
    image = image_of(stored)
    exif = image.getexif()
    exif.get_ifd(Image.ExifTags.IFD.GPSInfo)[Image.ExifTags.GPS.GPSLatitude] = (51.0, 30.0, 0.0)
    return encoded(image, "0.jpg", exif=exif)


def png_text(stored, key, value):
    info = PngImagePlugin.PngInfo()
    info.add_itxt(key, value)
    return encoded(image_of(stored), "0.png", pnginfo=info)


def with_iptc(stored, block):
    """A JPEG with a block of IPTC, in the form that Photoshop writes."""
    resource = b"8BIM" + (0x0404).to_bytes(2, "big") + b"\0\0" + len(block).to_bytes(4, "big") + block
    content = b"Photoshop 3.0\0" + resource + b"\0" * (len(block) % 2)
    jpeg = encoded(image_of(stored), "0.jpg")["bytes"]
    segment = b"\xff\xed" + (len(content) + 2).to_bytes(2, "big") + content
    return {"bytes": jpeg[:2] + segment + jpeg[2:], "path": "0.jpg"}


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/"><rdf:Description {}>'
    "<dc:creator><rdf:Seq><rdf:li>{}</rdf:li></rdf:Seq></dc:creator></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def map_of(row, values):
    row["saliency"] = encoded(np.asarray(values), "0.tif")


def float_map(value):
    values = np.full(SHAPE, 0.5, dtype=np.float32)
    values[0, 0] = value
    return values


def frame():
    values = np.full(SHAPE, 255, dtype=np.uint8)
    values[14:26, 16:32] = 0
    return values


def dot():
    values = np.zeros((400, 480), dtype=np.uint8)
    values[7, 9] = 255
    return values


def nearly_full():
    values = np.full(SHAPE, 255, dtype=np.uint8)
    values[0, :] = 0
    return values


def sideways(row):
    """A picture that was taken upright: 48x40 pixels with a tag that makes it 40x48."""
    row["image"] = with_exif(row["image"], Orientation=6)


def damage(stored):
    return {"bytes": stored["bytes"][: len(stored["bytes"]) // 2], "path": stored["path"]}


def bomb(stored):
    """A PNG whose header declares 60,000x60,000 pixels."""
    data = bytearray(encoded(Image.new("L", (8, 8)), "0.png")["bytes"])
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return {"bytes": bytes(data), "path": stored["path"]}
