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
        lambda chance: whole[: chance.randrange(1, len(whole) - 12)],
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
