"""The consistency term of several labels and of numbers against loops in plain Python."""

import itertools
import math

import pytest
import torch

from sage_hf import SageObjective
from sage_hf.objectives import Encoding
from sage_hf.tasks import MULTI_LABEL, REGRESSION


def encodings(rows=5, labels=3):
    generator = torch.Generator().manual_seed(0)
    return [
        Encoding(
            2 * torch.randn(rows, labels, generator=generator, dtype=torch.float64),
            torch.randn(rows, 6, generator=generator, dtype=torch.float64),
        )
        for _ in range(3)
    ]


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def bernoulli_kl(p, q):
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def bernoulli_jsd(p, q):
    mean = (p + q) / 2
    return (bernoulli_kl(p, mean) + bernoulli_kl(q, mean)) / 2


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(
    ("consistency", "divergence"), list(itertools.product(["positive", "both", "uniform"], ["kl", "jsd"]))
)
def test_several_labels_against_a_loop(consistency, divergence, temperature):
    anchor, positive, negative = encodings()
    objective = SageObjective(
        consistency=consistency, divergence=divergence, temperature=temperature, problem_type=MULTI_LABEL
    )
    found = objective.terms(anchor, positive, negative)["consistency"]
    measure = bernoulli_kl if divergence == "kl" else bernoulli_jsd
    for row, value in enumerate(found.tolist()):
        total = 0.0
        for label in range(3):
            p, plus, minus = (
                sigmoid(encoding.logits[row, label].item() / temperature) for encoding in (anchor, positive, negative)
            )
            total += measure(p, plus)
            if consistency == "both":
                total += p * (math.log(2) - bernoulli_jsd(p, minus))
            elif consistency == "uniform":
                total += p * measure(0.5, minus)
        assert value == pytest.approx(total / 3, rel=1e-9)


@pytest.mark.parametrize("divergence", ["kl", "jsd"])
def test_regression_against_a_loop(divergence):
    anchor, positive, negative = encodings()
    objective = SageObjective(divergence=divergence, temperature=2.0, problem_type=REGRESSION)
    found = objective.terms(anchor, positive, negative)["consistency"]
    for row, value in enumerate(found.tolist()):
        outputs = zip(anchor.logits[row].tolist(), positive.logits[row].tolist(), strict=True)
        assert value == pytest.approx(sum((one - other) ** 2 for one, other in outputs) / 4 / 3)


def test_regression_is_twice_the_divergence_of_two_normal_distributions():
    # torch's own closed form, with the temperature as the deviation.
    anchor, positive, negative = encodings(labels=1)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(anchor.logits, 0.7), normal(positive.logits, 0.7))
    found = SageObjective(temperature=0.7, problem_type=REGRESSION).terms(anchor, positive, negative)["consistency"]
    torch.testing.assert_close(found, 2 * expected[:, 0])


@pytest.mark.parametrize("problem_type", [MULTI_LABEL, REGRESSION])
@pytest.mark.parametrize(("divergence", "stopped"), [("kl", True), ("jsd", False)])
def test_where_gradients_stop(problem_type, divergence, stopped):
    anchor, positive, negative = (Encoding(one.logits.requires_grad_(), one.embedding) for one in encodings())
    objective = SageObjective(divergence=divergence, problem_type=problem_type)
    objective.terms(anchor, positive, negative)["consistency"].sum().backward()
    assert (anchor.logits.grad is None) == stopped
    assert positive.logits.grad.abs().sum() > 0
    assert negative.logits.grad is None or not negative.logits.grad.any()


def test_one_label_of_two_classes_is_a_single_distribution():
    # The softmax of (a, 0) is the sigmoid of a: the two problem types meet there.
    anchor, positive, negative = encodings(labels=1)
    both = [
        Encoding(torch.cat([one.logits, 0 * one.logits], 1), one.embedding) for one in (anchor, positive, negative)
    ]
    one = SageObjective(problem_type=MULTI_LABEL).terms(anchor, positive, negative)["consistency"]
    torch.testing.assert_close(SageObjective().terms(*both)["consistency"], one)


@pytest.mark.parametrize("consistency", ["both", "uniform"])
def test_what_a_regression_has_no_counterpart_of_is_refused(consistency):
    with pytest.raises(ValueError, match="needs probabilities, and a regression has none"):
        SageObjective(consistency=consistency, problem_type=REGRESSION)
