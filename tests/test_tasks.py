"""Losses against loops in plain Python, torch's own reductions and transformers' own loss functions."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from transformers import ViTConfig
from transformers.loss.loss_utils import LOSS_MAPPING

from sage_hf import DataError
from sage_hf.data.labels import balanced_weights
from sage_hf.tasks import MULTI_LABEL, PROBLEM_TYPES, REGRESSION, SINGLE_LABEL, Task


def batch(problem_type, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5, 4, generator=generator, dtype=dtype)
    if problem_type == SINGLE_LABEL:
        return logits, torch.tensor([3, 0, 1, 1, 2])
    if problem_type == MULTI_LABEL:
        return logits, (torch.rand(5, 4, generator=generator) > 0.6).float()
    return logits, torch.randn(5, 4, generator=generator)


def mean_loss(task, logits, labels, **kwargs):
    return task.total_loss(logits, labels, **kwargs) / task.row_weights(labels).sum()


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_loss_is_that_of_transformers(problem_type):
    logits, labels = batch(problem_type)
    config = ViTConfig(num_labels=4, problem_type=problem_type)
    expected = LOSS_MAPPING["ForImageClassification"](labels, logits, config)
    torch.testing.assert_close(mean_loss(Task(problem_type, 4), logits, labels), expected)


def test_regression_with_one_output_takes_flat_labels():
    logits, labels = torch.tensor([[1.0], [4.0]]), torch.tensor([2.0, 2.0])
    assert mean_loss(Task(REGRESSION, 1), logits, labels).item() == pytest.approx((1 + 4) / 2)


def softmax_loop(logits, labels, weights, smoothing):
    """Weighted and smoothed cross-entropy, as torch's documentation writes it."""
    total = weight_sum = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_normaliser = math.log(sum(math.exp(value) for value in row))
        log_p = [value - log_normaliser for value in row]
        total -= (1 - smoothing) * weights[label] * log_p[label]
        total -= smoothing / len(row) * sum(weight * value for weight, value in zip(weights, log_p, strict=True))
        weight_sum += weights[label]
    return total / weight_sum


def sigmoid_loop(logits, labels, weights, smoothing):
    total = 0.0
    for row, targets in zip(logits.tolist(), labels.tolist(), strict=True):
        for value, target, weight in zip(row, targets, weights, strict=True):
            p, smooth = 1 / (1 + math.exp(-value)), (1 - smoothing) * target + smoothing / 2
            total -= (weight * smooth * math.log(p) + (1 - smooth) * math.log(1 - p)) / len(row)
    return total / len(logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(("problem_type", "loop"), [(SINGLE_LABEL, softmax_loop), (MULTI_LABEL, sigmoid_loop)])
def test_weights_and_smoothing_against_a_loop(problem_type, loop, smoothing):
    logits, labels = batch(problem_type, torch.float64)
    weights = (0.5, 1.0, 2.0, 4.0)
    task = Task(problem_type, 4, class_weights=weights, label_smoothing=smoothing)
    assert mean_loss(task, logits, labels).item() == pytest.approx(loop(logits, labels, weights, smoothing), rel=1e-6)
    plain = loop(logits, labels, weights, 0.0)
    assert mean_loss(task, logits, labels, smooth=False).item() == pytest.approx(plain, rel=1e-6)


def test_half_precision_is_computed_in_single():
    logits, labels = batch(MULTI_LABEL)
    loss = Task(MULTI_LABEL, 4).total_loss(logits.bfloat16(), labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, Task(MULTI_LABEL, 4).total_loss(logits.bfloat16().float(), labels))


def test_balanced_weights_are_those_of_scikit_learn():
    labels = [0, 0, 0, 2, 1, 1, 0]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights(labels, SINGLE_LABEL, 3) == pytest.approx(expected)


def test_balanced_labels_are_worked_by_hand():
    # Label 0 is present in one of four pictures, label 1 in two.
    labels = [[1, 0], [0, 1], [0, 1], [0, 0]]
    assert balanced_weights(labels, MULTI_LABEL, 2) == (3.0, 1.0)


@pytest.mark.parametrize(
    ("labels", "problem_type", "never"), [([0, 0, 2], SINGLE_LABEL, 1), ([[1, 1], [1, 0]], MULTI_LABEL, 0)]
)
def test_what_can_not_be_balanced_is_named(labels, problem_type, never):
    with pytest.raises(DataError, match=rf"labels \[{never}\] never occur in the training rows, or in all"):
        balanced_weights(labels, problem_type, 3 if problem_type == SINGLE_LABEL else 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"problem_type": "ranking"}, "Unknown problem_type 'ranking'"),
        ({"num_labels": 1}, "needs two classes"),
        ({"problem_type": REGRESSION, "class_weights": (1.0, 1.0)}, "A regression has no classes"),
        ({"problem_type": REGRESSION, "label_smoothing": 0.1}, "A regression has no classes"),
        ({"class_weights": (1.0,)}, "class_weights has 1 numbers, the model 2 labels"),
    ],
)
def test_what_does_not_fit_is_explained(settings, message):
    with pytest.raises(ValueError, match=message):
        Task(**{"problem_type": SINGLE_LABEL, "num_labels": 2} | settings)


def test_rows_that_torch_ignores_count_nothing():
    logits, labels = batch(SINGLE_LABEL)
    labels = labels.clone()
    labels[1] = -100
    for weights in (None, (0.5, 1.0, 2.0, 4.0)):
        weight = None if weights is None else torch.tensor(weights)
        expected = torch.nn.functional.cross_entropy(logits, labels, weight=weight)
        torch.testing.assert_close(mean_loss(Task(SINGLE_LABEL, 4, class_weights=weights), logits, labels), expected)


@pytest.mark.parametrize(
    ("problem_type", "labels"),
    [
        (SINGLE_LABEL, torch.zeros(5, 4)),
        (SINGLE_LABEL, torch.zeros(5)),
        (MULTI_LABEL, torch.zeros(5, dtype=torch.long)),
        (REGRESSION, torch.zeros(5)),
    ],
)
def test_labels_of_another_problem_are_refused(problem_type, labels):
    with pytest.raises(ValueError, match=r"don't fit problem_type='.*Set the model's config.problem_type"):
        Task(problem_type, 4).total_loss(torch.zeros(5, 4), labels)
