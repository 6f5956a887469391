import json

import numpy as np
import pytest
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


def line(method, seed, test, model="mlp", stage="test", settings=None, validation=0.5):
    accuracy = {"validation": validation} | ({"test": test} if stage == "test" else {})
    return {
        "model": model,
        "epochs": 1,
        "quick": False,
        "stage": stage,
        "method": method,
        "settings": settings or {"learning_rate": 0.1},
        "seed": seed,
        "accuracy": accuracy,
        "seconds": 1.0,
    }


def test_summary_by_hand(decoy_mnist):
    figures = {"none": (0.5, 0.6), "no decoy": (0.9, 1.0), "sage": (0.7, 0.9), "gradient": (0.9, None)}
    runs = [line(m, seed, value) for m, values in figures.items() for seed, value in enumerate(values) if value]
    rows = {row["method"]: row for row in decoy_mnist.summary(runs, "mlp")}
    # Shares 0.2 / 0.4 and 0.3 / 0.4: the interval of two values is 12.706 times half their difference.
    assert rows["sage"]["share"]["mean"] == pytest.approx(0.625)
    assert rows["sage"]["share"]["half_width"] == pytest.approx(12.706 * 0.125, rel=1e-4)
    assert rows["sage"]["to_none"]["mean"] == pytest.approx(0.25)
    assert rows["no decoy"]["share"]["mean"] == pytest.approx(1.0)
    assert rows["gradient"]["share"] == {"mean": pytest.approx(1.0)}
    assert rows["gradient"]["to_sage"] == {"mean": pytest.approx(0.2)}
    table = decoy_mnist.table(list(rows.values()))
    assert "| mlp | sage | 2 | 0.800 ± 1.271 | 0.625 ± 1.588 | +0.250 ± 0.635 |  |" in table.splitlines()


def test_the_settings_with_the_best_mean_on_validation_data_are_chosen(decoy_mnist, tmp_path):
    runs = decoy_mnist.Runs(tmp_path / "runs.jsonl")
    for weight, seed, validation in ((1.0, 0, 0.9), (1.0, 1, 0.5), (3.0, 0, 0.8), (3.0, 1, 0.7)):
        runs.add(line("sage", seed, 0, stage="search", settings={"w": weight}, validation=validation))
    assert decoy_mnist.chosen(runs, "mlp", "sage", quick=False) == {"w": 3.0}


def test_every_method_searches_as_much(decoy_mnist):
    assert {len(settings) for settings in decoy_mnist.SEARCH.values()} == {6}
    assert all(set(methods) <= set(decoy_mnist.SEARCH) for methods in decoy_mnist.METHODS.values())


def test_a_quick_run_is_not_repeated(decoy_mnist, tmp_path, capsys):
    out = tmp_path / "decoy"
    command = ["run", "--quick", "--seeds", "1", "--out", str(out)]
    threads = torch.get_num_threads()
    decoy_mnist.main([*command, "--minutes", "0"])
    assert "The same command goes on" in capsys.readouterr().out
    decoy_mnist.main(command)
    lines = (out / "runs.jsonl").read_text().splitlines()
    decoy_mnist.main(command)
    torch.set_num_threads(threads)
    assert (out / "runs.jsonl").read_text().splitlines() == lines
    methods = decoy_mnist.METHODS["mlp"]
    assert [json.loads(line)["stage"] for line in lines].count("search") == len(methods)
    assert len(lines) == 2 * len(methods) + len(decoy_mnist.CONTROLS)
    record = json.loads((out / "results.json").read_text())
    assert record["quick"] is True
    assert {"torch", "mlxtend"} <= record["versions"].keys()
    assert (out / "table.md").read_text().count("| mlp |") == len(methods) + len(decoy_mnist.CONTROLS)
    assert (out / "plot.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("method", ["cyborg", "gradient", "attention"])
def test_the_vit_can_be_guided_by_all(decoy_mnist, method):
    scores = decoy_mnist.train_and_score("vit", method, {}, 0, 1, test=False, rows=64)
    assert 0 <= scores["validation"] <= 1


def test_quick_runs_stay_out_of_the_results(decoy_mnist):
    with pytest.raises(ValueError, match="--quick needs an --out of its own"):
        decoy_mnist.main(["run", "--quick"])
