import json
import os
import subprocess
import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from sage_hf.cli import main
from tests.data.annotated import (
    NAMES,
    SIZE,
    expected,
    make_coco,
    make_labels,
    make_maps,
    make_pictures,
    make_voc,
    write_table,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    make_pictures(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def figures(capsys, *arguments):
    assert main(["data", *map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_one_command_for_each_kind(folder, capsys):
    make_coco(folder / "annotations.json")
    make_voc(folder / "voc")
    points = [{"file": name, "x": 5, "y": 6, "duration": 0.2, "class": "leaf"} for name in NAMES]
    write_table(folder / "fixations.jsonl", points)
    for saliency, kept, annotated in (("annotations.json", 5, 5), ("voc", 5, 5), ("fixations.jsonl", 6, 6)):
        arguments = ["--images", "images", "--saliency", saliency, "--out", f"out_{saliency}", "--on-error", "skip"]
        found = figures(capsys, "build", *arguments, *(["--sigma", 3] if "fix" in saliency else []))
        assert (found["kept"], found["annotated"]) == (kept, annotated)
        rows = datasets.load_dataset(f"out_{saliency}", split="train")
        assert np.asarray(rows[0]["saliency"]).argmax() == (6 * SIZE[0] + 5 if "fix" in saliency else 2 * SIZE[0] + 3)


def test_flags_and_config(folder, capsys):
    make_labels(folder / "labels.csv")
    make_maps(folder / "maps")
    (folder / "build.yaml").write_text(
        "images: images\nsaliency: maps\nlabels: labels.csv\nlabel-column: class\nout: out\nclasses: [rust, healthy]\n"
        "granularity: box\n"
    )
    found = figures(capsys, "build", "--config", "build.yaml", "--out", "other")
    assert list(found["classes"]) == ["rust", "healthy"]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["images", "maps", "other"]
    (folder / "build.yaml").write_text("granularty: box\n")
    assert main(["data", "build", "--config", "build.yaml", "--out", "x"]) == 1
    assert "Did you mean 'granularity'?" in capsys.readouterr().err
    arguments = ["--images", "images", "--saliency", "maps", "--out", "converted"]
    assert figures(capsys, "convert", *arguments)["maps"] == 5
    assert np.array_equal(np.asarray(Image.open("converted/0.png")), expected())


def test_refused_rows_are_reported(folder, capsys):
    make_maps(folder / "maps")
    make_labels(folder / "labels.csv")
    (folder / "images" / "3.png").write_bytes(b"")
    arguments = ["build", "--images", "images", "--saliency", "maps", "--labels", "labels.csv"]
    arguments += ["--label-column", "class", "--out", "out"]
    assert main(["data", *arguments]) == 1
    assert "line 5, 3.png: 3.png can't be read" in capsys.readouterr().err
    found = figures(capsys, *arguments, "--on-error", "report")
    assert (found["kept"], found["refused"], found["reused"]) == (5, 1, 5)
    (line,) = (folder / "out.refused.jsonl").read_text().splitlines()
    refused = json.loads(line)
    assert (refused["file"], refused["row"]) == ("3.png", 5)
    assert "can't be read" in refused["reason"]
    arguments[-1] = "again"
    (folder / "again.refused.jsonl").write_text("mine")
    assert main(["data", *arguments, "--on-error", "report"]) == 1
    assert "again.refused.jsonl already exists" in capsys.readouterr().err
    assert (folder / "again.refused.jsonl").read_text() == "mine"
    assert not (folder / "again").exists()
    assert main(["data", *arguments, "--on-error", "skip", "--report", "x.jsonl"]) == 1
    assert "--on-error report" in capsys.readouterr().err


def test_metadata_is_stripped_on_demand(folder, capsys):
    exif = Image.Exif()
    exif[0x013B] = "Jane Doe"
    exif[0x0112] = 6
    Image.new("RGB", SIZE[::-1]).save(folder / "images" / "0.jpg", exif=exif)
    (folder / "images" / "0.png").unlink()
    make_maps(folder / "maps")
    make_labels(folder / "labels.csv")
    arguments = ["build", "--images", "images", "--saliency", "maps", "--labels", "labels.csv"]
    arguments += ["--label-column", "class"]
    figures(capsys, *arguments, "--out", "kept")
    figures(capsys, *arguments, "--out", "stripped", "--metadata", "strip")
    for name, told in (("kept", True), ("stripped", False)):
        rows = datasets.load_dataset(name, split="train")
        assert rows[0]["image"].size == SIZE
        raw = rows.cast_column("image", datasets.Image(decode=False))
        assert (b"Jane Doe" in raw[0]["image"]["bytes"]) == told


def test_in_processes_of_its_own(folder):
    make_maps(folder / "maps")
    make_labels(folder / "labels.csv")
    arguments = ["--images", "images", "--saliency", "maps", "--labels", "labels.csv", "--label-column", "class"]
    command = [
        sys.executable,
        "-m",
        "sage_hf",
        "data",
        "build",
        *arguments,
        "--out",
        "out",
        "--num-proc",
        "2",
        "--json",
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == 6


def test_flags_are_not_abbreviated(folder, capsys):
    """`--conf` would be taken for `--config`, and the file never read."""
    (folder / "build.yaml").write_text("metadata: strip\n")
    with pytest.raises(SystemExit):
        main(["data", "build", "--images", "images", "--saliency", "maps", "--out", "out", "--conf", "build.yaml"])
    assert "unrecognized arguments: --conf" in capsys.readouterr().err
