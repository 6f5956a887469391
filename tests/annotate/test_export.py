"""From the store to a dataset: the drawn pixels are in it, and it passes the checks."""

import json
import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from sage_hf.annotate import AnnotationStore, Project, export_annotations, open_pictures
from sage_hf.annotate.maps import values_of
from sage_hf.annotate.project import first_unfinished
from sage_hf.cli import main
from sage_hf.data import DataError, check_dataset, load_saliency_dataset
from tests.annotate.conftest import SIZE, drawn, mark, save_photographs


def loaded(folder):
    return datasets.load_dataset(str(folder))["train"]


def test_the_dataset_holds_what_was_drawn(tmp_path, project):
    values = drawn()
    values[300:310, 5:9] = 128
    mark(project, 0, "Ann", values, note="the roof")
    mark(project, 1, "Ann", drawn(200, 90, 420, 300), label="flower")
    report = export_annotations(project, tmp_path / "out")
    rows = loaded(tmp_path / "out")
    assert rows.features["saliency"] == datasets.Image(mode="L")
    assert rows.features["label"] == datasets.ClassLabel(names=["temple", "flower"])
    assert np.array_equal(np.asarray(rows[0]["saliency"]), values)
    assert np.array_equal(np.asarray(rows[1]["saliency"]), drawn(200, 90, 420, 300))
    assert rows[0]["image"].size == SIZE
    assert rows["label"][:] == [0, 1]
    assert rows["note"][:] == ["the roof", ""]
    assert rows["saliency_source"][:] == ["human", "human"]
    stored = rows.cast_column("image", datasets.Image(decode=False))[0]["image"]["bytes"]
    assert stored == (tmp_path / "photos" / "china.jpg").read_bytes()
    assert (report.built.kept, report.unfinished, report.annotators) == (2, 0, ["Ann"])
    assert check_dataset(str(tmp_path / "out")).passed
    assert load_saliency_dataset(str(tmp_path / "out"))["train"].num_rows == 2


def test_classes_are_named_once(tmp_path, project, photos):
    """Their order and the one that nobody has used, too; a later list replaces them."""
    mark(project, 1, "Ann", drawn(), "flower")
    again = Project(open_pictures(str(photos)), AnnotationStore(project.store.folder))
    assert again.classes == ["temple", "flower"]
    export_annotations(again, tmp_path / "out")
    assert loaded(tmp_path / "out").features["label"].names == ["temple", "flower"]
    assert again.add_class("bridge") == ["temple", "flower", "bridge"]
    other = Project(open_pictures(str(photos)), AnnotationStore(project.store.folder), ["flower", "temple"])
    assert other.classes == ["flower", "temple", "bridge"]
    mark(other, 0, "Ann", drawn())
    assert Project(other.pictures, other.store).classes == other.classes


def test_skipped_unfinished_and_nothing(tmp_path):
    names = [f"{index}-{kind}.jpg" for index in range(2) for kind in ("china", "flower")]
    photos = save_photographs(tmp_path / "photos", names)
    project = Project(open_pictures(str(photos)), AnnotationStore(tmp_path / "store"), ["temple"])
    mark(project, 0, "Ann", drawn())
    mark(project, 1, "Ann", None, status="nothing", note="sky only")
    mark(project, 2, "Ann", None, status="skipped", label=None)
    mark(project, 3, "Ann", drawn(), status="draft")
    assert project.progress("Ann") == ["done", "nothing", "skipped", "draft"]
    assert first_unfinished(project.progress("Ann")) == 3
    report = export_annotations(project, tmp_path / "out")
    rows = loaded(tmp_path / "out")
    assert [row is None for row in rows["saliency"]] == [False, True]
    assert rows["note"][:] == ["", "sky only"]
    assert (report.unfinished, report.skipped, report.nothing) == (1, 1, 1)


