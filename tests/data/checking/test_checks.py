"""Each check finds a defect that was planted, and nothing else is found."""

from dataclasses import replace

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sage_hf.data import DataError, check_dataset, dataset_stats
from sage_hf.data.checking import CHECKS
from tests.data.checking.planting import (
    SHAPE,
    SIZE,
    XMP,
    as_splits,
    bomb,
    damage,
    dot,
    encoded,
    float_map,
    frame,
    gps,
    healthy_rows,
    image_of,
    map_of,
    nearly_full,
    png_text,
    sideways,
    with_exif,
    with_iptc,
)


def found(rows, **settings):
    report = check_dataset(as_splits(rows), **settings)
    return {finding.check: finding for finding in report.findings}


PLANTED = {
    "missing-picture": lambda row: row.update(image=None),
    "unreadable-picture": lambda row: row.update(image=damage(row["image"])),
    "unreadable-picture: a bomb": lambda row: row.update(image=bomb(row["image"])),
    "unreadable-picture: no file": lambda row: row.update(image={"bytes": None, "path": "no/such/file.png"}),
    "picture-depth": lambda row: row.update(
        image=encoded(np.arange(48 * 40, dtype=np.uint16).reshape(40, 48), "0.png")
    ),
    "unreadable-map": lambda row: row.update(saliency=damage(row["saliency"])),
    "map-values: NaN": lambda row: map_of(row, float_map(np.nan)),
    "map-values: infinite": lambda row: map_of(row, float_map(np.inf)),
    "map-values: negative": lambda row: map_of(row, float_map(-0.1)),
    "map-values: colours": lambda row: row.update(saliency=encoded(Image.new("RGB", SIZE, "red"), "0.png")),
    "map-aspect": lambda row: map_of(row, np.eye(40, dtype=np.uint8)),
    "map-aspect: rotated": lambda row: map_of(row, image_of(row["saliency"]).rotate(90, expand=True)),
    "map-rotation": sideways,
    "orientation-tag": lambda row: row.update(image=with_exif(row["image"], Orientation=3)),
    "constant-picture": lambda row: row.update(image=encoded(Image.new("RGB", SIZE, "navy"), "0.png")),
    "blank-map": lambda row: map_of(row, np.zeros(SHAPE, dtype=np.uint8)),
    "constant-map": lambda row: map_of(row, np.full(SHAPE, 7, dtype=np.uint16)),
    "inverted-map": lambda row: map_of(row, frame()),
    "tiny-map": lambda row: map_of(row, dot()),
    "full-map": lambda row: map_of(row, nearly_full()),
    "missing-label": lambda row: row.update(label=None),
    "personal-metadata: GPS": lambda row: row.update(image=gps(row["image"])),
    "personal-metadata: EXIF": lambda row: row.update(image=with_exif(row["image"], Artist="Ann Onymous")),
    "personal-metadata: XP": lambda row: row.update(
        image=with_exif(row["image"], XPAuthor="Ann".encode("utf-16-le") + b"\0\0")
    ),
    "personal-metadata: PNG": lambda row: row.update(saliency=png_text(row["saliency"], "Author", "Ann")),
    "personal-metadata: XMP": lambda row: row.update(
        image=encoded(image_of(row["image"]), "0.jpg", xmp=XMP.format("", "Ann").encode())
    ),
    "personal-metadata: XMP attribute": lambda row: row.update(
        image=encoded(image_of(row["image"]), "0.jpg", xmp=XMP.format('exif:GPSLatitude="51,30N"', "").encode())
    ),
    "personal-metadata: broken XMP": lambda row: row.update(
        image=encoded(image_of(row["image"]), "0.jpg", xmp=b"<x:xmpmeta><dc:creator>Ann")
    ),
    "personal-metadata: IPTC": lambda row: row.update(
        image=with_iptc(row["image"], b"\x1c\x02\x50" + (3).to_bytes(2, "big") + b"Ann")
    ),
    "identifying-metadata": lambda row: row.update(image=with_exif(row["image"], BodySerialNumber="123")),
    "identifying-metadata: copyright": lambda row: row.update(image=with_exif(row["image"], Copyright="(c) us")),
    "absolute-path": lambda row: row["image"].update(path="/home/ann/scans/7.png"),
    "absolute-path: Windows": lambda row: row["saliency"].update(path=r"D:\scans\7.png"),
    "absolute-path: metadata": lambda row: row.update(
        image=png_text(row["image"], "Source", "file:///home/ann/scans/7.png")
    ),
}


