"""Every term against a loop over rows in plain Python floats, and against numbers worked by hand."""

import itertools
import math

import pytest
import torch

from sage_hf.objectives import GUIDANCE, Encoding, SageObjective
from sage_hf.objectives.sage import jensen_shannon_divergence, kullback_leibler_divergence
from sage_hf.views import grow_marks


def encodings(rows=5, labels=4, dimension=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        Encoding(
            2 * torch.randn(rows, labels, generator=generator, dtype=torch.float64),
            torch.randn(rows, dimension, generator=generator, dtype=torch.float64),
        )
        for _ in range(3)
    ]


def softmax(logits, temperature):
    exponentials = [math.exp(value / temperature) for value in logits]
    return [value / sum(exponentials) for value in exponentials]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def jsd(p, q):
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return kl(p, middle) / 2 + kl(q, middle) / 2


def naive_distance(a, b, kind):
    if kind == "euclidean":
        return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return 1 - dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


@pytest.mark.parametrize(
    ("distance", "consistency", "divergence"),
    list(itertools.product(["cosine", "euclidean"], ["both", "positive", "uniform"], ["jsd", "kl"])),
)
def test_terms_equal_a_loop_over_rows(distance, consistency, divergence):
    objective = SageObjective(
        distance=distance, consistency=consistency, divergence=divergence, margin=0.3, temperature=2.5
    )
    anchor, positive, negative = encodings()
    terms = objective.terms(anchor, positive, negative)
    for row in range(5):
        z, z_positive, z_negative = (e.embedding[row].tolist() for e in (anchor, positive, negative))
        to_positive, to_negative = naive_distance(z, z_positive, distance), naive_distance(z, z_negative, distance)
        assert terms["triplet"][row].item() == pytest.approx(max(0.0, to_positive - to_negative + 0.3), abs=1e-12)
        assert terms["satisfied_triplets"][row].item() == float(to_positive < to_negative)

        p, p_positive, p_negative = (softmax(e.logits[row].tolist(), 2.5) for e in (anchor, positive, negative))
        expected = kl(p, p_positive) if divergence == "kl" else jsd(p, p_positive)
        if consistency == "both":
            expected += math.log(2) - jsd(p, p_negative)
        if consistency == "uniform":
            uniform = [1 / len(p)] * len(p)
            expected += kl(uniform, p_negative) if divergence == "kl" else jsd(uniform, p_negative)
        assert terms["consistency"][row].item() == pytest.approx(expected, abs=1e-12)


def test_terms_worked_by_hand():
    # d(z, z+) = 0.5, d(z, z-) = 3: the triplet is 0.5 - 3 + 4 = 1.5.
    # p = (3/4, 1/4), p+ = (1/4, 3/4): JSD = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.75 * 0.405465 - 0.25 * 0.693147 = 0.130812.
    # p- = (1/4, 3/4) as well: both halves make ln 2 = 0.693147.
    logits = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64)
    anchor = Encoding(logits, torch.tensor([[0.0, 0.0]]).double())
    positive = Encoding(logits.flip(1), torch.tensor([[0.3, 0.4]]).double())
    negative = Encoding(logits.flip(1), torch.tensor([[3.0, 0.0]]).double())
    terms = SageObjective(distance="euclidean", margin=4.0, divergence="jsd").terms(anchor, positive, negative)
    assert terms["triplet"].item() == pytest.approx(1.5)
    assert terms["consistency"].item() == pytest.approx(0.130812, abs=1e-6)
    assert terms["satisfied_triplets"].item() == 1.0
    terms = SageObjective(distance="euclidean", consistency="both", divergence="jsd").terms(anchor, positive, negative)
    assert terms["consistency"].item() == pytest.approx(0.693147, abs=1e-6)
    # KL(p || p+) = 3/4 ln 3 + 1/4 ln(1/3) = 0.5 * 1.098612 = 0.549306.
    terms = SageObjective(distance="euclidean").terms(anchor, positive, negative)
    assert terms["consistency"].item() == pytest.approx(0.549306, abs=1e-6)


def test_divergences_at_their_ends():
    certain = torch.tensor([[0.0, -math.inf]]).clamp(min=-1e4).double()
    assert jensen_shannon_divergence(certain, certain).item() == 0.0
    assert jensen_shannon_divergence(certain, certain.flip(1)).item() == pytest.approx(math.log(2))
    assert kullback_leibler_divergence(certain, certain).item() == 0.0


