"""Building from a dataset that exists already."""

import datasets
import numpy as np
import pytest

from sage_hf import DataError
from sage_hf.data import Source, build_dataset, convert_annotations, load_saliency_dataset
from sage_hf.data.labels import LabelReader, lists_classes
from sage_hf.data.loading import class_names
from sage_hf.data.sources import SourceReader
from tests.data.annotated import BOX, SIZE, expected, make_pictures, write_table

GREY = datasets.Image(mode="L")


def existing(folder, splits, name=None, **columns):
    """A dataset of random pictures, marked, whose files are called `name`."""
    generator = np.random.default_rng(0)
    make_pictures(folder / "images", ["0.png"])
    content = expected()

    def rows(values):
        for value in values:
            picture = generator.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            image = datasets.Image().encode_example(picture)
            yield {"image": {**image, "path": name}, "saliency": GREY.encode_example(content)} | value

    features = datasets.Features({"image": datasets.Image(), "saliency": GREY} | columns)
    made = {split: datasets.Dataset.from_list(list(rows(values)), features) for split, values in splits.items()}
    datasets.DatasetDict(made).save_to_disk(folder / "existing")
    return str(folder / "existing")


SPLITS = {"train": [{"label": index % 2} for index in range(4)], "test": [{"label": index % 2} for index in range(3)]}
CLASSES = datasets.ClassLabel(names=["a", "b"])


@pytest.mark.parametrize("name", [None, "0.png"])
def test_pictures_without_names_of_their_own_are_all_rows(tmp_path, name):
    path = existing(tmp_path, SPLITS, name, label=CLASSES)
    report = build_dataset(Source(dataset=path), tmp_path / "out")
    assert (report.splits, report.annotated, report.refused) == ({"train": 4, "test": 3}, 7, [])
    # Its own output as well, which holds names without folders.
    again = build_dataset(Source(dataset=str(tmp_path / "out")), tmp_path / "again", granularity="box")
    assert (again.splits, again.annotated) == ({"train": 4, "test": 3}, 7)


def test_marks_are_joined_to_one_row_of_a_name(tmp_path):
    path = existing(tmp_path, SPLITS, "0.png", label=CLASSES)
    box = dict(zip(("xmin", "ymin", "xmax", "ymax"), BOX, strict=True))
    table = write_table(tmp_path / "boxes.csv", [{"file": "0.png", **box}])
    report = build_dataset(Source(dataset=path, saliency=table), tmp_path / "out", on_error="skip")
    assert (report.kept, len(report.refused)) == (1, 6)
    assert "joined to train, row 1 already" in report.refused[-1].reason
    assert "--id-column" in report.refused[-1].reason
    other = write_table(tmp_path / "others.csv", [{"file": "1.png", **box}])
    with pytest.raises(DataError, match="none of the 7 pictures has a map"):
        build_dataset(Source(dataset=path, saliency=other), tmp_path / "none")


def test_no_map_is_written_over_another(tmp_path):
    path = existing(tmp_path, SPLITS, "0.png", label=CLASSES)
    report = convert_annotations(Source(dataset=path), tmp_path / "maps", on_error="skip")
    assert (report.maps, len(report.refused)) == (1, 6)
    assert "its map would be 0.png, which is that of train, row 1, 0.png" in report.refused[-1].reason
    assert "--id-column" in report.refused[-1].reason


def listed(kind):
    return datasets.List(datasets.Value(kind))


def targets(path):
    """What a model is trained on: names of its outputs, and a number for each of a row."""
    splits = load_saliency_dataset(path)
    names = class_names(splits, "label")
    lists = lists_classes(splits["train"].features["label"])
    read = LabelReader("label", "multi_label_classification", names, lists=lists)
    return names, {split: [read(label) for label in rows["label"]] for split, rows in splits.items()}


@pytest.mark.parametrize("kind", ["int64", "uint8", "float32", "bool"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_number_for_each_label_means_the_same_after_building(tmp_path, kind, streamed):
    labels = {"train": [[1, 0, 0], [0, 1, 1], [0, 0, 0]], "test": [[1, 1, 0]]}
    rows = {split: [{"label": label} for label in values] for split, values in labels.items()}
    path = existing(tmp_path, rows, label=listed(kind))
    if streamed:
        for split, saved in datasets.load_from_disk(path).items():
            saved.to_parquet(tmp_path / "parquet" / f"{split}.parquet")
        path = str(tmp_path / "parquet")
    report = build_dataset(Source(dataset=path), tmp_path / "out")
    assert report.classes == {"LABEL_0": 2, "LABEL_1": 2, "LABEL_2": 1}
    expected_targets = {split: [list(map(float, row)) for row in values] for split, values in labels.items()}
    assert targets(str(tmp_path / "out")) == (["LABEL_0", "LABEL_1", "LABEL_2"], expected_targets)
    assert targets(path) == targets(str(tmp_path / "out"))


@pytest.mark.parametrize("labels", [[[0], [1], [1]], [[0, 1], [2, 0]], [[0, 1], [], [1]]])
def test_lists_of_classes_by_number_stay_classes(tmp_path, labels):
    path = existing(tmp_path, {"train": [{"label": label} for label in labels]}, label=listed("int64"))
    build_dataset(Source(dataset=path), tmp_path / "out")
    (rows,) = load_saliency_dataset(str(tmp_path / "out")).values()
    feature = rows.features["label"].feature
    assert [[int(feature.int2str(index)) for index in row] for row in rows["label"]] == labels


def test_numbers_that_are_no_classes_are_refused(tmp_path):
    labels = [[1.0, 0.0], [0.3, 1.0], [1.0], [float("nan"), 0.0], None]
    path = existing(tmp_path, {"train": [{"label": label} for label in labels]}, label=listed("float32"))
    *_, short, nan, none = SourceReader(Source(dataset=path)).rows()
    assert "its label is 1 numbers, and that of the first row 2" in short.error
    assert "Round the column" in nan.error
    assert (none.error, none.label) == (None, ())
    with pytest.raises(DataError, match=r"row 2.*holds other numbers than 0 and 1.*Round the column"):
        build_dataset(Source(dataset=path), tmp_path / "out")
