import json

import datasets
import numpy as np
import pytest
from datasets.data_files import SPLIT_KEYWORDS
from PIL import Image

from sage_hf import DataError
from sage_hf.data import Source, build_dataset
from sage_hf.data.sources import SourceReader
from sage_hf.data.sources.reader import placed
from sage_hf.data.sources.tables import Table
from tests.data.annotated import (
    CLASSES,
    NAMES,
    SIZE,
    box_rows,
    coco,
    expected,
    make_coco,
    make_labels,
    make_maps,
    make_pictures,
    make_voc,
    write_table,
)


@pytest.fixture
def folder(tmp_path):
    make_pictures(tmp_path / "images")
    return tmp_path


def built(folder, saliency, out="out", on_error="raise", **settings):
    arguments = {name: settings.pop(name) for name in ("classes", "annotators", "granularity") if name in settings}
    saliency = saliency if isinstance(saliency, tuple) else (saliency,)
    source = Source(**{"images": folder / "images", "saliency": saliency} | settings)
    report = build_dataset(source, folder / out, on_error=on_error, **arguments)
    return report, datasets.load_dataset(str(folder / out), split="train")


MAKERS = {
    "maps": lambda folder: make_maps(folder / "maps"),
    "coco": lambda folder: make_coco(folder / "annotations.json"),
    "voc": lambda folder: make_voc(folder / "voc"),
    "xyxy.csv": lambda folder: write_table(folder / "boxes.csv", box_rows("xyxy")),
    "xywh.jsonl": lambda folder: write_table(folder / "boxes.jsonl", box_rows("xywh")),
    "cxcywh.parquet": lambda folder: write_table(folder / "boxes.parquet", box_rows("cxcywh")),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_gives_the_same_maps(folder, kind):
    labels = make_labels(folder / "labels.csv")
    report, rows = built(folder, MAKERS[kind](folder), labels=labels, label_column="class")
    assert (report.kept, report.annotated, report.refused, report.unused) == (6, 5, [], [])
    assert [rows.features["label"].int2str(row["label"]) for row in rows] == CLASSES
    for row in rows.select(range(5)):
        assert np.array_equal(np.asarray(row["saliency"]), expected())
    assert rows[5]["saliency"] is None


def test_yolo_tables_are_normalised_boxes(folder):
    table = write_table(folder / "boxes.csv", box_rows("cxcywh", normalised=True))
    report, rows = built(folder, table, normalised=True)
    assert report.classes == {"healthy": 3, "rust": 2}
    assert np.array_equal(np.asarray(rows[0]["saliency"]), expected())


def test_fixations_with_durations_and_annotators(folder):
    points = [(5, 4, 100, "anna"), (20, 15, 300, "anna"), (5, 4, 100, "ben")]
    rows = [dict(zip(("x", "y", "duration", "annotator"), point, strict=True)) for point in points]
    table = write_table(folder / "fixations.csv", [{"file": "0.png", **row} for row in rows])
    labels = make_labels(folder / "labels.csv")
    given = {"labels": labels, "label_column": "class", "sigma": 2.0}
    _, dataset = built(folder, table, annotators="keep", **given)
    assert dataset.features["saliency"] == datasets.List(datasets.Image(mode="L"))
    anna, ben = (np.asarray(saliency, dtype=float) for saliency in dataset[0]["saliency"])
    assert dataset[1]["saliency"] == []
    # Weighted by their durations, a third and one; a point counts at the pixel that it lies in.
    across, down = np.arange(SIZE[0]), np.arange(SIZE[1])[:, None]

    def gaussian(x, y):
        return np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * 2.0**2))

    drawn = gaussian(5, 4) / 3 + gaussian(20, 15)
    assert np.abs(anna - 255 * drawn / drawn.max()).max() <= 1
    assert np.abs(ben - 255 * gaussian(5, 4) / gaussian(5, 4).max()).max() <= 1
    _, combined = built(folder, table, out="mean", **given)
    mean = (anna + ben) / 2
    assert np.abs(np.asarray(combined[0]["saliency"]) - 255 * mean / mean.max()).max() <= 2
    # 1 degree at 600 mm is 10.47 mm, or 10.47 pixels of 1 mm.
    with pytest.raises(ValueError, match="all of visual_angle, viewing_distance and pixel_pitch"):
        built(folder, table, out="none", **given, visual_angle=1.0)
    reader = SourceReader(
        Source(
            images=folder / "images",
            saliency=(table,),
            labels=labels,
            label_column="class",
            visual_angle=1.0,
            viewing_distance=600.0,
            pixel_pitch=1.0,
        )
    )
    assert next(reader.rows()).annotations[0].sigma == pytest.approx(10.47, abs=0.01)
    with pytest.raises(ValueError, match="--sigma"):
        built(folder, table, **given | {"sigma": None}, out="none")


