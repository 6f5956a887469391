import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from sage_hf.evaluation import PresentationAttack
from sage_hf.evaluation.logit_figures import attack_figures, equal_error_threshold


def attack_rates(predictions, references, **kwargs):
    return PresentationAttack(keep_in_memory=True).compute(predictions=predictions, references=references, **kwargs)


def naive_curve(scores, labels):
    """(BPCER, share of attacks found) at every threshold, none called an attack first."""
    thresholds = [np.inf, *sorted(set(scores), reverse=True)]
    bona_fide, attacks = scores[labels == 0], scores[labels == 1]
    return [(np.mean(bona_fide >= threshold), np.mean(attacks >= threshold)) for threshold in thresholds]


def naive_equal_error(curve):
    """Bisection on the way along the curve, from nothing called an attack to all."""
    places = np.arange(len(curve))
    low, high = 0.0, len(curve) - 1.0
    for _ in range(200):
        middle = (low + high) / 2
        x, y = (np.interp(middle, places, [point[axis] for point in curve]) for axis in (0, 1))
        low, high = (middle, high) if 1 - y > x else (low, middle)
    return np.interp(low, places, [point[0] for point in curve])


def test_by_hand():
    # At 0.5: print 1 of 3 missed, lens 1 of 1; bona fide 1 of 4 rejected.
    scores = [0.1, 0.2, 0.3, 0.5, 0.9, 0.8, 0.15, 0.4]
    types = [None, None, None, None, "print", "print", "print", "lens"]
    found = attack_rates(scores, [0, 0, 0, 0, 1, 1, 1, 1], attack_types=types)
    assert found["apcer_by_type"] == pytest.approx({"lens": 1.0, "print": 1 / 3})
    assert (found["apcer"], found["bpcer"], found["acer"]) == (1.0, 0.25, 0.625)
    assert found["threshold"] == 0.5
    # Above 0.3, up to 0.4: 1 bona fide of 4 rejected, 1 attack of 4 missed. 2 attacks are found without an error.
    assert (found["eer"], found["eer_threshold"]) == (0.25, 0.35)
    assert (found["tpr_at_fpr_0.001"], found["tpr_at_fpr_0.1"]) == (0.5, 0.5)
    assert found["auroc"] == pytest.approx((4 + 4 + 1 + 3) / 16)
    assert "apcer_by_type" not in attack_rates(scores, [0, 0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("bona_fide", "attacks", "threshold"),
    [
        ([0.1, 0.2], [0.6, 0.9], 0.4),
        ([0.5, 0.5], [0.5], 0.5),  # nothing lies below
        ([1 - 2**-53], [1.0], 1.0),  # neighbouring numbers have no middle
    ],
)
def test_the_threshold_is_in_the_middle_of_the_gap(bona_fide, attacks, threshold):
    labels = [0] * len(bona_fide) + [1] * len(attacks)
    assert attack_rates([*bona_fide, *attacks], labels)["eer_threshold"] == pytest.approx(threshold, abs=1e-16)


def test_a_chosen_threshold_leaves_room_on_both_sides_in_logits():
    generator = np.random.default_rng(0)

    def draw(rows):
        logits = np.concatenate([generator.normal(-14, 2, rows), generator.normal(4, 0.5, rows)])
        return expit(logits), np.repeat([False, True], rows)

    scores, attack = draw(20)
    threshold = equal_error_threshold(scores, attack)
    assert logit(threshold) == pytest.approx((logit(scores[~attack].max()) + logit(scores[attack].min())) / 2)
    scores, attack = draw(1000)
    figures = attack_figures(scores, ["print" if one else None for one in attack], threshold, resamples=0)
    assert (figures["apcer"]["value"], figures["bpcer"]["value"]) == (0.0, 0.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.sampled_from([1.0, 10.0, 60.0]))
def test_a_chosen_threshold_makes_the_errors_of_the_nearest_point(seed, rows, scale):
    generator = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1], generator.integers(0, 2, rows - 2)])
    scores = expit(generator.normal(size=rows) * scale)  # piled up at 0 and 1
    gaps = [abs(1 - y - x) for x, y in naive_curve(scores, labels)]
    at = equal_error_threshold(scores, labels == 1)
    assert abs(np.mean(scores[labels == 1] < at) - np.mean(scores[labels == 0] >= at)) == pytest.approx(min(gaps))


