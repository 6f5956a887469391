import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from sage_hf import AlignedTransform, DataError, make_views
from sage_hf.evaluation import SaliencyAlignment, model_saliency
from sage_hf.viewing import Subject, look_at
from sage_hf.viewing.rows import chosen_rows
from tests.conftest import CLASSES, make_dataset, make_model, make_rows


def named(model):
    model.config.id2label = dict(enumerate(CLASSES))
    return model


@pytest.fixture
def subject(processor):
    return Subject(named(make_model("convnext")), processor, "small")


def inputs_of(dataset, processor, rows):
    transform = AlignedTransform(processor, label_column="")
    found = [transform(dataset[row]) for row in rows]
    return torch.stack([row["pixel_values"] for row in found]), [row["saliency"] for row in found]


@pytest.mark.parametrize("degradation", ["blur", "mean"])
def test_predictions_are_those_of_views_made_by_hand(dataset, subject, processor, degradation):
    looked = look_at(dataset, [subject], degradation=degradation, order="rows")
    pixel_values, saliency = inputs_of(dataset, processor, range(8))
    positive, negative = make_views(pixel_values, torch.stack(saliency), degradation)
    model = subject.model.eval()
    with torch.no_grad():
        expected = {
            "anchor": model(pixel_values).logits.softmax(dim=1),
            "positive": model(positive).logits.softmax(dim=1),
            "negative": model(negative).logits.softmax(dim=1),
        }
    for row, record in enumerate(looked.records):
        (found,) = record.models
        assert record.row == row
        assert record.label == CLASSES[row % 3]
        for view, probabilities in expected.items():
            best = int(probabilities[row].argmax())
            assert found.predictions[view].label == CLASSES[best]
            assert found.predictions[view].confidence == pytest.approx(float(probabilities[row].max()), abs=1e-5)
        between = (expected["positive"][row] - expected["anchor"][row]).abs().sum() / 2
        assert found.moved["positive"] == pytest.approx(float(between), abs=1e-5)
        assert found.label_error == pytest.approx(1 - float(expected["anchor"][row, row % 3]), abs=1e-5)
        assert found.correct == (found.predictions["anchor"].label == CLASSES[row % 3])


def test_embeddings_are_what_enters_the_head(dataset, subject, processor):
    (found,) = look_at(dataset, [subject], degradation="mean").embeddings
    pixel_values, saliency = inputs_of(dataset, processor, range(8))
    positive, _ = make_views(pixel_values, torch.stack(saliency), "mean")
    with torch.no_grad():
        np.testing.assert_allclose(found.anchors, subject.model.convnext(pixel_values).pooler_output, atol=1e-5)
        np.testing.assert_allclose(found.positives, subject.model.convnext(positive).pooler_output, atol=1e-5)


def test_agreement_and_order_by_a_naive_loop(subject, processor):
    dataset = make_dataset(rows=spread_rows(7))
    looked = look_at(dataset, [subject], count=3)
    pixel_values, saliency = inputs_of(dataset, processor, range(7))
    badness = []
    for row in range(7):
        (where,) = model_saliency(subject.model, pixel_values[row : row + 1])
        scores = SaliencyAlignment(keep_in_memory=True).compute(
            predictions=[where.double().tolist()], references=[saliency[row][0].double().tolist()]
        )
        badness.append((scores["cc"], row))
    assert [record.row for record in looked.records] == [row for _, row in sorted(badness)]
    for record in looked.records:
        assert record.models[0].alignment["cam"]["cc"] == pytest.approx(
            dict(map(reversed, badness))[record.row], abs=1e-4
        )
    assert list(looked.pictures) == [record.row for record in looked.records[:3]]


def spread_rows(count):
    """Marked rectangles at different places, so that agreement differs."""
    rows = make_rows(count)
    for index, row in enumerate(rows):
        saliency = np.zeros((40, 48), dtype=np.uint8)
        saliency[4 * index : 4 * index + 12, 5 * index : 5 * index + 14] = 255
        row["saliency"] = Image.fromarray(saliency)
    return rows


def test_the_worst_are_kept_over_batches(processor):
    """Forty rows are more than two batches: what is kept on the way is the same as what is sorted at the end."""
    subject = Subject(named(make_model("convnext")), processor, "small")
    dataset = make_dataset(40)
    looked = look_at(dataset, [subject], count=5, order="labels")
    everything = look_at(dataset, [subject], count=0, order="rows").records
    naive = sorted(everything, key=lambda record: (-record.models[0].label_error, record.row))
    assert [record.row for record in looked.records] == [record.row for record in naive]
    assert list(looked.pictures) == [record.row for record in naive[:5]]
    kept = looked.pictures[naive[0].row].image
    transform = AlignedTransform(processor)
    expected = transform(dataset[naive[0].row])["pixel_values"] * 0.5 + 0.5
    np.testing.assert_allclose(np.asarray(kept) / 255, expected.permute(1, 2, 0), atol=0.5 / 255 + 1e-6)


def test_a_seed_says_it_all(dataset, subject):
    """The same rows and the same partners to shuffle with; others under another seed."""
    dataset = make_dataset(30)
    first, again, other = (look_at(dataset, [subject], rows=9, count=9, seed=seed) for seed in (3, 3, 4))
    assert [record.to_dict() for record in first.records] == [record.to_dict() for record in again.records]
    assert {record.row for record in first.records} != {record.row for record in other.records}
    for row, pictures in first.pictures.items():
        for name, image in pictures.degraded.items():
            assert np.array_equal(image, again.pictures[row].degraded[name]), name


