import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_hf.evaluation import OpenSet
from tests.evaluation.peers import TORCHMETRICS, make_rows


def open_set(predictions, references, **kwargs):
    return OpenSet(keep_in_memory=True).compute(predictions=predictions, references=references, **kwargs)


def naive(score, correct, known):
    """AUROC by pairs; FPR at 95 % TPR and OSCR by trying every threshold."""
    pairs = [(a > b) + 0.5 * (a == b) for a in score[known] for b in score[~known]]
    rates, curve = [], [(0.0, 0.0)]
    for threshold in sorted(set(score), reverse=True):
        accepted = score >= threshold
        false_positives = (accepted & ~known).sum() / (~known).sum()
        if (accepted & known).sum() >= 0.95 * known.sum() - 1e-9:
            rates.append(false_positives)
        curve.append((false_positives, (accepted & correct).sum() / known.sum()))
    x, y = np.array(curve).T
    return np.mean(pairs), min(rates), float(np.trapezoid(y, x))


def rows_with_unknown():
    logits, _, labels, unknown = make_rows()
    return np.concatenate([logits, unknown]), np.concatenate([labels, np.full(len(unknown), -1)])


def test_torchmetrics():
    scores = open_set(*rows_with_unknown())
    names = [name for name in TORCHMETRICS if name.startswith(("msp", "energy"))]
    assert len(names) == 6
    for name in names:
        assert scores[name] == pytest.approx(TORCHMETRICS[name], abs=1e-6)


@pytest.mark.parametrize("decimals", [6, 0])  # the latter has many ties
def test_by_loops(decimals):
    logits, labels = rows_with_unknown()
    logits, labels = np.round(logits[::4], decimals), labels[::4]
    known, correct = labels >= 0, logits.argmax(1) == labels
    scores = open_set(logits, labels)
    assert scores["accuracy"] == correct[known].mean()
    # Rounded, since equal rows in another order may differ in the last place of a sum.
    energy = np.log(np.exp(logits).sum(axis=1)).round(9)
    msp = (np.exp(logits).max(axis=1) / np.exp(logits).sum(axis=1)).round(9)
    for name, score in (("msp", msp), ("energy", energy)):
        found = tuple(scores[f"{name}_{figure}"] for figure in ("auroc", "fpr_at_95_tpr", "oscr"))
        assert found == pytest.approx(naive(score, correct, known), abs=2e-3 if decimals == 0 else 1e-9)


def test_by_hand():
    # Confidence falls with the first logit: known 4, 3, 1 (the last is wrong), unknown 2 and 0.
    # AUROC: 2 + 2 + 1 of 6 pairs. All known are accepted from 1 on, and 2 with them: one unknown of two.
    # OSCR: both right rows outrank both unknown ones: 2/3. Average precision: (1 + 1 + 3/4) / 3.
    logits = [[4.0, 0.0], [0.0, 3.0], [1.0, 0.0], [2.0, 0.0], [0.0, 0.0]]
    scores = open_set(logits, [0, 1, 1, -1, -1])
    for name in ("msp", "energy"):
        assert scores[f"{name}_auroc"] == pytest.approx(5 / 6)
        assert scores[f"{name}_fpr_at_95_tpr"] == 0.5
        assert scores[f"{name}_oscr"] == pytest.approx(2 / 3)
        assert scores[f"{name}_aupr_known"] == pytest.approx((1 + 1 + 3 / 4) / 3)
        assert scores[f"{name}_aupr_unknown"] == pytest.approx((1 + 2 / 3) / 2)


def test_softmax_near_one_keeps_its_ranks():
    # In float64 both probabilities are 1 - 1e-15 and 1 - 1e-13: apart here, equal in float32.
    scores = open_set([[34.5, 0.0], [30.0, 0.0]], [0, -1])
    assert scores["msp_auroc"] == 1.0


def test_temperature_is_of_the_energy_alone():
    logits = [[3.0, 3.0], [4.0, 0.0]]  # T = 1: 3.69 and 4.02; T = 10: 9.93 and 9.13
    cold, warm = open_set(logits, [0, -1]), open_set(logits, [0, -1], temperature=10.0)
    assert (cold["energy_auroc"], warm["energy_auroc"]) == (0.0, 1.0)
    assert cold["msp_auroc"] == warm["msp_auroc"] == 0.0


def test_no_right_row_has_no_oscr():
    assert open_set([[2.0, 0.0], [1.0, 0.0]], [1, -1])["msp_oscr"] == 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 20), st.floats(-5, 5))
def test_invariances(seed, rows, shift):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, 3)).round(3) * 3
    labels = np.concatenate([[0, -1], generator.integers(-1, 3, rows - 2)])
    scores = open_set(logits, labels)
    assert all(0 <= value <= 1 for value in scores.values())
    assert scores["msp_oscr"] <= scores["accuracy"] + 1e-12
    # The same number on every logit moves all energies alike and no probability; so does the order of the classes.
    assert open_set((logits + shift).round(9), labels) == pytest.approx(scores)
    swapped = np.where(labels < 0, labels, 2 - labels)
    assert open_set(logits[:, ::-1], swapped) == pytest.approx(scores)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([[1.0, 2.0]], [0], "1 known and 0 unknown rows"),
        ([[1.0, 2.0]], [-1], "0 known and 1 unknown rows"),
        ([], [], "0 known and 0 unknown rows"),
        ([[1.0, 2.0], [1.0]], [0, -1], r"have \[1, 2\] numbers"),
        ([[1.0], [1.0]], [0, -1], r"\[0, z\]"),
        ([[1.0, 2.0], [1.0, np.nan]], [0, -1], "Row 1 of the predictions is .*nan.*, expected finite logits"),
        ([[1.0, 2.0], [1.0, 2.0]], [2, -1], r"References are in \[-1, 2\], expected \[-1, 1\]"),
        ([[1.0, 2.0], [1.0, 2.0]], [0, -2], r"References are in \[-2, 0\], expected \[-1, 1\]"),
    ],
)
def test_bad_input_is_named(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        open_set(predictions, references)


def test_bad_temperature_is_named():
    with pytest.raises(ValueError, match="temperature is 0"):
        open_set([[1.0, 2.0], [1.0, 0.0]], [0, -1], temperature=0)
