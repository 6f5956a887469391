import csv
import json

import datasets
import numpy as np
import pytest
from PIL import Image

from sage_hf import DataError
from sage_hf.cli import main
from sage_hf.data import Source, build_dataset


@pytest.fixture
def source(tmp_path):
    """Six pictures, maps for four of them (one blank), and a table."""
    for folder in ("images/deep", "maps/deep"):
        (tmp_path / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    table = []
    for index in range(6):
        name = f"deep/{index}" if index == 5 else str(index)
        picture = Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8))
        picture.save(tmp_path / "images" / f"{name}.jpg")
        if index not in (1, 4):
            values = np.zeros((20, 30), dtype=np.uint16)
            if index != 0:
                values[2:9, 3:11] = 1000 * index
            Image.fromarray(values).save(tmp_path / "maps" / f"{name}.png")
        table.append(
            {
                "file": f"{name}.jpg",
                "class": "rust" if index % 2 else "healthy",
                "part": "val" if index == 5 else "train",
            }
        )
    write(tmp_path / "labels.csv", table)
    return tmp_path, table


def write(path, table):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)


def of(folder, **settings):
    usual = {"images": folder / "images", "saliency": (folder / "maps",), "labels": folder / "labels.csv"}
    return Source(**usual | {"label_column": "class"} | settings)


def build(folder, split_column=None, **kwargs):
    return build_dataset(of(folder, split_column=split_column), folder / "out", **kwargs)


def test_folder_loads_with_bytes_and_features(source):
    folder, _ = source
    report = build(folder, split_column="part")
    assert (report.kept, report.annotated, report.refused) == (6, 3, [])
    assert report.splits == {"train": 5, "validation": 1}
    # The sources are gone, so what is read is inside.
    (folder / "images").rename(folder / "elsewhere")
    splits = datasets.load_dataset(str(folder / "out"))
    assert splits["train"].features == datasets.Features(
        {
            "image": datasets.Image(),
            "saliency": datasets.Image(mode="L"),
            "label": datasets.ClassLabel(names=["healthy", "rust"]),
        }
    )
    assert [row["saliency"] is None for row in splits["train"]] == [True, True, False, False, True]
    assert splits["train"]["label"] == [0, 1, 0, 1, 0]
    row = splits["validation"][0]
    assert row["label"] == 1
    saliency = np.asarray(row["saliency"])
    assert saliency[2:9, 3:11].min() == 255
    assert saliency.sum() == 255 * 7 * 8
    original = Image.open(folder / "elsewhere" / "deep" / "5.jpg")
    assert np.array_equal(np.asarray(row["image"]), np.asarray(original))
    streamed = list(datasets.load_dataset(str(folder / "out"), split="train", streaming=True))
    assert [row["label"] for row in streamed] == [0, 1, 0, 1, 0]


def test_card_says_what_is_inside(source):
    folder, _ = source
    build(folder)
    card = (folder / "out" / "README.md").read_text()
    assert card.startswith("---\ntask_categories:\n- image-classification\n")
    assert "6 pictures, 3 of them with a saliency map" in card
    assert "| rust | 3 |" in card


def test_shards(source, monkeypatch):
    folder, _ = source
    monkeypatch.setattr("sage_hf.data.parquet.SHARD_BYTES", 1)
    monkeypatch.setattr("sage_hf.data.parquet.ShardedWriter.ROWS", 2)
    build(folder)
    names = sorted(path.name for path in (folder / "out" / "data").iterdir())
    assert names == [f"train-{index:05d}-of-00003.parquet" for index in range(3)]
    assert datasets.load_dataset(str(folder / "out"), split="train")["label"] == [0, 1, 0, 1, 0, 1]


