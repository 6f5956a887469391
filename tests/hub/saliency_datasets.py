"""Saliency datasets that the tests push, and what becomes of them."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import datasets
import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image

from sage_hf.data.parquet import ShardedWriter
from sage_hf.hub import push_dataset
from tests.conftest import CLASSES
from tests.hub.accounts import WRITE_TOKEN
from tests.hub.client import client, environment, run_script

REPO = "me/leaves"
COUNTS = {"train": 6, "test": 4}


def jpeg(index, size=(24, 16), **kwargs):
    """A JPEG file: were it encoded again, its bytes would be others."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(index).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=61, **kwargs)
    return buffer.getvalue()


def png(values):
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def make_splits(several=False, **changes):
    """Two splits of distinct pictures; the second of every three rows has no map."""
    splits, number = {}, 0
    saliency = datasets.Image(mode="L")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "saliency": datasets.List(saliency) if several else saliency,
            "label": datasets.ClassLabel(names=CLASSES),
            **{name: datasets.Value("string") for name in changes},
        }
    )
    for split, count in COUNTS.items():
        rows = {name: [] for name in features}
        for index in range(count):
            values = np.zeros((16, 24))
            values[3 : 6 + index, 2 + number : 9 + number] = 255
            stored = {"bytes": png(values), "path": f"{number}.png"}
            stored = None if index % 3 == 1 else stored
            rows["image"].append({"bytes": jpeg(number), "path": f"{number}.jpg"})
            rows["saliency"].append([stored] * (1 + index % 2) if several and stored else [] if several else stored)
            rows["label"].append(index % 3)
            for name, value in changes.items():
                rows[name].append(value)
            number += 1
        splits[split] = datasets.Dataset.from_dict(rows, features=features)
    return datasets.DatasetDict(splits)


def build(folder, splits, text="---\nlicense: mit\n---\n"):
    """A folder as `sage-hf data build` writes it."""
    writer = ShardedWriter(folder / "data", splits["train"].features)
    for name, split in splits.items():
        writer.write_table(name, split.with_format("arrow")[:])
    writer.close()
    (folder / "README.md").write_text(text)
    return folder


def stored_rows(split):
    """Rows as they are stored: files' bytes and names."""
    table = split.with_format("arrow")[:]
    return table.to_pylist()


def push(dataset, server, token=WRITE_TOKEN, repo=REPO, **kwargs):
    waits = []
    pushed = push_dataset(dataset, repo, api=client(server, token), wait=waits.append, **kwargs)
    return pushed, waits


def card_of(server, repo=REPO, revision="main"):
    return server.read(repo, "README.md", kind="datasets", revision=revision).decode()


def front_of(server, repo=REPO):
    return yaml.safe_load(card_of(server, repo).split("---\n")[1])


def files_of(server, repo=REPO, revision="main"):
    return set(server.files(repo, kind="datasets", revision=revision))


LOAD = """
import hashlib, io, json
import datasets

def told(row):
    row = dict(row)
    maps = row["saliency"] if isinstance(row["saliency"], list) else [row["saliency"]]
    row["saliency"] = [one and [one["path"], hashlib.sha256(one["bytes"]).hexdigest()] for one in maps]
    row["image"] = [row["image"]["path"], hashlib.sha256(row["image"]["bytes"]).hexdigest()]
    return row

def stored(split):
    several = isinstance(split.features["saliency"], datasets.List)
    plain = datasets.Image(decode=False)
    split = split.cast_column("saliency", datasets.List(plain) if several else plain)
    return split.cast_column("image", plain)

found = {}
for mode in (False, True):
    splits = datasets.load_dataset(REPO, streaming=mode, **MORE)
    found[str(mode)] = {name: [told(row) for row in stored(split)] for name, split in splits.items()}
    next(iter(splits["train"]))["image"].load()
    found["features"] = repr(splits["train"].features)
print(json.dumps(found))
"""


def loaded(server, work, repo=REPO, token=WRITE_TOKEN, **more):
    """The rows of both modes, and the features, as a process that knows nothing of sage_hf loads them."""
    work.mkdir(exist_ok=True)
    output = run_script(f"REPO, MORE = {repo!r}, {more!r}\n{LOAD}", server, work, token)
    return json.loads(output.splitlines()[-1])


def expected(splits):
    scope = {}
    exec(LOAD.partition("found = {}")[0], scope)
    return {
        name: json.loads(json.dumps([scope["told"](row) for row in stored_rows(split)]))
        for name, split in splits.items()
    }


def published(server, repo=REPO, revision="main"):
    """The rows in the repository's files."""
    found = {}
    for name in sorted(files_of(server, repo, revision)):
        if name.startswith("data/"):
            content = server.read(repo, name, kind="datasets", revision=revision)
            found.setdefault(name.split("/")[1].split("-")[0], []).extend(
                pq.read_table(io.BytesIO(content)).to_pylist()
            )
    return found


def check_files(server, splits, revision="main"):
    assert published(server, revision=revision) == {name: stored_rows(split) for name, split in splits.items()}


def check_rows(found, splits):
    assert found["False"] == found["True"] == expected(splits)
    assert found["features"] == repr(splits["train"].features)


def run_cli(arguments, server, work, token=WRITE_TOKEN):
    command = [sys.executable, "-m", "sage_hf", "data", *map(str, arguments)]
    outer = environment(server, work / "home", token)
    return subprocess.run(command, env=outer, capture_output=True, text=True, timeout=300, check=False)
