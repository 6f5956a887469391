import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sage_hf.evaluation import Classification, MultiLabel, Regression
from tests.evaluation.peers import TORCHMETRICS, make_rows


def auroc(probabilities, references):
    metric = Classification(keep_in_memory=True)
    chosen = np.argmax(probabilities, axis=1)
    return metric.compute(predictions=chosen, references=references, probabilities=probabilities)["auroc"]


def test_auroc_is_torchmetrics_and_scikit_learns():
    _, probabilities, labels, _ = make_rows()
    assert auroc(probabilities, labels) == pytest.approx(TORCHMETRICS["auroc"], abs=1e-6)
    assert auroc(probabilities, labels) == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"))


def test_a_class_that_never_occurs_has_no_part_in_auroc():
    # Class 0: 0.6 outranks 0.5 and 0.3: 1. Class 1: 0.4 and 0.5, against 0.4: one tie, one win: 0.75.
    probabilities = [[0.6, 0.4, 0.0], [0.5, 0.5, 0.0], [0.3, 0.4, 0.3]]
    assert auroc(probabilities, [0, 1, 1]) == pytest.approx((1 + 0.75) / 2)


def test_auroc_comes_with_probabilities_alone():
    scores = Classification(keep_in_memory=True).compute(predictions=[0, 1], references=[0, 1])
    assert set(scores) == {"accuracy", "balanced_accuracy", "macro_f1"}


@pytest.mark.parametrize(
    ("probabilities", "references", "message"),
    [
        ([[0.5, 0.5]], [0, 1], r"shape \(1, 2\), expected \(2, classes\)"),
        ([[0.5, np.nan], [0.5, 0.5]], [0, 1], "NaN, infinity or a negative"),
        ([[0.5, 0.5], [2.0, 1.0]], [0, 1], "Row 1 of the probabilities adds up to 3, expected 1"),
        ([[0.5, 0.5], [0.5, 0.5]], [0, 2], r"References are in \[0, 2\], expected \[0, 1\]"),
        ([[0.5, 0.5], [0.5, 0.5]], [1, 1], "Every reference is class 1: AUROC needs rows of two classes"),
    ],
)
def test_bad_probabilities_are_named(probabilities, references, message):
    with pytest.raises(ValueError, match=message):
        Classification(keep_in_memory=True).compute(
            predictions=references, references=references, probabilities=probabilities
        )


@pytest.mark.parametrize(
    ("metric", "predictions", "references", "message"),
    [
        (Classification, [], [], "There are no rows"),
        (Classification, [0], [0, 1], "Mismatch"),
        (MultiLabel, [[0.5, 2.0]], [[0, 1]], r"NaN or a number outside \[0, 1\]"),
        (MultiLabel, [[0.5, 0.2]], [[0, 3]], r"References hold \[3.0\], expected 0 and 1"),
        (MultiLabel, [[0.5, 0.2]], [[0]], r"have \[1, 2\] numbers"),
        (Regression, [[np.nan]], [[0.0]], "Predictions hold NaN"),
        (Regression, [[1.0, 2.0]], [[0.0]], r"have \[1, 2\] numbers"),
    ],
)
def test_bad_rows_are_named(metric, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        metric(keep_in_memory=True).compute(predictions=predictions, references=references)
