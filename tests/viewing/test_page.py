import pytest
import torch

from sage_hf.viewing import Subject, look_at, view_page
from tests.conftest import make_dataset, make_model
from tests.pages.reading import check_page
from tests.viewing.test_rows import NoPlaces, named

pytest.importorskip("matplotlib")


def test_what_is_missing_is_said(processor):
    """A model without activation maps, rows without maps."""
    looked = look_at(make_dataset(5, annotated=2), [Subject(NoPlaces(), processor, "flat")])
    text = view_page(looked, dataset="leaves").html()
    assert "flat has no class activation map: NoPlaces has no features with a place" in text
    assert "3 of the 5 rows have no map" in text
    assert "This row has no map." in text
    assert "class activation map against maps" not in text
    bare = look_at(make_dataset(3).remove_columns(["saliency", "label"]), [Subject(NoPlaces(), processor, "flat")])
    text = view_page(bare, dataset='<b>leaves</b> & "others"').html()
    check_page(text)
    assert "<b>leaves" not in text
    assert "no x+ and x- to compare" in text
    assert "Row 0: no label, predicted" in text


def test_figures_are_means_over_the_rows(processor):
    looked = look_at(make_dataset(6), [Subject(named(make_model("convnext")), processor, "small")], count=1)
    text = view_page(looked, dataset="leaves", settings={"split": "test"}).html()
    records = [record.models[0] for record in looked.records]
    correct = sum(record.correct for record in records) / 6
    moved = sum(record.moved["positive"] for record in records) / 6
    agreement = sum(record.alignment["cam"]["cc"] for record in records) / 6
    for figure in (correct, moved, agreement):
        assert f">{figure:.3f}<" in text.replace("\n", "")


def test_each_model_says_what_it_gives_the_others_predictions(processor):
    one, other = named(make_model("convnext")), named(make_model("convnext"))
    with torch.no_grad():
        other.classifier.weight.mul_(-1)
        other.classifier.bias.mul_(-1)
    looked = look_at(make_dataset(3), [Subject(one, processor, "one"), Subject(other, processor, "other")])
    for record in looked.records:
        first, second = record.models
        assert set(first.probabilities["anchor"]) == set(second.probabilities["anchor"])
        assert second.predictions["anchor"].label in first.probabilities["anchor"]
    assert "different things for 3 of 3 rows" in view_page(looked, dataset="leaves").html()


def test_numbers_are_not_called_probabilities(processor):
    def regression(name):
        model = make_model("convnext", num_labels=1)
        model.config.problem_type = "regression"
        return Subject(model, processor, name)

    data = make_dataset(4)
    numbers = data.remove_columns("label").add_column("label", [0.5, 1.0, 1.5, 2.0])
    looked = look_at(numbers, [regression("one"), regression("other")], order="labels")
    text = view_page(looked, dataset="leaves").html()
    assert "whose label is furthest from what one predicts" in text
    assert "On average, what the two predict is 0 apart." in text
    assert "probab" not in text
