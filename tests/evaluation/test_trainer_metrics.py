import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from transformers import EvalPrediction

from sage_hf.evaluation import Classification, classification_metrics, mean_interval


def test_metrics_by_hand():
    # Class 0: 2 of 3 right, one of them taken for 1; class 1: 1 of 1 right.
    # F1 of 0: 2 * 1 * (2/3) / (1 + 2/3) = 0.8; F1 of 1: precision 1/2, recall 1: 2/3.
    scores = Classification(keep_in_memory=True).compute(predictions=[0, 0, 1, 1], references=[0, 0, 0, 1])
    expected = {"accuracy": 0.75, "balanced_accuracy": (2 / 3 + 1) / 2, "macro_f1": (0.8 + 2 / 3) / 2}
    assert scores == pytest.approx(expected)


def test_balanced_accuracy_is_scikit_learns():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(200, 5)), generator.integers(0, 5, 200)
    scores = classification_metrics(EvalPrediction(predictions=logits, label_ids=labels))
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))


def test_a_class_that_never_occurs_has_no_recall():
    scores = Classification(keep_in_memory=True).compute(predictions=[0, 2], references=[0, 0])
    assert scores["balanced_accuracy"] == 0.5


def test_interval_by_the_table():
    # Student's t at 0.975 with 4 degrees of freedom is 2.776; the values' deviation is sqrt(2.5).
    mean, half_width = mean_interval([1, 2, 3, 4, 5])
    assert mean == 3
    assert half_width == pytest.approx(2.776 * np.sqrt(2.5 / 5), abs=1e-3)
    assert mean_interval([0.5]) == (0.5, np.inf)
