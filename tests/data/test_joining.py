"""Which picture an annotation goes to."""

import json

import pytest
from PIL import Image

from sage_hf.data import Source
from sage_hf.data.sources import SourceReader
from tests.data.annotated import SIZE, make_pictures, write_table

FORMATS = ("coco", "boxes", "fixations")


def marked(folder, ids, kind="boxes", name="marks"):
    """Annotations whose first number is the place of their picture."""
    if kind == "coco":
        content = {
            "images": [{"id": index, "file_name": file} for index, file in enumerate(ids)],
            "annotations": [{"image_id": index, "bbox": [index, 0, 5, 5]} for index in range(len(ids))],
        }
        (folder / f"{name}.json").write_text(json.dumps(content))
        return folder / f"{name}.json"
    sizes = {"width": 5, "height": 5} if kind == "boxes" else {}
    return write_table(folder / f"{name}.csv", [{"id": file, "x": i, "y": 0} | sizes for i, file in enumerate(ids)])


def joined(folder, *saliency, labels):
    table = write_table(folder / "labels.csv", [{"id": file, "class": "a"} for file in labels])
    source = Source(images=folder / "images", saliency=saliency, labels=table, label_column="class", sigma=2.0)
    reader = SourceReader(source)
    rows = list(reader.rows())
    assert [row.error for row in rows] == [None] * len(rows)
    return rows, reader.unused


def first_number(annotation):
    return (annotation.boxes if hasattr(annotation, "boxes") else annotation.points)[0][0]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "ids",
    [
        ["1.2.840.10.1", "1.2.840.10.2", "1.2.840.11"],
        ["lesion", "lesion.v2", "lesion.v2.left"],
        ["lesion.v2", "lesion", "deep.er/lesion.v2"],
        ["1001", "1001.PNG.jpg", "1002.dcm"],
    ],
)
def test_an_id_may_have_dots(tmp_path, kind, ids):
    make_pictures(tmp_path / "images", [f"{name.removesuffix('.dcm')}.png" for name in ids])
    rows, unused = joined(tmp_path, marked(tmp_path, ids, kind), labels=ids)
    assert [[first_number(one) for one in row.annotations] for row in rows] == [[0], [1], [2]]
    assert not unused


@pytest.mark.parametrize("kind", FORMATS)
def test_an_id_whose_beginning_is_another_picture(tmp_path, kind):
    make_pictures(tmp_path / "images", ["lesion.png", "lesion.v2.png"])
    rows, unused = joined(tmp_path, marked(tmp_path, ["lesion.v2"], kind), labels=["lesion", "lesion.v2"])
    assert [len(row.annotations) for row in rows] == [0, 1]
    assert not unused


def test_a_missing_picture_is_not_replaced_by_the_beginning_of_its_id(tmp_path):
    make_pictures(tmp_path / "images", ["lesion.png"])
    table = write_table(tmp_path / "labels.csv", [{"id": "lesion.v2", "class": "a"}])
    source = Source(images=tmp_path / "images", labels=table, label_column="class", saliency=(tmp_path / "maps",))
    (tmp_path / "maps").mkdir()
    (row,) = SourceReader(source).rows()
    assert row.error == "there is no such picture in the folder."


@pytest.mark.parametrize("kind", FORMATS)
def test_tables_may_have_been_written_on_windows(tmp_path, kind):
    names = [f"{folder}/{index}.png" for folder in "ab" for index in range(2)]
    make_pictures(tmp_path / "images", names)
    backslashes = [name.replace("/", "\\") for name in names]
    one = marked(tmp_path, names, kind, "one")
    other = marked(tmp_path, [".\\" + name for name in backslashes], kind, "other")
    rows, unused = joined(tmp_path, one, other, labels=backslashes)
    assert [[first_number(one) for one in row.annotations] for row in rows] == [[i, i] for i in range(4)]
    assert not unused


@pytest.mark.parametrize("kind", FORMATS)
def test_ids_of_a_dataset_may_have_dots(tmp_path, kind):
    import datasets

    make_pictures(tmp_path / "images", ["0.png"])
    content = (tmp_path / "images" / "0.png").read_bytes()
    ids = ["lesion", "lesion.v2", "x\\1.2.3.png", "x/1.2.4"]
    features = datasets.Features({"image": datasets.Image(), "id": datasets.Value("string")})
    rows = [{"image": {"bytes": content, "path": None}, "id": name} for name in ids]
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "existing")
    (tmp_path / "maps" / "x").mkdir(parents=True)
    for name in ("lesion", "x/1.2.3", "x/1.2"):
        Image.new("L", SIZE, 9).save(tmp_path / "maps" / f"{name}.png")
    table = marked(tmp_path, ["lesion.v2", "x/1.2.3", "x/1.2"], kind)
    source = Source(dataset=str(tmp_path / "existing"), saliency=(table, tmp_path / "maps"), sigma=2.0)
    reader = SourceReader(source, labelled=False)
    found = {row.file: [type(one).__name__ == "MapFile" for one in row.annotations] for row in reader.rows()}
    assert found == {"lesion": [True], "lesion.v2": [False], "x\\1.2.3.png": [False, True], "x/1.2.4": []}
    assert reader.unused == ["x/1.2", "x/1.2.png"]
