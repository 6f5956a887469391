"""Hundreds of damaged files and rows: no crash, no hang, no good row lost, nothing read outside the given folders."""

import csv
import io
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

GOOD = 24
SECRET = "outside"

# Loaded by every Python process of the command, workers too: says which files under the test's folder are opened.
WATCH = """
import os, sys
root, log = os.environ["WATCHED"], os.environ["WATCH_LOG"]

def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path.startswith(root):
            descriptor = os_open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, (path + "\\n").encode())
            os.close(descriptor)

def os_open(path, flags):
    sys_watch[0] = False
    try:
        return os.open(path, flags)
    finally:
        sys_watch[0] = True

sys_watch = [True]
sys.addaudithook(lambda event, arguments: watch(event, arguments) if sys_watch[0] else None)
"""


def png(width, height):
    """A picture file that declares a size and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def npy(shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64


def encoded(values, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format=kind)
    return buffer.getvalue()


def damaged(whole, kind):
    """Ways to break a file: each a function of randomness to its bytes."""
    ways = [
        lambda chance: b"",
        lambda chance: whole[: chance.randrange(1, len(whole) // 2)],
        lambda chance: bytes(chance.randrange(256) for _ in range(400)),
        lambda chance: b"<html>404 Not Found</html>",
        lambda chance: b"\0" * 5000,
        lambda chance: b"GIF89a" + b"\xff\xff\xff\xff" + b"\0" * 9,
        lambda chance: png(60_000, 60_000),
        lambda chance: png(2**31 - 1, 2**31 - 1),
        lambda chance: whole[:30] + bytes(chance.randrange(256) for _ in range(40)),
    ]
    if kind == "map":
        ways.append(lambda chance: encoded(np.zeros((5, 50), dtype=np.uint8) + 9))
    return ways


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folders with good and damaged pictures and maps, and the rows that name them."""
    root = tmp_path_factory.mktemp("fuzz")
    chance, generator = random.Random(0), np.random.default_rng(0)
    images, maps, outside = root / "images", root / "maps", root / SECRET
    for folder in (images, maps, outside):
        folder.mkdir()
    photograph = encoded(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8), "JPEG")
    marked = np.zeros((20, 30), dtype=np.uint8)
    marked[4:9, 5:12] = 200
    drawn = encoded(marked)
    rows = []

    def row(name, label="a", *, image=photograph, saliency=drawn, suffix=".png"):
        if image is not None:
            (images / f"{name}.jpg").write_bytes(image)
        if saliency is not None:
            (maps / f"{name}{suffix}").write_bytes(saliency)
        rows.append({"file": f"{name}.jpg", "class": label})

    for index in range(GOOD):
        row(f"good-{index}", "ab"[index % 2])
    for index in range(8):
        for number, way in enumerate(damaged(photograph, "image")):
            row(f"bad-image-{index}-{number}", image=way(chance))
        for number, way in enumerate(damaged(drawn, "map")):
            row(f"bad-map-{index}-{number}", saliency=way(chance))
        row(f"bad-npy-{index}", saliency=npy((10 ** chance.randrange(5, 12), 10**5)), suffix=".npy")
        row(f"bad-pickle-{index}", saliency=b"\x80\x04\x95\x10" + b"cos\nsystem\n", suffix=".npy")
    (outside / "secret.jpg").write_bytes(photograph)
    (outside / "secret.png").write_bytes(drawn)
    (images / "bad-link.jpg").symlink_to(outside / "secret.jpg")
    (images / "bad-folder").symlink_to(outside)
    row("bad-map-link", saliency=None)
    (maps / "bad-map-link.png").symlink_to(outside / "secret.png")
    os.mkfifo(images / "bad-pipe.jpg")
    os.mkfifo(maps / "good-0.tif")
    (images / "bad-directory.jpg").mkdir()
    names = ["bad-link.jpg", "bad-folder/secret.jpg", "bad-pipe.jpg", "bad-directory.jpg", "", " ", "bad\0name.jpg"]
    names += ["../outside/secret.jpg", str(outside / "secret.jpg"), "..", "/", "/dev/zero", "/etc/passwd", "x" * 5000]
    names += ["images/../../outside/secret.jpg", "~/secret.jpg", "file:///etc/passwd", "http://127.0.0.1:9/a.jpg"]
    rows += [{"file": name, "class": "a"} for name in names]
    (images / "good-unlabelled.jpg").write_bytes(photograph)
    rows += [{"file": "good-unlabelled.jpg", "class": ""}, {"file": "good-1.jpg", "class": "b"}]
    chance.shuffle(rows)
    return root, rows