def test_several_sources_are_several_annotators(folder):
    labels = make_labels(folder / "labels.csv")
    (folder / "others").mkdir()
    other = np.zeros(SIZE[::-1], dtype=np.uint8)
    other[5:15, 5:25] = 9
    Image.fromarray(other).save(folder / "others" / "0.png")
    saliency = (make_maps(folder / "maps"), folder / "others")
    given = {"labels": labels, "label_column": "class"}
    first, second = expected() > 0, other > 0
    for how, marked in (("union", first | second), ("intersection", first & second)):
        _, rows = built(folder, saliency, out=how, annotators=how, **given)
        assert np.array_equal(np.asarray(rows[0]["saliency"]), 255 * marked)
        assert np.array_equal(np.asarray(rows[1]["saliency"]), expected())
    report, rows = built(folder, saliency, out="keep", annotators="keep", granularity="box", **given)
    assert [len(row["saliency"]) for row in rows] == [2, 1, 1, 1, 1, 0]
    assert report.annotated == 5


def test_classes_of_masks(folder):
    labels = make_labels(folder / "labels.csv")
    (folder / "masks").mkdir()
    mask = np.zeros(SIZE[::-1], dtype=np.uint8)
    mask[:5], mask[5:9] = 1, 7
    Image.fromarray(mask).save(folder / "masks" / "2.png")
    _, rows = built(folder, folder / "masks", labels=labels, label_column="class", mask_classes=(7,))
    assert np.array_equal(np.asarray(rows[2]["saliency"]), 255 * (mask == 7))


def test_classes_come_from_folders(tmp_path):
    names = [
        f"{split}/{label}/{index}.png"
        for index, (split, label) in enumerate(zip(["train", "val"] * 3, CLASSES, strict=True))
    ]
    make_pictures(tmp_path / "images", names)
    for name in names:
        (tmp_path / "maps" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(expected()).save(tmp_path / "maps" / name)
    report, rows = built(tmp_path, tmp_path / "maps")
    assert report.splits == {"train": 3, "validation": 3}
    assert report.classes == {"healthy": 3, "rust": 3}
    assert [rows.features["label"].int2str(label) for label in rows["label"]] == ["healthy"] * 3


@pytest.mark.parametrize("names", SPLIT_KEYWORDS.values(), ids=str)
def test_folders_of_splits_are_those_of_datasets(names):
    (split,) = (split for split, keywords in SPLIT_KEYWORDS.items() if keywords is names)
    for name in names:
        assert placed(f"{name.capitalize()}/rust/0.png") == ("rust", str(split))
        assert placed(f"{name}/0.png") == ("", str(split))
    assert placed("rust/0.png") == ("rust", "train")


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        (["training", "testing"], None),
        (["rust", "healthy"], None),
        (["rust", "test_tube"], None),
        (["train", "test_set"], "test_set look like splits"),
        (["Train-2020", "test.2"], "Train-2020, test.2 look like splits"),
    ],
)
def test_folders_that_look_like_splits_are_warned_of(tmp_path, caplog, names, warned):
    make_pictures(tmp_path / "images", [f"{name}/rust/{index}.png" for name in names for index in range(2)])
    (tmp_path / "maps").mkdir()
    source = Source(images=tmp_path / "images", saliency=(tmp_path / "maps",))
    splits = [row.split for row in SourceReader(source).rows()]
    assert splits == (["test", "test", "train", "train"] if names[0] == "training" else ["train"] * 4)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * bool(warned)
    assert (warned or "") in caplog.text


