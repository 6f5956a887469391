import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy, mannwhitneyu, pearsonr, zscore

from sage_hf.evaluation import SaliencyAlignment


def alignment(predictions, references, **kwargs):
    return SaliencyAlignment(keep_in_memory=True).compute(predictions=predictions, references=references, **kwargs)


def test_by_hand():
    # P = (6, 2, 2, 0) / 10, Q = (3, 1, 0, 0) / 4; fixated from half of the maximum: the first pixel.
    found = alignment([[[6, 2], [2, 0]]], [[[3, 1], [0, 0]]])
    assert found["sim"] == pytest.approx(0.6 + 0.2)
    assert found["kl"] == pytest.approx(0.75 * np.log(0.75 / 0.6) + 0.25 * np.log(0.25 / 0.2))
    assert found["nss"] == pytest.approx((6 - 2.5) / np.sqrt((3.5**2 + 0.5**2 * 2 + 2.5**2) / 4))
    assert found["auc_judd"] == 1.0
    # Deviations (3.5, -0.5, -0.5, -2.5) and (2, 0, -1, -1).
    assert found["cc"] == pytest.approx((7 + 0.5 + 2.5) / np.sqrt(19 * 6))
    # From a third on two pixels are fixated: 6 outranks 2 and 0, the 2 ties with one and outranks the other.
    assert alignment([[[6, 2], [2, 0]]], [[[3, 1], [0, 0]]], fixation_threshold=0.3)["auc_judd"] == 3.5 / 4


def test_scipys_figures_and_their_mean():
    generator = np.random.default_rng(0)
    models = [generator.random(size) for size in ((5, 7), (6, 4), (9, 9))]
    humans = [generator.random(model.shape) ** 2 for model in models]
    expected = {"cc": [], "sim": [], "kl": [], "nss": [], "auc_judd": []}
    for model, human in zip(models, humans, strict=True):
        p, q, fixated = model.ravel(), human.ravel(), human.ravel() >= 0.5 * human.max()
        expected["cc"].append(pearsonr(p, q).statistic)
        expected["sim"].append(sum(min(a / p.sum(), b / q.sum()) for a, b in zip(p, q, strict=True)))
        expected["kl"].append(entropy(q, p))
        expected["nss"].append(zscore(p)[fixated].mean())
        pairs = fixated.sum() * (~fixated).sum()
        expected["auc_judd"].append(mannwhitneyu(p[fixated], p[~fixated]).statistic / pairs)
    found = alignment(models, humans)
    means = {name: np.mean(values) for name, values in expected.items()}
    assert found == pytest.approx(means | {"constant_predictions": 0, "constant_references": 0})


def test_shuffled_by_pairs():
    generator = np.random.default_rng(1)
    models, humans = generator.random((3, 6, 6)).round(1), generator.random((3, 6, 6))
    fixated = np.array([human >= 0.7 * human.max() for human in humans])
    areas = []
    for index, model in enumerate(models):
        others = np.concatenate([model[fixated[other]] for other in range(3) if other != index])
        areas.append(np.mean([(a > b) + 0.5 * (a == b) for a in model[fixated[index]] for b in others]))
    found = alignment(models, humans, fixation_threshold=0.7, shuffled=True)
    assert found["auc_shuffled"] == pytest.approx(np.mean(areas))


def test_a_map_of_the_centre_is_at_chance_when_shuffled():
    humans = np.zeros((4, 9, 9))
    humans[:, 4, 4] = humans[:, 3, 4] = 1  # all look at the centre
    found = alignment(humans, humans, shuffled=True)
    assert (found["auc_judd"], found["auc_shuffled"]) == (1.0, 0.5)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_constant_prediction_is_chance(value):
    found = alignment([np.full((3, 3), value)], [[[0, 0, 0], [0, 4, 0], [0, 0, 0]]], shuffled=False)
    assert found["constant_predictions"] == 1
    assert (found["cc"], found["nss"], found["auc_judd"]) == (0.0, 0.0, 0.5)
    assert (found["sim"], found["kl"]) == pytest.approx((1 / 9, np.log(9)))


def test_a_constant_human_map():
    found = alignment([[[1, 2], [3, 4]]], [np.full((2, 2), 0.3)])
    assert found["constant_references"] == 1
    assert (found["cc"], found["auc_judd"]) == (0.0, 0.5)
    assert found["nss"] == pytest.approx(0, abs=1e-12)
    assert found["sim"] == pytest.approx(0.1 + 0.2 + 0.25 + 0.25)


def test_disjoint_maps_have_a_finite_divergence():
    found = alignment([[[1.0, 0.0]]], [[[0.0, 1.0]]])
    assert found["kl"] == pytest.approx(52 * np.log(2))  # epsilon is 2 to the -52
    assert (found["sim"], found["cc"], found["auc_judd"]) == pytest.approx((0.0, -1.0, 0.0))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(2, 8), st.integers(0, 3), st.floats(1e-6, 1e6))
def test_ranges_and_invariances(seed, height, width, decimals, scale):
    generator = np.random.default_rng(seed)
    model, human = generator.random((2, height, width)).round(decimals)
    human[0, 0] = 1.0
    found = alignment([model], [human])
    assert all(np.isfinite(value) for value in found.values())
    assert -1 - 1e-9 <= found["cc"] <= 1 + 1e-9
    assert -1e-9 <= found["sim"] <= 1 + 1e-9
    assert -1e-9 <= found["kl"] <= 36.1
    assert 0 <= found["auc_judd"] <= 1
    # Scales count for nothing, nor does turning both maps; a map agrees with itself.
    assert alignment([model * scale], [human]) == pytest.approx(found, abs=1e-6)
    assert alignment([model.T], [human.T]) == pytest.approx(found, abs=1e-9)
    # What ranks say is the same after any increasing function.
    assert alignment([np.exp(3 * model)], [human])["auc_judd"] == found["auc_judd"]
    itself = alignment([human], [human])
    assert itself["sim"] == pytest.approx(1)
    assert itself["kl"] == pytest.approx(0, abs=1e-9)
    assert itself["cc"] == pytest.approx(0 if itself["constant_references"] else 1)


@pytest.mark.parametrize(
    ("predictions", "references", "options", "message"),
    [
        ([], [], {}, "There are no pictures"),
        ([[[1.0], [1.0, 2.0]]], [[[1.0]]], {}, r"prediction of picture 0 has 2 rows of lengths \[1, 2\]"),
        ([[[1.0]]], [[]], {}, r"reference of picture 0 has 0 rows of lengths \[\]"),
        ([[[np.nan]]], [[[1.0]]], {}, "prediction of picture 0 holds NaN"),
        ([[[-1.0]]], [[[1.0]]], {}, "a negative number"),
        ([[[1.0, 2.0]]], [[[1.0]]], {}, r"shape \(1, 2\) and a reference of shape \(1, 1\)"),
        ([[[1.0]], [[1.0]]], [[[1.0]], [[0.0]]], {}, "reference of picture 1 is zero everywhere"),
        ([[[1.0]]], [[[1.0]]], {"fixation_threshold": 0}, "fixation_threshold is 0"),
        ([[[1.0]]], [[[1.0]]], {"shuffled": True}, "There are 1 pictures"),
        ([[[1.0]], [[1.0, 2.0]]], [[[1.0]], [[1.0, 2.0]]], {"shuffled": True}, "needs two or more of one size"),
    ],
)
def test_bad_input_is_named(predictions, references, options, message):
    with pytest.raises(ValueError, match=message):
        alignment(predictions, references, **options)
