import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from sage_hf.evaluation import Calibration
from tests.evaluation.peers import TORCHMETRICS, make_rows


def calibration(predictions, references, **kwargs):
    return Calibration(keep_in_memory=True).compute(predictions=predictions, references=references, **kwargs)


def naive_errors(probabilities, labels, bins):
    """Row by row, from the definition of the bins."""
    held = [[] for _ in range(bins)]
    for row, label in zip(probabilities, labels, strict=True):
        confidence = max(row)
        for index in range(bins):
            if index / bins < confidence <= (index + 1) / bins:
                held[index].append((confidence, float(np.argmax(row) == label)))
    gaps = [abs(np.mean([c for c, _ in rows]) - np.mean([a for _, a in rows])) if rows else 0 for rows in held]
    return sum(len(rows) * gap for rows, gap in zip(held, gaps, strict=True)) / len(labels), max(gaps)


def test_torchmetrics():
    _, probabilities, labels, _ = make_rows()
    scores = calibration(probabilities, labels)
    assert scores["ece"] == pytest.approx(TORCHMETRICS["ece"], abs=1e-6)
    assert scores["mce"] == pytest.approx(TORCHMETRICS["mce"], abs=1e-6)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_bins_by_a_loop(bins):
    _, probabilities, labels, _ = make_rows()
    scores = calibration(probabilities, labels, bins=bins)
    assert (scores["ece"], scores["mce"]) == pytest.approx(naive_errors(probabilities, labels, bins))


def test_proper_scores_are_scikit_learns():
    _, probabilities, labels, _ = make_rows()
    scores = calibration(probabilities, labels)
    assert scores["negative_log_likelihood"] == pytest.approx(log_loss(labels, probabilities))
    two = np.stack([1 - probabilities[:, 0], probabilities[:, 0]], axis=1)
    halved = calibration(two, (labels == 0).astype(int))["brier_score"] / 2
    assert halved == pytest.approx(brier_score_loss(labels == 0, probabilities[:, 0]))


def test_by_hand():
    # Confidences 0.9, 0.9, 0.7 and 0.7 in two bins; right: one of two, two of two. Distances: 0.02, 1.62, 0.18, 0.18.
    scores = calibration([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]], [0, 1, 1, 1])
    assert scores["ece"] == pytest.approx((0.4 + 0.3) / 2)
    assert scores["mce"] == pytest.approx(0.4)
    assert scores["brier_score"] == pytest.approx((0.02 + 1.62 + 0.18 + 0.18) / 4)
    assert scores["negative_log_likelihood"] == pytest.approx(-np.log(0.9 * 0.1 * 0.7 * 0.7) / 4)


def test_an_edge_belongs_to_the_bin_below():
    # 0.5 ends the first of two bins, where 0.5 and nothing else is; 0.75 is in the second.
    assert calibration([[0.5, 0.5], [0.25, 0.75]], [0, 1], bins=2)["mce"] == pytest.approx(0.5)
    assert calibration([[0.5, 0.5], [0.25, 0.75]], [1, 1], bins=2)["ece"] == pytest.approx((0.5 + 0.25) / 2)


def test_a_sure_error_is_finite():
    scores = calibration([[1.0, 0.0]], [1])
    assert scores == pytest.approx(
        {"ece": 1, "mce": 1, "brier_score": 2, "negative_log_likelihood": 52 * np.log(2)}  # epsilon is 2 to the -52
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 25))
def test_ranges_and_order_of_rows(seed, rows, bins):
    generator = np.random.default_rng(seed)
    probabilities, labels = generator.dirichlet([0.3] * 3, rows), generator.integers(0, 3, rows)
    scores = calibration(probabilities, labels, bins=bins)
    assert 0 <= scores["ece"] <= scores["mce"] + 1e-12 <= 1 + 1e-9
    assert 0 <= scores["brier_score"] <= 2
    assert 0 <= scores["negative_log_likelihood"] <= 36.05
    order = generator.permutation(rows)
    assert calibration(probabilities[order], labels[order], bins=bins) == pytest.approx(scores)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "There are no rows"),
        ([[0.5, 0.5], [1.0]], [0, 0], r"have \[1, 2\] numbers"),
        ([[0.3]], [0], r"\[1 - p, p\]"),
        ([[0.5, 0.5], [0.5, np.nan]], [0, 0], "Row 1 of the predictions holds NaN"),
        ([[1.5, -0.5]], [0], "a negative number"),
        ([[3.0, 1.0]], [0], "Row 0 of the predictions adds up to 4, expected 1. Apply softmax"),
        ([[0.5, 0.5]], [2], r"References are in \[2, 2\], expected \[0, 1\]"),
    ],
)
def test_bad_input_is_named(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        calibration(predictions, references)


def test_bad_number_of_bins_is_named():
    with pytest.raises(ValueError, match="bins is 0, expected a whole number"):
        calibration([[0.5, 0.5]], [0], bins=0)