def test_kl_stops_the_anchor_and_jsd_does_not():
    for divergence, expected in (("kl", False), ("jsd", True)):
        anchor, positive, negative = encodings()
        anchor.logits.requires_grad_()
        positive.logits.requires_grad_()
        objective = SageObjective(divergence=divergence, consistency="positive")
        objective.terms(anchor, positive, negative)["consistency"].sum().backward()
        assert (anchor.logits.grad is not None) == expected
        assert positive.logits.grad.abs().sum() > 0


def test_equal_embeddings_have_finite_gradients():
    # Where a map covers everything, x+ is x: the distance is 0, and the square root's slope there infinite.
    for distance in ("cosine", "euclidean"):
        embedding = torch.ones(2, 3, requires_grad=True)
        same = Encoding(torch.zeros(2, 2), embedding)
        SageObjective(distance=distance).terms(same, same, same)["triplet"].sum().backward()
        assert torch.isfinite(embedding.grad).all()


def test_half_precision_is_computed_in_single():
    halves = [Encoding(*(tensor.to(torch.bfloat16) for tensor in encoding)) for encoding in encodings()]
    singles = [Encoding(*(tensor.float() for tensor in encoding)) for encoding in halves]
    terms, expected = SageObjective().terms(*halves), SageObjective().terms(*singles)
    for name, values in terms.items():
        assert values.dtype == torch.float32
        assert torch.equal(values, expected[name])


def test_without_consistency_the_term_is_gone():
    objective = SageObjective(consistency="none")
    assert "consistency" not in objective.terms(*encodings())
    assert objective.weights == {"triplet": 1.0}
    assert objective.names == ("triplet", "satisfied_triplets")


def test_controls_replace_the_maps():
    generator = torch.Generator().manual_seed(0)
    x, s = torch.randn(4, 3, 8, 8, generator=generator), torch.rand(4, 1, 8, 8, generator=generator)
    rows = torch.tensor([0, 2])

    def views(control):
        objective = SageObjective(degradation="mean", saliency_control=control)
        return objective.views(x, objective.maps(s, rows), rows)

    plain, inverted = views("none"), views("inverted")
    torch.testing.assert_close(inverted[0], plain[1])
    torch.testing.assert_close(inverted[1], plain[0])
    swapped = s.clone()
    swapped[[0, 2]] = s[[2, 0]]  # two annotated rows can only swap
    expected = SageObjective(degradation="mean").views(x, swapped, rows)
    torch.testing.assert_close(views("shuffled"), expected)


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_a_control_is_of_the_grown_marks(guidance):
    s = torch.zeros(2, 1, 20, 20)
    s[0, 0, 3, 4] = 1
    rows = torch.tensor([0])
    grown = grow_marks(s, 0.1)

    def maps(control):
        return GUIDANCE[guidance](saliency_control=control, saliency_dilation=0.1).maps(s, rows)

    assert torch.equal(maps("none"), grown)
    assert torch.equal(maps("inverted")[0], 1 - grown[0])
    for control in ("center_gaussian", "random_blobs"):
        assert maps(control)[0].sum() == pytest.approx(grown[0].sum().item(), rel=0.05)
        assert maps(control)[1].max() == 0  # a row without a map stays without


def test_too_few_rows():
    assert SageObjective().fewest_rows == (2, 1)
    assert SageObjective(degradation="background").fewest_rows == (2, 1)
    assert SageObjective(degradation="blur").fewest_rows == (1, 1)
    assert SageObjective(degradation="blur", saliency_control="shuffled").fewest_rows == (1, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"degradation": "smear"}, "Unknown degradation 'smear'"),
        ({"distance": "l1"}, "Unknown distance 'l1'. Choose one of cosine, euclidean"),
        ({"consistency": "negative"}, "Unknown consistency 'negative'"),
        ({"divergence": "mse"}, "Unknown divergence 'mse'"),
        ({"saliency_control": "random"}, "Unknown saliency_control 'random'"),
        ({"saliency_dilation": 1.0}, "saliency_dilation must be at least 0 and below 1"),
        ({"margin": -1.0}, "margin must be 0 or more"),
        ({"triplet_weight": math.nan}, "triplet_weight must be 0 or more"),
        ({"temperature": 0.0}, "temperature must be above 0"),
    ],
)
def test_bad_settings_are_explained(settings, message):
    with pytest.raises(ValueError, match=message):
        SageObjective(**settings)