def test_a_healthy_dataset_has_no_findings():
    report = check_dataset(as_splits(healthy_rows()))
    assert (report.findings, report.passed) == ([], True)


@pytest.mark.parametrize("defect", PLANTED)
def test_a_planted_defect_is_found_and_nothing_else(defect):
    rows = healthy_rows()
    PLANTED[defect](rows[5])
    report = check_dataset(as_splits(rows))
    (finding,) = report.findings
    check = next(check for check in CHECKS if check.name == defect.partition(":")[0])
    assert (finding.check, finding.severity, finding.count) == (check.name, check.severity, 1)
    assert finding.examples[0].startswith("train row 5")
    assert report.passed == (finding.severity == "warning")
    assert replace(report, allowed=[finding.check]).passed


def test_every_check_is_planted_somewhere():
    here = {defect.partition(":")[0] for defect in PLANTED}
    below = {
        "no-rows", "no-maps", "unknown-label", "class-of-blank-maps", "class-without-maps", "duplicates-across-splits",
        "duplicate-labels", "unreadable-metadata", "near-duplicates-across-splits", "duplicates-within-split",
        "near-duplicates-within-split", "rare-class", "centre-bias",
    }  # fmt: skip
    assert here | below == {check.name for check in CHECKS}


def test_a_damaged_row_names_split_row_and_file():
    rows = healthy_rows()
    rows[20]["image"] = damage(rows[20]["image"])
    finding = found(rows)["unreadable-picture"]
    assert finding.examples[0].startswith("test row 4 (20.png): ")


def test_rotation_that_both_have_or_that_was_undone_is_fine():
    rows = healthy_rows()
    sideways(rows[0])
    rows[0]["saliency"] = with_exif(rows[0]["saliency"], Orientation=6)
    sideways(rows[1])
    map_of(rows[1], np.asarray(image_of(rows[1]["saliency"]).transpose(Image.Transpose.ROTATE_270)))
    assert found(rows) == {}


def test_map_with_the_tag_that_its_picture_lacks():
    rows = healthy_rows()
    rows[0]["saliency"] = with_exif(rows[0]["saliency"], Orientation=8)
    assert list(found(rows)) == ["map-rotation"]
    square = Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    rows[0] = {"image": encoded(square, "0.png"), "label": 0}
    rows[0]["saliency"] = with_exif(encoded(np.eye(40, dtype=np.uint8) * 255, "0.png"), Orientation=8)
    assert list(found(rows)) == ["orientation-tag"]


def test_several_annotators():
    rows = healthy_rows()
    for index, row in enumerate(rows):
        row["saliency"] = [row["saliency"]] * (index % 3) or None
    rows[2]["saliency"] = [rows[2]["saliency"][0], damage(rows[2]["saliency"][1])]
    splits = as_splits(rows, saliency=datasets.List(datasets.Image(mode="L")))
    report = check_dataset(splits)
    (finding,) = report.findings
    assert finding.check == "unreadable-map"
    assert finding.examples[0].startswith("train row 2 (2.png), map 1: ")
    assert report.stats.annotators == {0: 8, 1: 9, 2: 7}
    assert report.stats.splits == {"train": {"rows": 16, "annotated": 10}, "test": {"rows": 8, "annotated": 6}}


def test_classes_given_away_by_their_maps():
    rows = healthy_rows()
    for row in rows[::2]:
        row["saliency"] = None
    (finding,) = found(rows).values()
    assert (finding.check, finding.severity) == ("class-without-maps", "warning")
    assert finding.examples == ["class 'healthy': none of 12 rows, 100% of the rows of other classes"]
    for row in rows[::2]:
        map_of(row, np.zeros(SHAPE, dtype=np.uint8))
    findings = found(rows)
    assert sorted(findings) == ["blank-map", "class-of-blank-maps"]
    assert findings["class-of-blank-maps"].severity == "error"