def test_several_annotators_are_kept_apart(tmp_path, project):
    first, second = drawn(10, 10, 60, 60), drawn(400, 200, 500, 300)
    mark(project, 0, "Ann", first, note="left")
    mark(project, 0, "Eve", second, note="right")
    mark(project, 1, "Eve", second, label="flower")
    report = export_annotations(project, tmp_path / "out")
    rows = loaded(tmp_path / "out")
    assert report.annotators == ["Ann", "Eve"]
    assert rows.features["saliency"] == datasets.List(datasets.Image(mode="L"))
    assert [np.asarray(one).tolist() for one in rows[0]["saliency"]] == [first.tolist(), second.tolist()]
    assert rows["annotator"][:] == [["Ann", "Eve"], ["Eve"]]
    assert rows["saliency_source"][:] == [["human", "human"], ["human"]]
    assert rows["note"][:] == ["Ann: left\nEve: right", ""]
    assert check_dataset(str(tmp_path / "out")).passed
    export_annotations(project, tmp_path / "one", annotators=["eve"])
    assert loaded(tmp_path / "one").features["saliency"] == datasets.Image(mode="L")


def test_disagreement_about_a_label(tmp_path, project):
    for name, label in (("Ann", "temple"), ("Bob", "flower")):
        mark(project, 0, name, drawn(), label=label)
    mark(project, 1, "Ann", drawn(), label="flower")
    with pytest.raises(DataError, match="disagree about its label: Ann 'temple', Bob 'flower'"):
        export_annotations(project, tmp_path / "out")
    mark(project, 0, "Cem", drawn(), label="flower")
    report = export_annotations(project, tmp_path / "out")
    assert report.disagreements == ["china.jpg: Ann 'temple', Bob 'flower', Cem 'flower'"]
    assert loaded(tmp_path / "out")["label"][:] == [1, 1]


def test_a_picture_that_changed_since_is_refused(tmp_path, project, photos):
    mark(project, 0, "Ann", drawn())
    mark(project, 1, "Ann", drawn(), label="flower")
    assert not project.state(0, "Ann")["changed"]
    Image.fromarray(np.zeros((427, 640, 3), np.uint8)).save(photos / "china.jpg")
    assert project.state(0, "Ann")["changed"]
    with pytest.raises(DataError, match="has changed since it was annotated"):
        export_annotations(project, tmp_path / "out")
    report = export_annotations(project, tmp_path / "out", on_error="skip")
    assert (report.built.kept, len(report.built.refused)) == (1, 1)


def test_nothing_is_overwritten(tmp_path, project):
    mark(project, 0, "Ann", drawn())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(FileExistsError):
        export_annotations(project, tmp_path / "out")


def test_nothing_to_export(tmp_path, project):
    with pytest.raises(DataError, match="no picture is finished yet"):
        export_annotations(project, tmp_path / "out")
    mark(project, 0, "Ann", drawn(), status="draft")
    with pytest.raises(DataError, match="no picture is finished yet"):
        export_annotations(project, tmp_path / "out")
    mark(project, 0, "Ann", drawn())
    with pytest.raises(DataError, match="nothing is kept of Eve; the annotators are Ann"):
        export_annotations(project, tmp_path / "out", annotators=["Eve"])


def test_a_dataset_is_annotated_and_its_maps_are_where_one_begins(tmp_path, project):
    """Round trip: what was exported is opened as a dataset, edited, and exported again; nothing in it changes."""
    mark(project, 0, "Ann", drawn())
    mark(project, 1, "Ann", None, status="nothing", label="flower")
    export_annotations(project, tmp_path / "first")
    before = {path: path.read_bytes() for path in (tmp_path / "first").rglob("*") if path.is_file()}
    again = Project(open_pictures(str(tmp_path / "first")), AnnotationStore(tmp_path / "store"))
    assert again.classes == ["temple", "flower"]
    state = again.state(0, "Eve")
    assert (state["given_label"], state["existing"], state["record"]) == ("temple", True, None)
    assert np.array_equal(np.round(again.start(0, guess=False) * 255), drawn())
    assert again.start(1, guess=False) is None
    edited = drawn()
    edited[:20, :30] = 255
    mark(again, 0, "Eve", edited)
    export_annotations(again, tmp_path / "second")
    assert np.array_equal(np.asarray(loaded(tmp_path / "second")[0]["saliency"]), edited)
    assert {path: path.read_bytes() for path in (tmp_path / "first").rglob("*") if path.is_file()} == before


