import json

import numpy as np
import pytest
import study
import study_report
import torch

from tests.conftest import load_script


@pytest.fixture(scope="module")
def decoy_mnist():
    return load_script("benchmarks/decoy_mnist.py")


def test_squares_have_the_digits_shade_and_the_map_leaves_them_out(decoy_mnist):
    digits = np.random.default_rng(0).integers(0, 256, (40, 28, 28))
    shades = np.arange(40) % 10
    pictures, maps = decoy_mnist.decoy(digits, shades, np.random.default_rng(1))
    corners = set()
    for row in range(40):
        marked = [(y, x) for y in range(28) for x in range(28) if maps[row, 0, y, x] == 0]
        top, left = min(marked)
        assert marked == [(y, x) for y in range(top, top + 4) for x in range(left, left + 4)]
        corners.add((top, left))
        for y in range(28):
            for x in range(28):
                expected = 255 - 25 * shades[row] if (y, x) in marked else digits[row, y, x]
                assert pictures[row, 0, y, x].item() == pytest.approx(expected / 255)
    assert corners == {(0, 0), (0, 24), (24, 0), (24, 24)}


def test_test_digits_are_the_same_for_all_seeds_and_never_seen_before(decoy_mnist):
    one, other = (decoy_mnist.load_digits(seed, test=True) for seed in (0, 1))
    assert [len(one[name][2]) for name in ("train", "validation", "test")] == [3500, 500, 1000]
    assert torch.equal(one["test without decoy"][0], other["test without decoy"][0])
    assert not torch.equal(one["train without decoy"][0], other["train without decoy"][0])
    assert "test" not in decoy_mnist.load_digits(0, test=False)
    # The digits themselves are the 5,000, each once.
    every = torch.cat([one[f"{name} without decoy"][0] for name in ("train", "validation", "test")]).flatten(1)
    assert len({row.numpy().tobytes() for row in every}) == 5000
    # In training the darkest corner square tells the digit, elsewhere it does not.
    for name, tells in (("train", True), ("validation", False)):
        pictures, maps, labels = one[name]
        shades = (pictures * (1 - maps)).sum(dim=(1, 2, 3)) / 16 * 255
        assert (((255 - shades) / 25).round() == labels).float().mean().item() == pytest.approx(
            1.0 if tells else 0.1, abs=0.06
        )


def test_the_committed_runs_are_those_of_the_study(decoy_mnist):
    """Models and settings of the study can't change without a new measurement."""
    folder = study.HERE / "decoy_mnist"
    runs = study.Runs(folder / "runs.jsonl")
    record = json.loads((folder / "results.json").read_text())
    assert study_report.summary(decoy_mnist.STUDY, runs, 5) == record["results"]
    rows = {(row["model"], row["method"]): row["figures"]["test"] for row in record["results"]}
    assert rows["mlp", "sage"]["share"]["mean"] - rows["mlp", "sage"]["share"]["half_width"] > 0.97


@pytest.mark.parametrize("method", ["cyborg", "gradient", "harmonization", "attention"])
def test_the_vit_can_be_guided_by_all(decoy_mnist, method):
    run = study.Run("search", "vit", "random shades", method, {}, 0, 1, True)
    scores = decoy_mnist.train(run)
    assert set(scores) == {"validation"}
    assert 0 <= scores["validation"] <= 1


def test_a_quick_try(decoy_mnist, tmp_path):
    out = tmp_path / "decoy"
    threads = torch.get_num_threads()
    study.main(decoy_mnist.STUDY, None, ["run", "--quick", "--model", "mlp", "--seeds", "1", "--out", str(out)])
    torch.set_num_threads(threads)
    methods = len(decoy_mnist.MLP_METHODS)
    assert len(study.Runs(out / "runs.jsonl").lines) == 2 * methods + len(decoy_mnist.CONTROLS)
    record = json.loads((out / "results.json").read_text())
    assert record["quick"] is True
    assert {"torch", "mlxtend"} <= record["versions"][0].keys()
    assert (out / "table.md").read_text().count("| mlp |") == methods + len(decoy_mnist.CONTROLS)
