"""Labels as they stand in datasets: one class, several, or numbers."""

import datasets
import numpy as np
import pytest
import torch

from sage_hf import DataError, SageTrainer, SageTrainingArguments
from sage_hf.data.labels import LabelReader, problem_type_of
from sage_hf.data.loading import class_names, encode_labels
from sage_hf.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from tests.conftest import make_model, make_rows

CLASSES = ["cyst", "stone", "tumour"]


@pytest.mark.parametrize(
    ("problem_type", "label", "expected"),
    [
        (SINGLE_LABEL, 2, 2),
        (SINGLE_LABEL, "stone", 1),
        (SINGLE_LABEL, 1.0, 1),
        (MULTI_LABEL, ["tumour", "cyst"], [1.0, 0.0, 1.0]),
        (MULTI_LABEL, [], None),
        (MULTI_LABEL, [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]),
        (SINGLE_LABEL, True, 1),
        (MULTI_LABEL, np.array([0.0, 0.5, 1.0]), [0.0, 0.5, 1.0]),
        (REGRESSION, [1, 2.5, -3], [1.0, 2.5, -3.0]),
    ],
)
def test_labels_are_read(problem_type, label, expected):
    reader = LabelReader("label", problem_type, CLASSES)
    if expected is None:  # without class indices, an empty list is not a number for each label
        with pytest.raises(DataError, match="0 numbers, and the model has 3 outputs"):
            reader(label)
    else:
        assert reader(label) == expected


def test_indices_follow_the_names_of_the_dataset():
    stored = ["tumour", "cyst", "stone"]
    reader = LabelReader("label", MULTI_LABEL, CLASSES, stored=stored, lists=True)
    assert reader([0]) == [0.0, 0.0, 1.0]
    assert reader([1, 2]) == [1.0, 1.0, 0.0]
    assert reader([]) == [0.0, 0.0, 0.0]
    assert LabelReader("label", SINGLE_LABEL, CLASSES, stored=stored)(0) == 2


@pytest.mark.parametrize(
    ("problem_type", "label", "message"),
    [
        (SINGLE_LABEL, [1, 2], r"column 'label': \[1, 2\] is a list, and the model takes one class"),
        (SINGLE_LABEL, 3, r"label 3 is outside the head's range 0 to 2"),
        (SINGLE_LABEL, 1.5, r"1.5 is no class index"),
        (SINGLE_LABEL, "gland", r"class 'gland' is not one of the model's: cyst, stone, tumour"),
        (MULTI_LABEL, 1, r"1 is no list"),
        (MULTI_LABEL, [1.0, 0.0], r"2 numbers, and the model has 3 outputs"),
        (MULTI_LABEL, [1.0, 0.0, 2.0], r"should hold numbers in \[0, 1\]"),
        (MULTI_LABEL, ["gland"], r"class 'gland' is not one"),
        (MULTI_LABEL, [0, 1, 1], r"\[0, 1, 1\] may be classes, or a number for each label: give the column its type"),
        (SINGLE_LABEL, float("nan"), r"nan is no class index"),
        (SINGLE_LABEL, {"a": 1}, r"is no class index"),
        (REGRESSION, [1.0, float("nan"), 0.0], r"NaN or infinite"),
        (REGRESSION, 1.0, r"1 numbers, and the model has 3 outputs"),
        (REGRESSION, [1.0, None, 0.0], r"should hold numbers"),
    ],
)
def test_what_can_not_be_read_is_explained(problem_type, label, message):
    with pytest.raises(DataError, match=message):
        LabelReader("label", problem_type, CLASSES)(label)


@pytest.mark.parametrize(
    ("feature", "num_labels", "expected"),
    [
        (datasets.ClassLabel(names=CLASSES), 3, SINGLE_LABEL),
        (datasets.Value("string"), None, SINGLE_LABEL),
        (datasets.List(datasets.ClassLabel(names=CLASSES)), 3, MULTI_LABEL),
        (datasets.List(datasets.Value("float32")), None, MULTI_LABEL),
        (datasets.Value("float64"), None, REGRESSION),
        (datasets.Value("int64"), 1, REGRESSION),
        (None, None, SINGLE_LABEL),
    ],
)
def test_the_problem_type_follows_the_column(feature, num_labels, expected):
    assert problem_type_of(feature, num_labels) == expected


def splits_with(labels, feature=None):
    columns = {"label": labels}
    features = datasets.Features(label=feature) if feature is not None else None
    return datasets.DatasetDict(train=datasets.Dataset.from_dict(columns, features=features))


def test_lists_of_names_and_of_indices_become_classes():
    encoded = encode_labels(splits_with([["b"], [], ["c", "a"]]), "label")
    assert encoded["train"].features["label"] == datasets.List(datasets.ClassLabel(names=["a", "b", "c"]))
    assert list(encoded["train"]["label"]) == [[1], [], [2, 0]]
    assert class_names(encoded, "label") == ["a", "b", "c"]
    encoded = encode_labels(splits_with([[1], [2, 0]]), "label")
    assert class_names(encoded, "label") == ["0", "1", "2"]


@pytest.mark.parametrize("labels", [[[0.0, 1.0], [0.5, 0.0]], [[0, 1], [1, 1]]])
def test_a_number_for_each_label_is_left_as_it_is(labels):
    encoded = encode_labels(splits_with(labels), "label")
    assert list(encoded["train"]["label"]) == labels
    assert class_names(encoded, "label") == ["LABEL_0", "LABEL_1"]


