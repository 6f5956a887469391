"""What is drawn of predictions that were made up by hand."""

import numpy as np
import pytest

from sage_hf.pages import Page, Table, Text
from sage_hf.reporting.predictions import calibration, confusion, differences, roc, scores_and_positives
from tests.pages.reading import check_page, tables


def found(problem_type="single_label_classification", classes=3, rows=40, **more):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, rows)
    logits = generator.normal(size=(rows, classes))
    return {
        "problem_type": problem_type,
        "classes": [f"class {index}" for index in range(classes)],
        "predictions": {"test": {"logits": logits, "labels": labels}},
        "calibration": {"test": {"ece": {"value": 0.1}}},
    } | more


def test_reliability_by_hand():
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 0])
    made = found(classes=2, predictions={"test": {"logits": logits, "labels": labels}})
    page = Page("p")
    page.add("Calibration", *calibration(made))
    # In bins of 1/15: 0.6 ends one and 0.65 is in the next, 0.9 is in the 14th.
    assert tables(check_page(page.html()))["reliability, test"][1:] == [["0.6", "0"], ["0.65", "1"], ["0.9", "0.5"]]


def test_many_classes():
    made = found(classes=30, rows=200)
    (gallery,) = confusion(made)
    (table,) = gallery.blocks
    assert isinstance(table, Table)
    labels, taken = made["predictions"]["test"]["labels"], made["predictions"]["test"]["logits"].argmax(1)
    first = table.rows[0]
    pairs = [(int(y), int(x)) for y, x in zip(labels, taken, strict=True) if y != x]
    most = max(pairs.count(pair) for pair in pairs)
    assert first[2] == str(most)
    gallery, areas, _ = roc(made)
    assert gallery.blocks[0].caption == "The 10 classes of the smallest areas."
    assert len(areas.rows) == 31


def test_several_labels_and_numbers():
    several = found("multi_label_classification")
    several["predictions"]["test"]["labels"] = np.eye(3)[several["predictions"]["test"]["labels"]]
    assert len(roc(several)[1].rows) == 4
    for made, drawn in ((several, (calibration, confusion)), (found("regression"), (calibration, confusion, roc))):
        for section in drawn:
            (text,) = section(made)
            assert isinstance(text, Text)


def test_a_class_without_rows_has_no_curve():
    made = found(classes=2)
    made["predictions"]["test"]["labels"][:] = 1
    gallery, areas, _ = roc(made)
    assert gallery.blocks == ()
    assert areas.rows == [["class 0", ""], ["class 1", ""], ["mean of the classes", ""]]


def test_differences():
    made = {"metrics": {"test": {"accuracy": 0.5, "loss": 1.0}, "other": {"accuracy": 0.1}}}
    recorded = {"test": {"accuracy": {"value": 0.50001}, "loss": {"value": 1.25}}}
    assert differences(made, recorded) == ["test, loss: 1 here, 1.25 in the run."]


def test_scores_of_several_labels():
    logits, labels = np.array([[0.0, 2.0]]), np.array([[0.0, 1.0]])
    scores, positive = scores_and_positives(logits, labels, "multi_label_classification")
    assert scores[0] == pytest.approx([0.5, 1 / (1 + np.exp(-2))])
    assert positive.tolist() == [[False, True]]
