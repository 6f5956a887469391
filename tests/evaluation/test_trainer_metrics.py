import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, f1_score
from transformers import EvalPrediction
from transformers.trainer_utils import PredictionOutput

from sage_hf.evaluation import (
    METRICS,
    Classification,
    MultiLabel,
    Regression,
    classification_metrics,
    mean_interval,
    multi_label_metrics,
)
from sage_hf.evaluation.trainer_metrics import metric_intervals


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


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(2, 5), st.integers(1, 3))
def test_several_labels_are_scikit_learns(seed, rows, labels, decimals):
    generator = np.random.default_rng(seed)
    probabilities = generator.random((rows, labels)).round(decimals)
    targets, predicted = (generator.random((rows, labels)) < 0.3).astype(int), (probabilities > 0.5).astype(int)
    scores = MultiLabel(keep_in_memory=True).compute(predictions=probabilities, references=targets)
    expected = {
        "subset_accuracy": accuracy_score(targets, predicted),
        "micro_f1": f1_score(targets, predicted, average="micro", zero_division=0.0),
        "macro_f1": f1_score(targets, predicted, average="macro", zero_division=0.0),
    }
    occurring = targets.any(axis=0)
    if occurring.any():
        expected["mean_average_precision"] = average_precision_score(
            targets[:, occurring], probabilities[:, occurring]
        )
    assert scores == pytest.approx(expected)


def test_probabilities_next_to_one_are_told_apart():
    """Above a logit of 17 they all are one in single precision."""
    generator = np.random.default_rng(0)
    targets = (generator.random((400, 2)) < 0.3).astype(float)
    logits = (generator.normal(size=(400, 2)) * 4 + 14 + 5 * targets).astype(np.float32)
    found = multi_label_metrics(EvalPrediction(predictions=logits, label_ids=targets))["mean_average_precision"]
    assert found == pytest.approx(average_precision_score(targets, logits))


@pytest.mark.parametrize("problem_type", METRICS)
def test_intervals_are_of_the_metrics_without_a_table_for_each_resample(problem_type, monkeypatch):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20, 3)).astype(np.float32)
    labels = {
        "single_label_classification": generator.integers(0, 3, 20),
        "multi_label_classification": generator.random((20, 3)).round(),
        "regression": generator.normal(size=(20, 3)),
    }[problem_type]
    expected = METRICS[problem_type](EvalPrediction(predictions=logits, label_ids=labels))

    def compute(self, **inputs):
        """A metric adds to it."""
        raise AssertionError("each resample would be written into an Arrow table")

    for metric in (Classification, MultiLabel, Regression):
        monkeypatch.setattr(metric, "compute", compute)
    found = metric_intervals(PredictionOutput(logits, labels, {}), problem_type, resamples=10)
    assert {name: figure["value"] for name, figure in found.items()} == expected
    assert all(figure["low"] <= figure["high"] for figure in found.values())
