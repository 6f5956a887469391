import json

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf.cli import main
from sage_hf.viewing import Subject, look_at
from tests.conftest import CLASSES, make_dataset, make_model
from tests.pages.reading import check_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset, and two models that differ."""
    folder = tmp_path_factory.mktemp("view")
    datasets.DatasetDict(train=make_dataset(4), test=make_dataset(6, annotated=4)).save_to_disk(folder / "data")
    for name, kind in (("before", "convnext"), ("after", "vit")):
        model = make_model(kind)
        model.config.id2label = dict(enumerate(CLASSES))
        model.save_pretrained(folder / name)
        ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder / name)
    return folder


def view(*arguments):
    return main(["view", *map(str, arguments), "--use_cpu"])


def test_json_is_what_the_library_finds(folder, capsys):
    assert view(folder / "data", folder / "before", folder / "after", "--json", "--seed", 5) == 0
    found = json.loads(capsys.readouterr().out)
    subjects = [Subject.load(folder / name, use_cpu=True) for name in ("before", "after")]
    expected = look_at(datasets.load_from_disk(folder / "data")["test"], subjects, seed=5, count=0)
    assert found["rows"] == [record.to_dict() for record in expected.records]
    assert (found["split"], found["order"], found["total"], found["with_map"]) == ("test", "maps", 6, 4)
    assert set(found["embeddings"]) == {"before", "after"}


def test_a_page_of_two_models(folder, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "page.html"
    assert view(folder / "data", folder / "before", folder / "after", "--out", out, "--count", 2) == 0
    rows = look_at(
        datasets.load_from_disk(folder / "data")["test"],
        [Subject.load(folder / name, use_cpu=True) for name in ("before", "after")],
        count=2,
    )
    text = out.read_text()
    page = check_page(text)
    assert len(page.all("svg")) == 2
    for record in rows.records[:2]:
        assert f"Row {record.row}: labelled {record.label}" in text
        for one in record.models:
            assert f"{one.alignment['cam']['cc']:.3f}" in text
    assert f"Row {rows.records[2].row}:" not in text
    assert "Before: before" in text
    assert "2 of the 6 rows have no map" in text
    assert str(tmp_path) not in text
    # A page of ours may be written anew; anything else stays.
    assert view(folder / "data", "--out", out) == 0
    assert "before" not in out.read_text()
    out.write_text("<p>mine</p>")
    assert view(folder / "data", "--out", out) == 1
    assert out.read_text() == "<p>mine</p>"
    assert "is there already" in capsys.readouterr().err


def test_a_grid_without_a_model(folder, tmp_path, capsys):
    """Rows in their order, with image, map, x+, x- and four degradations; what a row lacks is grey."""
    out = tmp_path / "grid.png"
    assert view(folder / "data", "--out", out, "--count", 5) == 0
    with Image.open(out) as found:
        sheet = np.asarray(found)
    pictures = look_at(datasets.load_from_disk(folder / "data")["test"], count=5).pictures
    heights = [round(128 * one.image.height / one.image.width) for one in pictures.values()]
    left = sheet.shape[1] - 8 * (128 + 8)
    for column, name in enumerate(("image", "saliency")):
        cell = sheet[34 : 34 + heights[0], left + column * 136 : left + column * 136 + 128]
        image = getattr(pictures[0], name).convert("RGB").resize((128, heights[0]), Image.Resampling.NEAREST)
        assert np.array_equal(cell, np.asarray(image)), name
    last = sheet[34 + 4 * (heights[0] + 8) :, left + 2 * 136 : left + 2 * 136 + 128]
    assert set(np.unique(last[:128])) == {235}  # x+ of the row without a map
    assert view(folder / "data", "--out", out, "--split", "train") == 0
    Image.new("RGB", (4, 4)).save(out)
    assert view(folder / "data", "--out", out) == 1
    assert "is no grid of sage_hf" in capsys.readouterr().err
    with Image.open(out) as found:
        assert found.size == (4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "holdout"], "no split 'holdout'; it has train, test"),
        (["--out", "rows.pdf"], "a grid is a .png file, a page an .html file"),
        (["--order", "views"], "sorts by what a model makes of rows"),
        (["a", "b", "c"], "one or two models can be looked at, not 3"),
        (["--revision", "v1", "v2"], "names 2 revisions, and there are 0 models"),
    ],
)
def test_mistakes_are_explained(folder, capsys, arguments, message):
    assert view(folder / "data", *arguments) == 1
    assert message in capsys.readouterr().err