def test_a_class_that_has_no_maps_by_chance_is_not_reported():
    rows = healthy_rows()
    for index, row in enumerate(rows):
        if index not in (1, 3):  # 2 of 12 rows of the one class, none of the other: (1 - 1/6)^12 = 0.11
            row["saliency"] = None
    assert found(rows) == {}


def test_duplicates():
    rows = healthy_rows()
    rows[3]["image"] = dict(rows[1]["image"])
    rows[17]["image"] = dict(rows[1]["image"])  # test row 1
    findings = found(rows)
    assert {name: finding.count for name, finding in findings.items()} == {
        "duplicates-across-splits": 2,
        "duplicates-within-split": 1,
    }
    assert findings["duplicates-across-splits"].examples == [
        "train row 1 (1.png) = test row 1 (1.png)",
        "train row 3 (1.png) = test row 1 (1.png)",
    ]
    rows[17]["label"] = 0
    findings = found(rows)
    assert findings["duplicate-labels"].count == 1
    assert not check_dataset(as_splits(rows), allow=["duplicates-across-splits"]).passed
    assert findings["duplicate-labels"].examples == ["train row 1 (1.png): rust = test row 1 (1.png): healthy"]


def test_a_hidden_label_is_no_other_label():
    rows = healthy_rows()
    rows[17]["image"] = dict(rows[1]["image"])
    for row in rows[16:]:
        row["label"] = None
    assert list(found(rows)) == ["duplicates-across-splits"]


def test_near_duplicates():
    rows = healthy_rows()
    again = image_of(rows[1]["image"]).resize((96, 80), Image.Resampling.BICUBIC)
    rows[3]["image"] = encoded(again, "again.png")
    rows[17]["image"] = encoded(image_of(rows[1]["image"]), "1.jpg", quality=85)
    findings = found(rows)
    assert {name: finding.count for name, finding in findings.items()} == {
        "near-duplicates-across-splits": 2,
        "near-duplicates-within-split": 1,
    }
    assert "train row 1 (1.png) looks like test row 1 (1.jpg)" in findings["near-duplicates-across-splits"].examples


def test_labels():
    rows = healthy_rows()
    for row in rows[16:]:
        row["label"] = None  # the hidden labels of a challenge
    assert found(rows) == {}
    for row in rows[:16]:
        row["label"] = -1
    assert found(rows)["missing-label"].count == 24
    for row in rows:
        row.pop("label")
    assert found(rows)["missing-label"].count == 24


def test_unknown_label():
    """Parquet files may hold indices that their names don't reach."""
    splits = as_splits(healthy_rows())
    numbers = splits["train"].cast_column("label", datasets.Value("int64"))
    numbers = numbers.map(lambda row, index: {"label": 9 if index == 5 else row["label"]}, with_indices=True)
    table = numbers.data.table.cast(numbers.features.arrow_schema)
    splits["train"] = datasets.Dataset(table, info=datasets.DatasetInfo(features=splits["train"].features))
    (finding,) = check_dataset(splits).findings
    assert (finding.check, finding.examples) == ("unknown-label", ["train row 5 (5.png): 9"])


def test_classes_of_one_row_or_none():
    rows = healthy_rows()
    rows[4]["label"] = 2
    report = check_dataset(as_splits(rows, classes=["healthy", "rust", "miner", "phoma"]))
    (finding,) = report.findings
    assert (finding.check, finding.examples) == ("rare-class", ["class 'miner': 1 row", "class 'phoma': 0 rows"])


def test_no_maps_and_no_rows():
    rows = healthy_rows()
    for row in rows:
        row.pop("saliency")
    assert list(found(rows)) == ["no-maps"]
    empty = as_splits(healthy_rows())["train"].select([])
    report = check_dataset(empty)
    assert [finding.check for finding in report.findings] == ["no-rows", "rare-class"]
    assert report.stats.coverage is None