def test_d_prime_by_hand():
    # Means 1/2 and 2, population variances 1/4 and 1.
    assert attack_rates([0, 1, 1, 3], [0, 0, 1, 1], threshold=1)["d_prime"] == pytest.approx(1.5 / np.sqrt(5 / 8))
    assert attack_rates([0.1] * 3 + [0.7] * 3, [0] * 3 + [1] * 3)["d_prime"] == np.inf
    assert attack_rates([0.7] * 3 + [0.1] * 3, [0] * 3 + [1] * 3)["d_prime"] == -np.inf
    assert attack_rates([0.7] * 6, [0] * 3 + [1] * 3)["d_prime"] == 0.0


def test_of_normal_scores():
    # Deviation 1, means 2 apart: d-prime 2, EER the normal distribution at -1 (0.1587), AUROC at sqrt(2) (0.9214), and
    # with 1 % false positives, where the threshold is 2.3263, 1 - Phi(0.3263) = 0.3721 of the attacks.
    from scipy.special import ndtri

    quantiles = ndtri((np.arange(20000) + 0.5) / 20000)
    found = attack_rates(np.concatenate([quantiles, quantiles + 2]), np.repeat([0, 1], 20000), threshold=1.0)
    assert found["d_prime"] == pytest.approx(2, abs=2e-3)
    assert found["eer"] == pytest.approx(0.1587, abs=1e-4)
    assert found["eer_threshold"] == pytest.approx(1, abs=1e-3)
    assert found["auroc"] == pytest.approx(0.9214, abs=1e-4)
    assert found["tpr_at_fpr_0.01"] == pytest.approx(0.3721, abs=1e-3)
    assert (found["apcer"], found["bpcer"]) == pytest.approx((0.1587, 0.1587), abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 4))
def test_by_loops_and_invariances(seed, rows, decimals):
    generator = np.random.default_rng(seed)
    scores = generator.random(rows).round(decimals)
    labels = np.concatenate([[0, 1], generator.integers(0, 2, rows - 2)])
    found = attack_rates(scores, labels)
    curve = naive_curve(scores, labels)
    assert found["eer"] == pytest.approx(naive_equal_error(curve), abs=1e-6)
    assert found["tpr_at_fpr_0.1"] == max(y for x, y in curve if x <= 0.1)
    assert found["apcer"] == np.mean(scores[labels == 1] < 0.5)
    assert found["bpcer"] == np.mean(scores[labels == 0] >= 0.5)
    # At its threshold the two rates are as near as they get.
    gaps = [abs(1 - y - x) for x, y in curve]
    at = found["eer_threshold"]
    gap = abs(np.mean(scores[labels == 1] < at) - np.mean(scores[labels == 0] >= at))
    assert gap == pytest.approx(min(gaps))
    ranked = ("eer", "auroc", "tpr_at_fpr_0.001", "tpr_at_fpr_0.01", "tpr_at_fpr_0.1", "apcer", "bpcer", "acer")
    # Any increasing function leaves what ranks say, if the threshold goes with it.
    moved = attack_rates(np.exp(scores), labels, threshold=np.exp(0.5))
    assert {name: moved[name] for name in ranked} == pytest.approx({name: found[name] for name in ranked})
    # Numbers on another scale have the same d-prime; attacks and bona fide exchanged, the same EER and AUROC.
    assert attack_rates(scores / 4 + 0.5, labels)["d_prime"] == pytest.approx(found["d_prime"])
    mirrored = attack_rates(1 - scores, 1 - labels)
    assert (mirrored["eer"], mirrored["auroc"]) == pytest.approx((found["eer"], found["auroc"]))