def test_a_dataset_that_points_out_of_its_folder(tmp_path):
    """A row of a shared dataset may name any file; none but its own is opened."""
    secret = tmp_path / "secret.png"
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(secret)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])})
    for number, path in enumerate([str(secret), "../secret.png", "file:///etc/passwd", "https://example.com/x.png"]):
        folder = tmp_path / f"dataset-{number}"
        table = datasets.Dataset.from_dict(
            {"image": [{"bytes": None, "path": path}], "label": [0]}, features=features
        ).with_format("arrow")[:]
        folder.mkdir()
        import pyarrow.parquet as pq

        pq.write_table(table, folder / "train.parquet")
        project = Project(open_pictures(str(folder)), AnnotationStore(tmp_path / "store"))
        with pytest.raises(DataError, match="not inside the dataset"):
            project.picture(0)


def test_folders_are_labels_and_splits(tmp_path):
    names = ["train/temple/china.jpg", "test/flower/flower.jpg"]
    photos = save_photographs(tmp_path / "photos", names)
    project = Project(open_pictures(str(photos)), AnnotationStore(tmp_path / "store"))
    assert project.classes == ["flower", "temple"]
    assert [project.state(index, "Ann")["given_label"] for index in (0, 1)] == ["flower", "temple"]
    for index, label in enumerate(["flower", "temple"]):
        mark(project, index, "Ann", drawn(), label=label)
    export_annotations(project, tmp_path / "out")
    assert set(datasets.load_dataset(str(tmp_path / "out"))) == {"train", "test"}


def test_existing_maps_of_a_folder_are_shown_and_left_alone(tmp_path, photos):
    masks = tmp_path / "masks"
    masks.mkdir()
    small = np.zeros((427, 640), np.uint8)
    small[10:20, 30:50] = 9
    Image.fromarray(small).save(masks / "china.png")
    before = (masks / "china.png").read_bytes()
    pictures = open_pictures(str(photos), saliency=(masks,))
    project = Project(pictures, AnnotationStore(tmp_path / "store"), ["temple"])
    assert np.array_equal(np.round(project.start(0, guess=False) * 255), np.where(small, 255, 0))
    assert [project.state(index, "Ann")["existing"] for index in (0, 1)] == [True, False]
    mark(project, 0, "Ann", drawn())
    assert (masks / "china.png").read_bytes() == before


def test_pictures_turned_by_exif(tmp_path):
    photos = save_photographs(tmp_path / "photos", ["china.jpg"])
    picture = Image.open(photos / "china.jpg")
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(photos / "china.jpg", exif=exif)
    picture.close()
    project = Project(open_pictures(str(photos)), AnnotationStore(tmp_path / "store"), ["temple"])
    assert project.picture(0).size == (427, 640)
    values = drawn(5, 8, 20, 30, size=(427, 640))
    mark(project, 0, "Ann", values)
    export_annotations(project, tmp_path / "out")
    row = loaded(tmp_path / "out")[0]
    assert row["image"].size == row["saliency"].size == (427, 640)
    assert np.array_equal(np.asarray(row["saliency"]), values)


def test_command_line(tmp_path, project, photos, capsys):
    mark(project, 0, "Ann", drawn())
    mark(project, 1, "Ann", drawn(), label="flower")
    arguments = ["annotate", str(photos), "--classes", "temple", "flower", "--export", str(tmp_path / "out")]
    assert main([*arguments, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["kept"], figures["annotators"]) == (2, ["Ann"])
    assert main(["data", "check", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main(arguments) == 1
    assert "already exists and is not empty" in capsys.readouterr().err
    assert main(["annotate", str(tmp_path / "nowhere"), "--export", str(tmp_path / "o")]) == 1
    assert "is not a folder" in capsys.readouterr().err


def test_help_and_export_need_no_gradio(tmp_path, project, photos, monkeypatch):
    mark(project, 0, "Ann", drawn())
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["annotate", str(photos), "--classes", "temple", "--export", str(tmp_path / "out")]) == 0
    with pytest.raises(SystemExit, match="0"):
        main(["annotate", "--help"])


def test_without_gradio_the_extra_is_named(tmp_path, project, photos, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["annotate", str(photos), "--no-browser"]) == 1
    assert "pip install 'sage_hf[annotate]'" in capsys.readouterr().err


def test_values_of_a_stored_map(project):
    record = mark(project, 0, "Ann", drawn(value=77))
    assert np.array_equal(values_of(project.store.map_png(record), SIZE), drawn(value=77))
    with pytest.raises(DataError, match="its picture has"):
        values_of(project.store.map_png(record), (10, 10))
