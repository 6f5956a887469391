import json
import shutil

import numpy as np
import pytest
from PIL import Image

from sage_hf import DataError
from sage_hf.data import Source, build_dataset, convert_annotations
from tests.data.annotated import NAMES, SIZE, box_rows, expected, make_coco, make_maps, make_pictures, write_table


@pytest.fixture
def folder(tmp_path):
    make_pictures(tmp_path / "images")
    return tmp_path


def convert(folder, *saliency, out="maps", **kwargs):
    return convert_annotations(Source(images=folder / "images", saliency=saliency), folder / out, **kwargs)


def maps(folder):
    return {
        path.relative_to(folder).as_posix(): np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))
    }


def test_maps_of_annotations_can_be_built_from(folder):
    report = convert(folder, make_coco(folder / "annotations.json"))
    assert (report.pictures, report.annotated, report.maps, report.reused, report.refused) == (6, 5, 5, 0, [])
    made = maps(folder / "maps")
    assert list(made) == NAMES[:5]
    for values in made.values():
        assert values.dtype == np.uint8
        assert np.array_equal(values, expected())
    table = write_table(folder / "labels.csv", [{"file": name, "class": "leaf"} for name in NAMES])
    source = Source(images=folder / "images", saliency=folder / "maps", labels=table, label_column="class")
    assert build_dataset(source, folder / "dataset").annotated == 5


def test_good_maps_are_kept(folder):
    table = write_table(folder / "boxes.csv", box_rows("xyxy"))
    convert(folder, table)
    before = {name: (folder / "maps" / name).stat().st_mtime_ns for name in NAMES[:5]}
    damaged = (folder / "maps" / "1.png").read_bytes()
    (folder / "maps" / "1.png").write_bytes(damaged[:-30])
    (folder / "maps" / "2.png").unlink()
    rows = box_rows("xyxy")
    rows[3]["xmin"] = 10
    write_table(table, rows[:4])  # one other box, and one withdrawn
    report = convert(folder, table)
    assert (report.annotated, report.reused) == (4, 1)
    assert (folder / "maps" / "0.png").stat().st_mtime_ns == before["0.png"]
    assert (folder / "maps" / "1.png").read_bytes() == damaged
    made = maps(folder / "maps")
    assert list(made) == NAMES[:4]
    assert made["3.png"].sum() == 255 * 7
    with pytest.raises(FileExistsError, match="was not made with these settings"):
        convert(folder, table, granularity="box")


def test_nothing_of_a_user_is_overwritten(folder):
    table = write_table(folder / "boxes.csv", box_rows("xyxy"))
    convert(folder, table)
    Image.new("L", SIZE, 7).save(folder / "maps" / "1.png")
    report = convert(folder, table, on_error="report")
    assert [refusal.file for refusal in report.refused] == ["1.png"]
    assert "is there already" in report.refused[0].reason
    assert maps(folder / "maps")["1.png"].max() == 7
    (written,) = map(json.loads, (folder / "maps.refused.jsonl").read_text().splitlines())
    assert written["file"] == "1.png"
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="move it away"):
        convert(folder, table, out="mine")
    with pytest.raises(ValueError, match="inside the folder of the pictures"):
        convert(folder, table, out="images/maps")


def test_annotators_that_are_kept_apart(folder):
    rows = [{**row, "annotator": who} for row in box_rows("xyxy")[:2] for who in ("anna", "ben")]
    rows[1]["xmax"] = 5
    report = convert(folder, write_table(folder / "boxes.csv", rows), annotators="keep")
    assert (report.annotated, report.maps) == (2, 4)
    made = maps(folder / "maps")
    assert list(made) == ["1/0.png", "1/1.png", "2/0.png", "2/1.png"]
    assert (made["1/0.png"].sum(), made["2/0.png"].sum()) == (255 * 8 * 7, 255 * 2 * 7)
    assert convert(folder, folder / "boxes.csv", annotators="keep").reused == 2


def test_damage_is_named_and_the_rest_converted(folder):
    source = make_maps(folder / "masks")
    (source / "1.png").write_bytes(b"no picture")
    (folder / "images" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", SIZE).save(folder / "images" / "3.jpg")
    with pytest.raises(DataError, match=r"(?s)3 of 7 rows can't be used; 3 maps of others are in .*1\.png.*2\.png"):
        convert(folder, source)
    report = convert(folder, source, on_error="skip")
    assert (report.annotated, report.reused) == (3, 3)
    assert any("its map would be 3.png" in refusal.reason for refusal in report.refused)


def test_ids_of_a_dataset_stay_in_the_folder(folder):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "id": datasets.Value("string")})
    ids = ["a.1", "sub/b.jpg", "../c", "/tmp/d", ""]
    content = (folder / "images" / "0.png").read_bytes()
    rows = [{"image": {"bytes": content, "path": "x.png"}, "id": identity} for identity in ids]
    (folder / "existing").mkdir()
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "existing" / "train.parquet")
    box = box_rows("xyxy")[0]
    table = write_table(folder / "boxes.csv", [{**box, "file": identity or "row 5"} for identity in ids])
    source = Source(dataset=str(folder / "existing"), saliency=table)
    report = convert_annotations(source, folder / "maps", on_error="skip")
    assert list(maps(folder / "maps")) == ["a.1.png", "row 5.png", "sub/b.png"]
    assert [refusal.file for refusal in report.refused] == ["../c", "/tmp/d"]