def test_rows_without_maps(subject):
    """In some rows: they come last and have no views. In all: by their labels."""
    some = look_at(make_dataset(6, annotated=2), [subject])
    assert some.order == "maps"
    assert {record.row for record in some.records[:2]} == {0, 1}
    assert [record.row for record in some.records[2:]] == [2, 3, 4, 5]
    assert set(some.records[2].models[0].predictions) == {"anchor"}
    assert some.pictures[2].views == {}
    assert some.pictures[2].marked is None
    assert len(some.embeddings[0].anchors) == 2
    none = look_at(make_dataset(6).remove_columns("saliency"), [subject])
    assert none.order == "labels"
    assert none.embeddings == []
    errors = [record.models[0].label_error for record in none.records]
    assert errors == sorted(errors, reverse=True)


def test_two_models_with_classes_in_another_order(dataset, processor):
    """They are compared by the names of the classes; here they are one and the same, but for the order."""
    one, other = named(make_model("convnext")), make_model("convnext")
    order = [2, 0, 1]
    other.config.id2label = {place: CLASSES[index] for place, index in enumerate(order)}
    with torch.no_grad():
        other.classifier.weight.copy_(one.classifier.weight[order])
        other.classifier.bias.copy_(one.classifier.bias[order])
    looked = look_at(dataset, [Subject(one, processor, "one"), Subject(other, processor, "other")], order="models")
    for record in looked.records:
        assert record.difference == pytest.approx(0, abs=1e-6)
        assert record.models[0].predictions["anchor"].label == record.models[1].predictions["anchor"].label
        assert record.models[0].correct == record.models[1].correct


def test_classes_that_a_model_does_not_know(dataset, processor):
    """A backbone's own thousand classes, say: there is a prediction, and nothing to hold it against."""
    looked = look_at(dataset, [Subject(make_model("convnext"), processor, "backbone")])
    assert {record.models[0].correct for record in looked.records} == {None}
    assert looked.records[0].models[0].predictions["anchor"].label.startswith("LABEL_")


class NoPlaces(torch.nn.Module):
    """A classifier without features that have a place in the picture."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.config = named(make_model("vit")).config
        self.head = torch.nn.Linear(3 * 32 * 32, 3)

    def forward(self, pixel_values):
        return self.head(pixel_values.flatten(1))


def test_a_model_without_class_activation_maps(dataset, processor):
    subject = Subject(NoPlaces(), processor, "flat")
    looked = look_at(dataset, [subject])
    assert "no features with a place" in looked.without["flat"]["cam"]
    agreement = [record.models[0].alignment["gradient"]["cc"] for record in looked.records]
    assert agreement == sorted(agreement)
    assert set(looked.pictures[0].looks[0]) == {"gradient"}


def test_several_labels_and_numbers(processor):
    rows = make_rows(4)
    several = datasets.Dataset.from_dict(
        {"image": [row["image"] for row in rows], "label": [[0, 2], [], [1], [0]]},
        features=datasets.Features(image=datasets.Image(), label=datasets.List(datasets.ClassLabel(names=CLASSES))),
    )
    model = named(make_model("convnext"))
    model.config.problem_type = "multi_label_classification"
    found = look_at(several, [Subject(model, processor, "several")], order="rows").records
    with torch.no_grad():
        outputs = model(inputs_of(several, processor, range(4))[0]).logits.sigmoid()
    truth = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]])
    for row, record in enumerate(found):
        assert record.label == [name for name, there in zip(CLASSES, truth[row], strict=True) if there]
        assert record.models[0].label_error == pytest.approx(float((outputs[row] - truth[row]).abs().mean()), abs=1e-5)
        assert record.models[0].correct == bool(((outputs[row] >= 0.5) == truth[row].bool()).all())

    numbers = several.remove_columns("label").add_column("label", [0.5, 1.5, -2.0, 0.0])
    model = make_model("convnext", num_labels=1)
    found = look_at(numbers, [Subject(model, processor, "number")], order="labels").records
    errors = (model(inputs_of(several, processor, range(4))[0]).logits[:, 0] - torch.tensor(numbers["label"])).abs()
    assert [record.row for record in found] == errors.argsort(descending=True).tolist()


def test_rows_with_maps_are_drawn_first():
    assert chosen_rows(50, [3, 9, 30], 3, seed=1) == [3, 9, 30]
    drawn = chosen_rows(50, [3, 9, 30], 10, seed=1)
    assert {3, 9, 30} < set(drawn)
    assert len(set(drawn)) == 10
    assert chosen_rows(4, [1], -1, seed=0) == [0, 1, 2, 3]


def test_what_can_not_be_looked_at(dataset, subject):
    with pytest.raises(ValueError, match="order='maps' sorts by what a model makes"):
        look_at(dataset, order="maps")
    with pytest.raises(ValueError, match="two models with the same classes"):
        look_at(dataset, [subject], order="models")
    with pytest.raises(ValueError, match="One row has no other to be mixed with"):
        look_at(make_dataset(1))
    with pytest.raises(DataError, match="there is no column 'picture'"):
        look_at(dataset, image_column="picture")
    with pytest.raises(DataError, match="is empty"):
        look_at(dataset.select([]))
    broken = make_rows(3)
    broken[1]["image"] = Image.new("I;16", (48, 40))
    with pytest.raises(DataError, match="dataset, row 1, column 'image'"):
        look_at(make_dataset(rows=broken))