def command(root, *arguments):
    """A command in a process of its own, and the files of the test's folder that it opened."""
    (root / "watch").mkdir(exist_ok=True)
    (root / "watch" / "sitecustomize.py").write_text(WATCH)
    log = root / "watch" / "opened.txt"
    log.unlink(missing_ok=True)
    paths = os.pathsep.join([str(root / "watch"), str(Path(__file__).parents[2])])
    environment = os.environ | {
        "PYTHONPATH": paths,
        "WATCHED": str(root.resolve()),
        "WATCH_LOG": str(log),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(root / "home"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "sage_hf", "data", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=root,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    opened = set(log.read_text().splitlines()) if log.exists() else set()
    assert opened, "the watch saw nothing"
    assert not [path for path in opened if f"/{SECRET}/" in path]
    return done


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def report_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def names_of(out):
    """The names of the pictures that a built folder holds."""
    splits = datasets.load_dataset(str(out), split="train", cache_dir=str(out) + "-cache")
    stored = splits.cast_column("image", datasets.Image(decode=False))
    for row in splits:  # what was kept can be read
        row["image"].load()
    return sorted(picture["path"] for picture in stored["image"])


def build(root, *arguments, out="out"):
    report = root / f"{out}.jsonl"
    done = command(
        root, "build", *arguments, "--on-error", "report", "--report", report, "--out", root / out, "--json"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout)
    refused = report_of(report)
    assert figures["refused"] == len(refused)
    assert all(row["reason"] for row in refused)
    return figures, refused, names_of(root / out)


GOOD_NAMES = sorted(f"good-{index}.jpg" for index in range(GOOD))


@pytest.mark.parametrize("processes", [1, 2])
def test_folders_and_a_table(pictures, processes):
    root, rows = pictures
    table = root / f"labels-{processes}.csv"
    write_csv(table, rows)
    # Lines that are no text, and a quote that is never closed.
    with table.open("ab") as file:
        file.write(b'gr\xfc\xdf.jpg,a\r\n\xff\xfe\x00\r\n"never closed,a\r\n')
        file.write(b"good-late.jpg,a\r\n")
    (root / "images" / "good-late.jpg").write_bytes((root / "images" / "good-0.jpg").read_bytes())
    arguments = ["--images", root / "images", "--saliency", root / "maps", "--labels", table]
    figures, refused, names = build(
        root, *arguments, "--label-column", "class", "--num-proc", processes, out=f"folders-{processes}"
    )
    # A map that is a link out of its folder is as good as none.
    assert [name for name in names if name != "bad-map-link.jpg"] == sorted([*GOOD_NAMES, "good-late.jpg"])
    assert figures["annotated"] == GOOD
    bad = [row["file"] for row in rows if row["file"].startswith("bad-") and row["file"] != "bad-map-link.jpg"]
    assert len(bad) > 150
    assert set(bad) - {"bad\0name.jpg"} <= {row["file"] for row in refused}


def coco(annotations):
    """Good regions of the good pictures, and damage on pictures of their own."""
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
    for index in range(GOOD):
        content["images"].append({"id": index, "file_name": f"good-{index}.jpg", "width": 30, "height": 20})
        box = {"bbox": [3, 4, 9, 7], "segmentation": [[3, 4, 12, 4, 12, 11, 3, 11]]}
        content["annotations"].append({"id": index, "image_id": index, "category_id": 1 + index % 2, **box})
    for number, annotation in enumerate(annotations, start=1000):
        content["images"].append({"id": number, "file_name": f"damaged-{number}.jpg", "width": 30, "height": 20})
        content["annotations"].append({"id": number, "image_id": number, "category_id": 1} | annotation)
    content["images"] += [
        {},
        None,
        [],
        {"id": 9},
        {"id": 10**6, "file_name": "../outside/secret.jpg"},
        {"file_name": 3},
    ]
    content["images"] += [{"id": 10**6 + 1, "file_name": "bad-link.jpg", "width": 10**9, "height": -1}]
    content["annotations"] += [
        {},
        None,
        3,
        {"image_id": None},
        {"image_id": [1]},
        {"image_id": 77777, "bbox": [1, 1, 1, 1]},
    ]
    return content


DAMAGED_REGIONS = (
    [
        {"bbox": box}
        for box in (
            [],
            [1],
            [1, 2, 3],
            ["a"] * 4,
            [None] * 4,
            [1, 2, -3, 4],
            [1e308] * 4,
            [float("nan")] * 4,
            [1, 2, 0, 0],
            3,
            "x",
        )
    ]
    + [
        {"segmentation": region}
        for region in (
            [[]],
            [[1, 2, 3]],
            [[1, 2, 3, 4]],
            [["a", "b"] * 4],
            [[float("inf")] * 8],
            [[1e300, 1, -1e300, 2, 5, 1e300]],
            [[500, 500, 600, 500, 600, 600]],
            3,
            "abc",
            {"size": [20, 30], "counts": [10**12]},
            {"size": [10**9, 10**9], "counts": [10**18]},
            {"size": [20, 30], "counts": [-1, 601]},
            {"size": [20, 30], "counts": "\x01garbage~~~"},
            {"size": [20, 30], "counts": "o" * 100_000},
            {"size": "x", "counts": None},
            {"counts": [600]},
        )
    ]
    + [{"category_id": None, "bbox": [1, 1, 5, 5]}, {"category_id": 77, "bbox": [1, 1, 5, 5]}, {"category_id": {}}]
)


def test_coco(pictures):
    root, _ = pictures
    content = coco(DAMAGED_REGIONS)
    for image in content["images"]:
        if isinstance(image, dict) and str(image.get("file_name", "")).startswith("damaged-"):
            (root / "images" / image["file_name"]).write_bytes((root / "images" / "good-0.jpg").read_bytes())
    (root / "coco.json").write_text(json.dumps(content))
    figures, refused, names = build(
        root, "--images", root / "images", "--saliency", root / "coco.json", "--label-from", "annotation", out="coco"
    )
    assert [name for name in names if name.startswith("good-")] == GOOD_NAMES
    assert not [name for name in names if name.startswith(("bad-", "secret"))]
    # Whatever was kept beside them has a map, or had nothing to make one of.
    assert figures["annotated"] >= GOOD
    kept = {name for name in names if name.startswith("damaged-")}
    assert {row["file"] for row in refused if str(row["file"]).startswith("damaged-")} | kept == {
        f"damaged-{number}.jpg" for number in range(1000, 1000 + len(DAMAGED_REGIONS))
    }
    assert len(kept) <= 2


VOC = (
    "<annotation><size><width>30</width><height>20</height></size><object><name>{name}</name><bndbox>"
    "<xmin>{xmin}</xmin><ymin>5</ymin><xmax>12</xmax><ymax>11</ymax></bndbox></object></annotation>"
)
DAMAGED_XML = [
    b"",
    b"\xff\xfe<",
    VOC.format(name="a", xmin=4).encode()[:90],
    VOC.format(name="a", xmin="nan").encode(),
    VOC.format(name="a", xmin="x").encode(),
    VOC.format(name="a", xmin=400).encode(),
    VOC.format(name="", xmin=4).encode(),
    b"<annotation><object><name>a</name></object></annotation>",
    b"<other/>",
    b"<annotation>" + b"<a>" * 20_000,
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><object><name>&x;</name></object></annotation>',
    b'<!DOCTYPE a [<!ENTITY x "lol"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">]><annotation>&y;</annotation>',
]


def test_voc(pictures):
    root, _ = pictures
    folder = root / "voc"
    folder.mkdir()
    for index in range(GOOD):
        (folder / f"good-{index}.xml").write_text(VOC.format(name="ab"[index % 2], xmin=4))
    for number, content in enumerate(DAMAGED_XML):
        (folder / f"xml-{number}.xml").write_bytes(content)
        (root / "images" / f"xml-{number}.jpg").write_bytes((root / "images" / "good-0.jpg").read_bytes())
    (folder / "good-99.xml").symlink_to(root / SECRET / "secret.png")
    os.mkfifo(folder / "pipe.xml")
    figures, refused, names = build(
        root, "--images", root / "images", "--saliency", folder, "--label-from", "annotation", out="built-voc"
    )
    assert names == GOOD_NAMES
    assert figures["annotated"] == GOOD
    assert {f"xml-{number}.jpg" for number in range(len(DAMAGED_XML))} <= {
        Path(row["file"]).with_suffix(".jpg").name for row in refused
    }


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_fixations(pictures, suffix):
    root, _ = pictures
    rows = [
        {"file": f"good-{index}.jpg", "x": x, "y": 8, "duration": 200, "label": "ab"[index % 2]}
        for index in range(GOOD)
        for x in (5, 9.5)
    ]
    broken = [
        ("nan", 3, 1),
        ("inf", 3, 1),
        ("", 3, 1),
        ("x", 3, 1),
        (900, 900, 1),
        (4, 4, -1),
        (4, 4, "nan"),
        ("1e400", 2, 1),
    ]
    for number, (x, y, duration) in enumerate(broken):
        (root / "images" / f"points-{number}.jpg").write_bytes((root / "images" / "good-0.jpg").read_bytes())
        rows.append({"file": f"points-{number}.jpg", "x": x, "y": y, "duration": duration, "label": "a"})
    rows += [
        {"file": name, "x": 1, "y": 1, "duration": 1, "label": "a"}
        for name in ("", "../outside/secret.jpg", "/etc/passwd")
    ]
    table = root / f"fixations{suffix}"
    if suffix == ".csv":
        write_csv(table, rows)
        garbage = b"good-0.jpg,1,2\xff\xfe,3,a\r\n"
    else:
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        garbage = b'{"file": \n[1, 2]\n"text"\n{"file": {"a": 1}, "x": 1}\n' + b"[" * 5000 + b"\n\xff\xfe\n"
    with table.open("ab") as file:
        file.write(garbage.replace(b"good-0.jpg", b"points-0.jpg"))
    figures, refused, names = build(
        root,
        *("--images", root / "images", "--saliency", table, "--sigma", 3, "--label-from", "annotation"),
        out=f"fixations-{suffix[1:]}",
    )
    assert [name for name in names if name.startswith("good-")] == GOOD_NAMES
    assert names == GOOD_NAMES
    assert figures["annotated"] == GOOD
    assert {f"points-{number}.jpg" for number in range(len(broken))} <= {row["file"] for row in refused}


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 3000, b"\xff\xfef\0i\0l\0e\0", b"file;class", b"PAR1\0\0\0\0PAR1", b"{" * 100_000, b"\n\n\n"],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".json"])
def test_tables_that_are_none(pictures, content, suffix, capsys):
    root, _ = pictures
    from sage_hf.cli import main

    table = root / f"table{suffix}"
    table.write_bytes(content)
    arguments = [
        "--images",
        root / "images",
        "--saliency",
        root / "maps",
        "--labels",
        table,
        "--label-column",
        "class",
    ]
    assert main(["data", "build", *map(str, arguments), "--out", str(root / "never"), "--on-error", "skip"]) == 1
    assert str(table) in capsys.readouterr().err
    assert not (root / "never").exists()