def test_centred_maps():
    rows = healthy_rows()
    down, across = np.mgrid[-1:1:40j, -1:1:48j]
    for row in rows:
        map_of(row, np.exp(-(down**2 + across**2) / (2 * 0.3**2)).astype(np.float32))
    (finding,) = found(rows).values()
    assert (finding.check, finding.severity) == ("centre-bias", "warning")


def test_damaged_metadata_are_said():
    rows = healthy_rows()
    rows[5]["image"] = with_iptc(rows[5]["image"], b"no IPTC")
    (finding,) = found(rows).values()
    assert (finding.check, finding.severity) == ("unreadable-metadata", "warning")
    assert finding.examples[0].startswith("train row 5 (0.jpg), picture: iptc: ")


def test_paths_in_other_columns():
    rows = healthy_rows()
    for index, row in enumerate(rows):
        row["source"] = "/home/ann/scans" if index == 5 else "images/1.jpg"
        row["notes"] = {"id": ["/m/0bt9lr", "C:\\Users\\ann\\x" if index == 6 else "https://example.org/a"]}
    notes = {"id": datasets.List(datasets.Value("string"))}
    report = check_dataset(as_splits(rows, source=datasets.Value("string"), notes=notes))
    (finding,) = report.findings
    assert finding.examples == ["train row 5 (5.png): column 'source'", "train row 6 (6.png): column 'notes'"]


def test_pictures_of_other_columns():
    rows = healthy_rows()
    for index, row in enumerate(rows):
        row["overlay"] = encoded(image_of(row["image"]), f"{index}.png")
        row["parts"] = [dict(row["overlay"])] * (index % 3)
    rows[4]["overlay"]["path"] = "/home/ann/4.png"
    rows[5]["parts"][1] = gps(rows[5]["image"])
    rows[6]["overlay"] = damage(rows[6]["overlay"])
    pictures = {"overlay": datasets.Image(), "parts": datasets.List(datasets.Image())}
    findings = {one.check: one.examples for one in check_dataset(as_splits(rows, **pictures)).findings}
    assert findings.pop("unreadable-picture")[0].startswith("train row 6 (6.png), column 'overlay': ")
    assert findings == {
        "personal-metadata": ["train row 5 (5.png), column 'parts': EXIF GPS"],
        "absolute-path": ["train row 4 (4.png): the path in column 'overlay'"],
    }


def test_a_person_is_never_quoted():
    rows = healthy_rows()
    rows[0]["image"] = with_exif(rows[0]["image"], Artist="Ann Onymous")
    assert "Onymous" not in str(check_dataset(as_splits(rows)).to_dict())


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(1, 10**6), count=st.integers(20, 40), num_proc=st.sampled_from([1, 3]))
def test_healthy_data_pass_and_threads_change_nothing(seed, count, num_proc):
    rows = healthy_rows(count, seed)
    rows[-1]["saliency"] = damage(rows[-1]["saliency"])
    report = check_dataset(as_splits(rows), num_proc=num_proc)
    assert [finding.check for finding in report.findings] == ["unreadable-map"]
    assert report.to_dict() == check_dataset(as_splits(rows)).to_dict()
    assert report.stats == dataset_stats(as_splits(rows), num_proc=num_proc)


def test_bad_arguments():
    splits = as_splits(healthy_rows(6))
    with pytest.raises(ValueError, match="no check 'blank-maps' to allow; the checks are absolute-path, blank-map"):
        check_dataset(splits, allow=["blank-maps"])
    with pytest.raises(ValueError, match="rows=0"):
        check_dataset(splits, rows=0)
    with pytest.raises(ValueError, match="num_proc=0"):
        check_dataset(splits, num_proc=0)
    with pytest.raises(ValueError, match="phash_distance=17"):
        check_dataset(splits, phash_distance=17)
    with pytest.raises(DataError, match=r"no column 'photo'.*--image-column"):
        check_dataset(splits, image_column="photo")
    with pytest.raises(DataError, match="no split 'tset'; the splits are train, test"):
        check_dataset(splits, splits=["tset"])
    with pytest.raises(DataError, match=r"'label' holds .* not pictures"):
        check_dataset(splits, saliency_column="label")
    with pytest.raises(DataError, match="a list is no dataset"):
        check_dataset([])