def test_classes_come_from_what_is_marked(folder):
    content = coco()
    content["annotations"].append({"id": 9, "image_id": 11, "category_id": 1, "bbox": [0, 0, 2, 2]})
    path = make_coco(folder / "annotations.json", content)
    with pytest.raises(
        DataError, match=r"(?s)2 of 6 rows.*entry 2, 1.png: rust, healthy are marked.*6, 5.png: nothing"
    ):
        built(folder, path)
    _, rows = built(folder, path, on_error="skip")
    assert [rows.features["label"].int2str(row["label"]) for row in rows] == ["healthy", "healthy", "rust", "healthy"]
    _, rows = built(folder, path, out="several", problem_type="multi_label_classification")
    assert rows.features["label"] == datasets.List(datasets.ClassLabel(names=["healthy", "rust"]))
    assert rows["label"][:] == [[0], [1, 0], [0], [1], [0], []]
    _, rows = built(folder, path, out="chosen", problem_type="multi_label_classification", categories=("healthy",))
    saliency = np.zeros(SIZE[::-1], dtype=np.uint8)
    saliency[:2, :2] = 255
    assert np.array_equal(np.asarray(rows[1]["saliency"]), saliency)
    assert rows[3]["saliency"] is None
    with pytest.raises(DataError, match="no category 'miner'; it has healthy, rust"):
        built(folder, path, out="none", categories=("miner",))
    voc, rows = built(folder, make_voc(folder / "voc"), out="voc_out")
    assert (voc.kept, voc.classes) == (5, {"healthy": 3, "rust": 2})


def test_nothing_gives_labels(folder):
    with pytest.raises(DataError, match="--labels"):
        built(folder, make_maps(folder / "maps"))


def test_other_problem_types(folder):
    several = [
        {"file": name, "kind": kind}
        for name, kind in zip(NAMES, ["a|b", "", '["b"]', "b | a", "a", "a|a"], strict=True)
    ]
    labels = write_table(folder / "several.csv", several)
    maps = make_maps(folder / "maps")
    given = {"label_column": "kind", "labels": labels}
    _, rows = built(folder, maps, problem_type="multi_label_classification", **given)
    assert rows["label"][:] == [[0, 1], [], [1], [1, 0], [0], [0]]
    grades = [
        {"file": name, "kind": kind} for name, kind in zip(NAMES, ["1", "0.5", "-2e1", "nan", "much", ""], strict=True)
    ]
    given["labels"] = write_table(folder / "grades.csv", grades)
    report, rows = built(folder, maps, out="grades", problem_type="regression", on_error="skip", **given)
    assert rows.features["label"] == datasets.Value("float32")
    assert rows["label"][:] == [1.0, 0.5, -20.0]
    assert [refusal.reason for refusal in report.refused] == [
        "'nan' is no finite number.",
        "'much' is no finite number.",
        "it has no number.",
    ]


def test_maps_join_an_existing_dataset_by_id(folder):
    images = [(folder / "images" / name).read_bytes() for name in NAMES]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "id": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["rust", "healthy"]),
            "note": datasets.Value("string"),
        }
    )
    rows = [
        {"image": {"bytes": content, "path": None}, "id": str(index), "label": index % 2, "note": "x"}
        for index, content in enumerate(images)
    ]
    existing = datasets.Dataset.from_list(rows, features=features)
    (folder / "existing").mkdir()
    existing.select(range(4)).to_parquet(folder / "existing" / "train.parquet")
    existing.select(range(4, 6)).to_parquet(folder / "existing" / "test.parquet")
    source = {"images": None, "dataset": str(folder / "existing")}
    report, joined = built(folder, make_coco(folder / "annotations.json"), **source)
    assert (report.kept, report.annotated, report.splits) == (6, 5, {"train": 4, "test": 2})
    assert joined.features["label"].names == ["rust", "healthy"]
    assert joined["label"][:] == [0, 1, 0, 1]
    raw = joined.cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in raw] == images[:4]
    assert np.array_equal(np.asarray(joined[2]["saliency"]), expected())
    # Its own maps, when none are given: made coarser, say.
    source["dataset"] = str(folder / "out")
    report, again = built(folder, (), out="again", granularity="box", **source)
    assert (report.kept, report.annotated) == (6, 5)
    assert np.array_equal(np.asarray(again[2]["saliency"]), expected())
    source["dataset"] = str(folder / "existing")
    with pytest.raises(DataError, match="no column 'who'; the columns are image, id, label, note"):
        built(folder, folder / "annotations.json", **source | {"id_column": "who"}, out="none")


def test_a_dataset_can_not_point_out_of_itself(folder):
    Image.new("RGB", SIZE).save(folder / "secret.png")
    features = datasets.Features({"image": datasets.Image(), "id": datasets.Value("string")})
    rows = [{"image": {"bytes": None, "path": str(folder / "secret.png")}, "id": "0"}]
    (folder / "existing").mkdir()
    table = datasets.Dataset.from_list(rows, features=features).data.table
    import pyarrow.parquet as pq

    pq.write_table(table, folder / "existing" / "train.parquet")
    source = Source(dataset=str(folder / "existing"), saliency=(make_maps(folder / "maps"),))
    (row,) = SourceReader(source, labelled=False).rows()
    assert row.picture is None
    assert "not inside the dataset" in row.error