def of_annotators(table, *who):
    rows = [{**box_rows("xyxy")[int(name)], "annotator": one} for name, one in who]
    return write_table(table, rows)


def test_maps_of_annotators_that_were_withdrawn_are_removed(folder):
    table = of_annotators(folder / "boxes.csv", "0a", "0b", "0c", "1a")
    convert(folder, table, annotators="keep")
    (folder / "maps" / "3" / "mine").mkdir()
    Image.new("L", SIZE, 7).save(folder / "maps" / "3" / "mine" / "1.png")
    assert list(maps(folder / "maps")) == ["1/0.png", "1/1.png", "2/0.png", "3/0.png", "3/mine/1.png"]
    of_annotators(table, "0a", "0c", "1a")
    report = convert(folder, table, annotators="keep")
    assert (report.maps, report.reused) == (3, 1)
    assert list(maps(folder / "maps")) == ["1/0.png", "1/1.png", "2/0.png", "3/mine/1.png"]
    of_annotators(table, "0a", "0b", "0c", "1a")
    convert(folder, table, annotators="keep")
    of_annotators(table, "1a")
    assert convert(folder, table, annotators="keep").reused == 1
    assert list(maps(folder / "maps")) == ["1/1.png", "3/mine/1.png"]


@pytest.mark.parametrize("annotators", ["keep", "mean"])
def test_maps_of_pictures_that_are_gone_are_removed(folder, annotators):
    coco = make_coco(folder / "annotations.json")
    convert(folder, coco, annotators=annotators)
    kept = [name for name in maps(folder / "maps") if "0.png" not in name]
    notes = (folder / "maps" / "notes.png", folder / "maps" / "1.txt")
    for path in notes:
        path.write_bytes(b"mine")
    convert(folder, coco, out="maps/1/other")
    others = list(maps(folder / "maps" / "1" / "other"))
    (folder / "images" / "0.png").rename(folder / "0.png")
    (folder / "images" / "1.png").write_bytes(b"damaged, which may be mended")
    report = convert(folder, coco, annotators=annotators, on_error="skip")
    assert [refusal.file for refusal in report.refused] == ["1.png", "0.png"]
    for path in notes:
        assert path.read_bytes() == b"mine"
        path.unlink()
    assert list(maps(folder / "maps" / "1" / "other")) == others
    shutil.rmtree(folder / "maps" / "1" / "other")
    assert list(maps(folder / "maps")) == kept
    for path in (folder / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError):
        convert(folder, coco, annotators=annotators)  # a folder that is not mounted, say
    assert list(maps(folder / "maps")) == kept


@pytest.mark.parametrize("damage", [False, True])
def test_maps_of_rows_of_a_dataset_that_are_gone(folder, damage):
    import datasets

    content = (folder / "images" / "0.png").read_bytes()
    features = datasets.Features({"image": datasets.Image(), "id": datasets.Value("string")})

    def save(*ids):
        rows = [{"image": {"bytes": content, "path": None} if name else None, "id": name or "?"} for name in ids]
        (folder / "existing").mkdir(exist_ok=True)
        datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "existing" / "train.parquet")

    table = write_table(folder / "boxes.csv", box_rows("xyxy"))
    source = Source(dataset=str(folder / "existing"), saliency=table)
    save("0", "1")
    convert_annotations(source, folder / "maps")
    save("0", *[None] * damage)
    convert_annotations(source, folder / "maps", on_error="skip")
    # What a row can't be told of may be the one whose map is there.
    assert list(maps(folder / "maps")) == (["0.png", "1.png"] if damage else ["0.png"])


def test_the_same_words_elsewhere_are_other_settings(tmp_path, monkeypatch):
    """Relative paths of two folders with pictures of their own, to one folder of maps."""
    for name, files in (("a", ["p1.png", "p2.png"]), ("b", ["q1.png"])):
        make_pictures(tmp_path / name / "photos", files)
        rows = [row | {"file": file} for file in files for row in box_rows("xyxy")[:1]]
        write_table(tmp_path / name / "boxes.csv", rows)
    source = Source(images="photos", saliency="boxes.csv")
    monkeypatch.chdir(tmp_path / "a")
    convert_annotations(source, tmp_path / "maps")
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(FileExistsError, match="was not made with these settings"):
        convert_annotations(source, tmp_path / "maps")
    assert list(maps(tmp_path / "maps")) == ["p1.png", "p2.png"]
    monkeypatch.chdir(tmp_path)
    absolute = Source(images=tmp_path / "a" / "photos", saliency=tmp_path / "a" / "boxes.csv")
    assert convert_annotations(absolute, tmp_path / "maps").maps == 2  # the same ones