DAMAGES = {
    "there is no such picture": lambda folder, table: table[0].update(file="nobody.jpg"),
    "it has no class": lambda folder, table: table[0].update({"class": " "}),
    "the map is 20x30, its image 30x20": lambda folder, table: Image.new("L", (20, 30), 9).save(folder / "maps/2.png"),
    "2.png: it can't be read": lambda folder, table: (folder / "maps/2.png").write_bytes(b"\x89PNG\r\n\x1a\n"),
    "3.jpg can't be read": lambda folder, table: (folder / "images/3.jpg").write_bytes(
        (folder / "images/3.jpg").read_bytes()[:300]
    ),
    "2.tif: the map has NaN": lambda folder, table: (
        (folder / "maps/2.png").unlink(),
        Image.fromarray(np.full((20, 30), np.nan, dtype=np.float32)).save(folder / "maps/2.tif"),
    ),
    "is listed in line 3 already": lambda folder, table: table[3].update(file="1.jpg"),
    "'hold-out' can't be the name of a split": lambda folder, table: table[3].update(part="hold-out"),
    "several maps fit: 2.png, 2.tif": lambda folder, table: Image.new("L", (30, 20)).save(folder / "maps/2.tif"),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_a_bad_row_is_named_and_never_costs_the_good_ones(source, reason):
    folder, table = source
    DAMAGES[reason](folder, table)
    write(folder / "labels.csv", table)
    with pytest.raises(DataError, match=r"1 of 6 rows can't be used; nothing was written") as error:
        build(folder, split_column="part")
    assert reason in str(error.value)
    assert {path.name for path in folder.iterdir()} <= {".out.parts", "images", "labels.csv", "maps"}
    report = build(folder, split_column="part", on_error="skip")
    assert report.kept == 5
    (refused,) = report.refused
    assert reason in refused.reason
    assert sorted(path.name for path in folder.iterdir()) == ["images", "labels.csv", "maps", "out"]
    assert sum(len(split) for split in datasets.load_dataset(str(folder / "out")).values()) == 5


def test_paths_that_lead_out_of_the_folder_are_not_followed(source):
    folder, table = source
    Image.new("RGB", (30, 20)).save(folder / "secret.jpg")
    (folder / "images" / "link.jpg").symlink_to(folder / "secret.jpg")
    table[0]["file"], table[1]["file"] = "../secret.jpg", "link.jpg"
    table[2]["file"] = str(folder / "secret.jpg")
    write(folder / "labels.csv", table)
    report = build(folder, on_error="skip")
    assert [refused.file for refused in report.refused] == [row["file"] for row in table[:3]]


def test_a_name_with_dots_is_not_taken_for_an_extension(source):
    folder, table = source
    for index, name in ((0, "lesion"), (1, "lesion.v2")):
        (folder / "images" / f"{index}.jpg").rename(folder / "images" / f"{name}.jpg")
        table[index]["file"] = name
    write(folder / "labels.csv", table)
    build(folder)
    rows = datasets.load_dataset(str(folder / "out"), split="train")
    for index, name in ((0, "lesion"), (1, "lesion.v2")):
        with Image.open(folder / "images" / f"{name}.jpg") as original:
            assert np.array_equal(np.asarray(rows[index]["image"]), np.asarray(original))


def test_maps_that_are_named_otherwise_are_noticed(source):
    folder, _ = source
    for path in list((folder / "maps").rglob("*.png")):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    with pytest.raises(DataError, match=r"none of the 6 pictures has a map.*'0.jpg' under"):
        build(folder)


def test_classes_choose_rows_and_order(source):
    folder, _ = source
    report = build(folder, classes=["rust", "miner"], on_error="skip")
    assert (report.kept, len(report.refused)) == (3, 3)
    assert report.classes == {"rust": 3, "miner": 0}
    assert datasets.load_dataset(str(folder / "out"), split="train").features["label"].names == ["rust", "miner"]


def test_what_stops_a_build_is_explained(source):
    folder, _ = source
    with pytest.raises(DataError, match="no column 'klass'; the columns are file, class, part"):
        build_dataset(of(folder, label_column="klass"), folder / "out")
    with pytest.raises(DataError, match="is not a folder"):
        build_dataset(of(folder, images=folder / "pictures"), folder / "out")
    with pytest.raises(DataError, match="no such file"):
        build_dataset(of(folder, labels=folder / "table.csv"), folder / "out")
    (folder / "labels.csv").write_bytes("file,class\n0.jpg,caf\xe9\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        build(folder)
    (folder / "labels.csv").write_text("file,class\n")
    with pytest.raises(DataError, match="has no rows"):
        build(folder)
    (folder / "labels.csv").write_text("who,class\n0,a\n")
    with pytest.raises(DataError, match="--file-column"):
        build(folder)
    (folder / "labels.csv").write_text("file,class\n0,a\n")
    with pytest.raises(ValueError, match="num_proc is 0"):
        build(folder, num_proc=0)
    assert sorted(path.name for path in folder.iterdir()) == ["images", "labels.csv", "maps"]
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        build(folder)
    assert (folder / "out" / "mine.txt").read_text() == "mine"


def test_command(source, capsys):
    folder, _ = source
    arguments = ["data", "build", "--images", str(folder / "images"), "--saliency", str(folder / "maps")]
    arguments += ["--labels", str(folder / "labels.csv"), "--label-column", "class", "--out", str(folder / "out")]
    assert main([*arguments, "--classes", "rust", "--json"]) == 1
    assert "line 2, 0.jpg: class 'healthy' is not one of rust" in capsys.readouterr().err
    assert main([*arguments, "--classes", "rust", "--on-error", "skip", "--json"]) == 0
    output = capsys.readouterr()
    figures = json.loads(output.out)
    assert (figures["kept"], figures["refused"], figures["annotated"]) == (3, 3, 2)
    assert output.err.count("refused: line") == 3


def test_programs_are_not_run(source, monkeypatch):
    """Pillow would hand Postscript to an interpreter, whatever the file is called."""
    folder, _ = source
    run = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **kwargs: run.append(args))
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n%%EndComments\n(/etc/passwd) (r) file\n%%EOF\n"
    (folder / "images" / "0.jpg").write_bytes(program)
    (folder / "maps" / "2.png").write_bytes(program)
    report = build(folder, on_error="skip")
    assert [refused.file for refused in report.refused] == ["0.jpg", "2.jpg"]
    assert not run