def test_damaged_annotations_cost_their_picture_alone(folder):
    labels = make_labels(folder / "labels.csv")
    rows = [*box_rows("xyxy"), {**box_rows("xyxy")[0], "xmax": "wide"}, {**box_rows("xyxy")[1], "file": "../5.png"}]
    given = {"labels": labels, "label_column": "class", "on_error": "skip"}
    report, _ = built(folder, write_table(folder / "boxes.csv", rows), **given)
    assert report.kept == 5
    assert [(refusal.file, refusal.row) for refusal in report.refused] == [("0.png", 2), ("../5.png", 8)]
    assert "boxes.csv, line 7: xmax 'wide' is no finite number" in report.refused[0].reason
    content = coco()
    content["annotations"][0]["category_id"] = 12
    content["annotations"][1]["bbox"] = "here"
    content["annotations"].append({"image_id": 99, "bbox": [0, 0, 1, 1]})
    content["annotations"].append("what?")
    content["images"].append({"id": 50, "file_name": "nobody.png"})
    report, _ = built(folder, make_coco(folder / "annotations.json", content), out="coco", **given)
    assert report.kept == 4
    reasons = {refusal.file: refusal.reason for refusal in report.refused[:2]}
    assert "no category 12" in reasons["0.png"]
    assert "bbox here is not four finite numbers" in reasons["1.png"]
    assert "no such picture" in report.refused[2].reason
    assert sum("belongs to none of the images" in refusal.reason for refusal in report.refused) == 2
    voc = make_voc(folder / "voc")
    (voc / "0.xml").write_text("<annotation><object>")
    (voc / "1.xml").write_text('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;</annotation>')
    (voc / "2.xml").write_text("<svg/>")
    report, _ = built(folder, voc, out="voc_out", **given)
    assert [refusal.file for refusal in report.refused] == NAMES[:3]
    assert "EntitiesForbidden" in report.refused[1].reason


LINES = {
    "a.png,rust": None,
    'b.png,"rust': "never closed",
    "c.png": None,
    'd.png,"two\nlines"': None,
    "e.png,rust,1,2": "4 cells",
    'f.png,"quoted, comma"': None,
    "g.png,caf\xe9": "not UTF-8",
    "": None,
    "h.png," + "x" * 200_000: "field larger",
    "i.png,\0": "zero bytes",
    "j.png,last": None,
}


def test_a_damaged_line_costs_itself_alone(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(("file,class\n" + "\n".join(LINES)).encode("latin-1"))
    records = list(Table(path))
    assert [record.cells["file"] for record in records if record.error is None] == [
        line[:5] for line, error in LINES.items() if line and error is None
    ]
    wrong = {record.cells.get("file", "")[:5]: record.error for record in records if record.error is not None}
    for line, error in LINES.items():
        if error is not None:
            assert error in wrong.get(line[:5], wrong.get("", "")), line
    assert [record.cells["class"] for record in records if record.row == 6] == ["two\nlines"]


def test_json_tables(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_bytes(b'{"file": "a", "class": "x"}\n[1]\n{"file": "b"\n\xff\n' + b"[" * 100_000 + b'\n{"file": 7}\n')
    records = list(Table(path))
    assert [record.row for record in records if record.error is None] == [1, 6]
    assert len(records) == 6
    (tmp_path / "list.json").write_text(json.dumps([{"file": "a"}, 3]))
    assert [record.error for record in Table(tmp_path / "list.json")] == [None, "it is no JSON object."]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1" + b"\0" * 30 + b"PAR1")
    with pytest.raises(DataError, match="is no Parquet file"):
        Table(tmp_path / "broken.parquet")


def test_what_a_source_must_have(folder):
    with pytest.raises(ValueError, match="either images"):
        Source(saliency=("maps",))
    with pytest.raises(ValueError, match="Give saliency"):
        SourceReader(Source(images="images"))
    with pytest.raises(ValueError, match="Unknown annotation_format 'cocoa'"):
        Source(images="images", saliency=("maps",), annotation_format="cocoa")
    (folder / "odd.csv").write_text("file,colour\n1.png,red\n")
    with pytest.raises(DataError, match="neither boxes nor fixations among the columns file, colour"):
        SourceReader(Source(images=folder / "images", saliency=(folder / "odd.csv",)))
    with pytest.raises(DataError, match="no such file"):
        SourceReader(Source(images=folder / "images", saliency=(folder / "none.json",)))
    (folder / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"bad\.json is not JSON"):
        SourceReader(Source(images=folder / "images", saliency=(folder / "bad.json",)))
