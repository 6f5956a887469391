import json
from dataclasses import replace

import numpy as np
import pytest
import study
import study_report
import torch
from sklearn.metrics import roc_auc_score

from tests.conftest import load_script


@pytest.fixture(scope="module")
def digits_shortcut():
    return load_script("benchmarks/digits_shortcut.py")


@pytest.fixture(scope="module")
def splits(digits_shortcut):
    return digits_shortcut.load_digits(1.0, 3)


def test_unknown_digits_are_in_no_data_but_the_test(digits_shortcut, splits):
    known = digits_shortcut.known_digits(3)
    assert len(known) == 7
    assert sorted(known) == known
    assert len({tuple(digits_shortcut.known_digits(seed)) for seed in range(5)}) > 1
    for name, rows in splits.items():
        labels = {row["labels"] for row in rows}
        assert labels == set(range(7)) | ({-1} if name in ("in_distribution", "shifted") else set())
    assert len(splits["in_distribution"]) == len(splits["shifted"]) == 400


def colour(row):
    """Mean of the picture's brightest, most saturated column at the right edge: the square's colour."""
    column = row["pixel_values"][:, :, -1]
    return column[:, (column.max(dim=0).values - column.min(dim=0).values).argmax()]


def test_colours_tell_the_class_in_training_alone(splits):
    def spread(rows):
        """How far colours lie from the mean colour of their class."""
        by_class = {}
        for row in rows:
            by_class.setdefault(row["labels"], []).append(colour(row))
        return {label: torch.stack(own).std(dim=0).max().item() for label, own in by_class.items()}

    assert max(spread(splits["train"]).values()) == pytest.approx(0, abs=1e-5)
    assert min(spread(splits["shifted"]).values()) > 0.1


def test_the_test_digits_are_the_same_for_all_seeds(digits_shortcut):
    # The digit's ink at its darkest and its label are enough to know it again, wherever it was drawn.
    def digits(seed, name):
        split = digits_shortcut.digits_with_shortcut(0.9, seed, digits_shortcut.TEST_SEED)[name]
        found = []
        for row in split:
            marked = np.asarray(row["saliency"]) > 0
            rows, columns = np.flatnonzero(marked.any(1)), np.flatnonzero(marked.any(0))
            ink = np.asarray(row["image"]).min(axis=2)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            found.append((row["label"], np.where(ink > 60, ink, 0).tobytes()))
        return found

    one, other = digits(0, "in_distribution"), digits(1, "shifted")
    # The square's noise can differ where the digit's ink is faint: most are the same byte for byte.
    assert [label for label, _ in one] == [label for label, _ in other]
    assert np.mean([a == b for a, b in zip(one, other, strict=True)]) > 0.95
    assert not {ink for _, ink in digits(0, "train")} & {ink for _, ink in other}


def test_the_committed_runs_are_those_of_the_study(digits_shortcut):
    """Models and settings of the study can't change without a new measurement."""
    folder = study.HERE / "digits_shortcut"
    record = json.loads((folder / "results.json").read_text())
    assert study_report.summary(digits_shortcut.STUDY, study.Runs(folder / "runs.jsonl"), 5) == record["results"]
    rows = {(row["model"], row["scenario"], row["method"]): row["figures"] for row in record["results"]}
    for correlation in ("0.99", "1.0"):
        for figure in ("shifted", "shifted_energy_auroc"):
            gain = rows["convnext", correlation, "sage"][figure]["to none"]
            assert gain["mean"] - gain["half_width"] > 0


@pytest.mark.parametrize("model", ["convnext", "vit"])
def test_figures_of_a_test_run(digits_shortcut, model):
    run = study.Run("test", model, "0.99", "none", {"learning_rate": 5e-3}, 0, 1, True)
    scores = digits_shortcut.train(run)
    shown = {figure.key for table in digits_shortcut.STUDY.tables.values() for figure in table}
    assert shown | {"validation"} == set(scores)
    assert all(0 <= value <= 1 for value in scores.values())
    assert set(digits_shortcut.train(replace(run, stage="search"))) == {"validation"}


def test_the_energy_of_a_run_is_that_of_its_logits(digits_shortcut, monkeypatch):
    taken = []

    def logits(model, pictures):
        generator = torch.Generator().manual_seed(len(taken))
        taken.append(torch.randn(len(pictures), 7, generator=generator))
        return taken[-1]

    monkeypatch.setattr(digits_shortcut, "logits", logits)
    monkeypatch.setattr(digits_shortcut, "fit", lambda *args, **settings: None)
    scores = digits_shortcut.train(study.Run("test", "vit", "1.0", "none", {}, 3, 1, True))
    splits = digits_shortcut.load_digits(1.0, 3, rows=digits_shortcut.QUICK_ROWS)
    labels = np.array([row["labels"] for row in splits["shifted"]])
    predicted = taken[-1].numpy()
    energy = np.log(np.exp(predicted.astype(np.float64)).sum(axis=1))
    assert scores["shifted_energy_auroc"] == pytest.approx(roc_auc_score(labels >= 0, energy))
    known = labels >= 0
    assert scores["shifted"] == pytest.approx((predicted.argmax(axis=1) == labels)[known].mean())


def test_a_quick_try(digits_shortcut, tmp_path):
    out = tmp_path / "digits"
    threads = torch.get_num_threads()
    study.main(
        digits_shortcut.STUDY, None, ["run", "--quick", "--model", "convnext", "--seeds", "1", "--out", str(out)]
    )
    torch.set_num_threads(threads)
    assert len(study.Runs(out / "runs.jsonl").lines) == 2 * len(digits_shortcut.FIRST)
    assert (out / "table.md").read_text().count("| convnext |") == 3 * len(digits_shortcut.FIRST)
    assert json.loads((out / "results.json").read_text())["missing"] == {"vit, 0.99": 2}