def naive_bpcer_at(scores, labels, types, share):
    best = 1.0
    for threshold in [*scores, -1.0, 2.0]:
        worst = 0.0
        for kind in {kind for kind, label in zip(types, labels, strict=True) if label}:
            group = [s for s, label, t in zip(scores, labels, types, strict=True) if label and t == kind]
            worst = max(worst, sum(s < threshold for s in group) / len(group))
        if worst <= 1 / share:
            bona_fide = [s for s, label in zip(scores, labels, strict=True) if not label]
            best = min(best, sum(s >= threshold for s in bona_fide) / len(bona_fide))
    return best


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 120), st.integers(1, 3), st.integers(1, 3))
def test_bpcer_at_fixed_apcer_by_loops(seed, rows, decimals, kinds):
    generator = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1], generator.integers(0, 2, rows - 2)])
    scores = np.clip(generator.random(rows) * 0.7 + 0.3 * labels, 0, 1).round(decimals)
    types = [str(kind) for kind in generator.integers(0, kinds, rows)]
    shares = (2, 5, 10, 20, 100)
    found = attack_rates(scores, labels, attack_types=types, bpcer_at=shares)
    for share in shares:
        assert found[f"bpcer{share}"] == pytest.approx(naive_bpcer_at(scores, labels, types, share)), share
    assert found["bpcer2"] <= found["bpcer10"] <= found["bpcer100"]  # stricter demands cost more


def test_bpcer_at_fixed_apcer_by_hand():
    # Of 20 attacks BPCER20 may miss one, so its threshold is 0.3; BPCER10 two, 0.4; BPCER100 none, 0.2.
    attacks = [0.2, 0.3, 0.4] + [0.9] * 17
    found = attack_rates([0.1, 0.25, 0.35, 0.45, *attacks], [0] * 4 + [1] * 20)
    assert (found["bpcer10"], found["bpcer20"], found["bpcer100"]) == (0.25, 0.5, 0.75)
    # With 10 of each type, none of the worse one may be missed in 20.
    types = [None] * 4 + ["a"] * 10 + ["b"] * 10
    found = attack_rates([0.1, 0.25, 0.35, 0.45, *attacks], [0] * 4 + [1] * 20, attack_types=types)
    assert (found["bpcer10"], found["bpcer20"]) == (0.5, 0.75)


def test_rates_that_are_asked_for():
    found = attack_rates([0.1, 0.9], [0, 1], false_positive_rates=[0.05])
    assert [name for name in found if name.startswith("tpr")] == ["tpr_at_fpr_0.05"]


@pytest.mark.parametrize(
    ("predictions", "references", "options", "message"),
    [
        ([0.1, 0.2], [0, 0], {}, r"References hold \[0\], expected both 0 \(bona fide\) and 1"),
        ([], [], {}, r"References hold \[\]"),
        ([0.1, 0.2], [0, 2], {}, r"References hold \[0, 2\]"),
        ([0.1, np.nan], [0, 1], {}, "The score of row 1 is nan"),
        ([0.1, 1.2], [0, 1], {}, r"Scores are in \[0.1, 1.2\], expected \[0, 1\]"),
        ([0.1, 0.2], [0, 1], {"threshold": np.nan}, "threshold is nan"),
        ([0.1, 0.2], [0, 1], {"attack_types": ["a"]}, "1 attack types and 2 references"),
        ([0.1, 0.2], [0, 1], {"attack_types": ["a", None]}, "Row 1 is an attack without a type"),
        ([0.1, 0.2], [0, 1], {"false_positive_rates": [1]}, "A false positive rate is 1"),
        ([0.1, 0.2], [0, 1], {"bpcer_at": [1]}, "bpcer_at holds 1, expected whole numbers from 2 on"),
        ([0.1, 0.2], [0, 1], {"bpcer_at": [0.05]}, "bpcer_at holds 0.05"),
    ],
)
def test_bad_input_is_named(predictions, references, options, message):
    with pytest.raises(ValueError, match=message):
        attack_rates(predictions, references, **options)