def test_numbers_of_a_regression_are_left_as_they_are():
    assert list(encode_labels(splits_with([0.5, 2.0]), "label")["train"]["label"]) == [0.5, 2.0]
    whole = encode_labels(splits_with([40, 71]), "label", "regression")
    assert list(whole["train"]["label"]) == [40, 71]
    assert class_names(whole, "label") == ["label"]
    with pytest.raises(DataError, match="Numbers to be predicted are problem_type='regression'"):
        encode_labels(splits_with([40, 71]), "label")


def dataset_with(labels, feature):
    rows = make_rows(len(labels))
    features = datasets.Features(image=datasets.Image(), saliency=datasets.Image(mode="L"), label=feature)
    columns = {"image": [row["image"] for row in rows], "saliency": [row["saliency"] for row in rows], "label": labels}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize(
    ("labels", "feature", "num_labels", "problem_type", "expected"),
    [
        (
            [[0], [], [1, 2], [2]],
            datasets.List(datasets.ClassLabel(names=CLASSES)),
            3,
            MULTI_LABEL,
            [[1, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 1]],
        ),
        ([[0.0, 1.0]] * 4, datasets.List(datasets.Value("float32")), 2, MULTI_LABEL, [[0, 1]] * 4),
        ([0.5, 1.5, -2.0, 7.0], datasets.Value("float64"), 1, REGRESSION, [[0.5], [1.5], [-2.0], [7.0]]),
    ],
)
def test_the_trainer_infers_the_problem_and_batches_its_labels(
    labels, feature, num_labels, problem_type, expected, tmp_path, processor
):
    args = SageTrainingArguments(
        output_dir=str(tmp_path), max_steps=1, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no"
    )
    model = make_model("vit", num_labels=num_labels)
    trainer = SageTrainer(model, args, train_dataset=dataset_with(labels, feature), processing_class=processor)
    assert model.config.problem_type == problem_type
    assert trainer.guidance_objective.problem_type == problem_type
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    assert torch.equal(batch["labels"], torch.tensor(expected, dtype=torch.float32))
    # And the loss of the model itself, which transformers computes, is the same.
    with torch.no_grad():
        own = model(pixel_values=batch["pixel_values"], labels=batch["labels"]).loss
        torch.testing.assert_close(trainer.compute_loss(model.eval(), batch), own)
    trainer.train()


def test_a_row_with_a_bad_label_is_named(tmp_path, processor):
    args = SageTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    dataset = dataset_with([0.5, float("nan"), 1.0], datasets.Value("float64"))
    with pytest.raises(DataError, match=r"train dataset, row 1, column 'label': \[nan\] holds NaN"):
        SageTrainer(make_model("vit", num_labels=1), args, train_dataset=dataset, processing_class=processor)


def test_balanced_weights_come_from_the_training_rows(tmp_path, processor):
    labels = [[0], [0, 1], [0, 2], []]
    dataset = dataset_with(labels, datasets.List(datasets.ClassLabel(names=CLASSES)))
    args = SageTrainingArguments(
        output_dir=str(tmp_path), class_weights="balanced", use_cpu=True, report_to="none", disable_tqdm=True
    )
    trainer = SageTrainer(make_model("vit"), args, train_dataset=dataset, processing_class=processor)
    assert trainer.task.class_weights == pytest.approx((1 / 3, 3.0, 3.0))
    args.max_steps = 1
    with pytest.raises(DataError, match="needs a map-style dataset whose labels can be read beforehand"):
        SageTrainer(make_model("vit"), args, train_dataset=dataset.to_iterable_dataset(), processing_class=processor)


class SeveralLabels(torch.utils.data.Dataset):
    """Rows that a user's own code has prepared, with a number for each label."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"pixel_values": torch.zeros(3, 32, 32), "saliency": None, "labels": torch.tensor([1.0, 1.0, 0.0])}


def test_the_problem_is_inferred_from_rows_that_say_nothing_of_their_types(tmp_path):
    args = SageTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    for given in ({"train_dataset": SeveralLabels()}, {"eval_dataset": {"test": SeveralLabels()}}):
        model = make_model("vit")
        SageTrainer(model, args, **given)
        assert model.config.problem_type == MULTI_LABEL
    model.config.problem_type = SINGLE_LABEL
    trainer = SageTrainer(model, args, train_dataset=SeveralLabels())
    with pytest.raises(ValueError, match=r"Labels of \(2, 3\) and torch.float32 don't fit .*Set the model's config"):
        trainer.compute_loss(model, trainer.data_collator([SeveralLabels()[0]] * 2))


def test_names_may_be_missing_in_a_row_of_names(tmp_path, processor):
    dataset = dataset_with([["stone"], [], ["cyst", "tumour"]], datasets.List(datasets.Value("string")))
    model = make_model("vit")
    model.config.id2label = dict(enumerate(CLASSES))
    args = SageTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    trainer = SageTrainer(model, args, train_dataset=dataset, processing_class=processor)
    assert [row["labels"] for row in trainer.train_dataset] == [[0.0, 1.0, 0.0], [0.0] * 3, [1.0, 0.0, 1.0]]


def test_hidden_labels_are_none_for_predictions(tmp_path, processor):
    dataset = dataset_with([-1, -1], datasets.Value("int64"))
    args = SageTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True)
    trainer = SageTrainer(make_model("vit"), args, processing_class=processor)
    output = trainer.predict(dataset)
    assert output.predictions.shape == (2, 3)
    assert output.label_ids is None


def test_grades_can_be_a_regression():
    splits = splits_with([0, 2, 1], datasets.ClassLabel(names=["mild", "moderate", "severe"]))
    encoded = encode_labels(splits, "label", REGRESSION)
    assert list(encoded["train"]["label"]) == [0, 2, 1]
    assert class_names(encoded, "label") == ["label"]