def test_check_of_damaged_rows(pictures):
    root, _ = pictures
    folder = root / "stored"
    files = sorted((root / "images").glob("bad-image-*.jpg")), sorted((root / "maps").glob("bad-map-*.png"))
    good = (root / "images" / "good-0.jpg").read_bytes(), (root / "maps" / "good-0.png").read_bytes()
    rows = [{"image": {"bytes": path.read_bytes(), "path": path.name}, "saliency": None} for path in files[0]]
    rows += [
        {"image": {"bytes": good[0], "path": path.name}, "saliency": {"bytes": path.read_bytes(), "path": path.name}}
        for path in files[1]
        if not path.is_symlink()
    ]
    damaged_rows = len(rows)
    rows += [
        {"image": {"bytes": good[0], "path": f"{index}.jpg"}, "saliency": {"bytes": good[1], "path": f"{index}.png"}}
        for index in range(GOOD)
    ]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "saliency": datasets.Image(mode="L"),
            "label": datasets.ClassLabel(names=["a", "b"]),
        }
    )
    stored = datasets.Dataset.from_list(
        [row | {"label": number % 2} for number, row in enumerate(rows)], features=features
    )
    (folder / "data").mkdir(parents=True)
    stored.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    done = command(root, "check", folder, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    counts = {finding["check"]: finding["count"] for finding in report["findings"]}
    found = counts["unreadable-picture"] + counts["unreadable-map"] + counts.get("map-aspect", 0)
    assert found == damaged_rows
    assert report["stats"]["rows"] == len(rows)
    # A map of another shape marks something all the same.
    assert report["stats"]["splits"]["train"]["annotated"] == GOOD + counts["map-aspect"]
