import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from sage_hf import SageTrainingArguments
from sage_hf.forwarding import has_batch_norm
from sage_hf.objectives import Encoding, SageObjective
from tests.conftest import load_script


@pytest.fixture(scope="module")
def ablations():
    return load_script("benchmarks/ablations.py")


def test_every_change_is_one_that_can_be_trained(ablations, tmp_path):
    for change in [*ablations.CHANGES.values(), *ablations.BATCH_NORM_CHANGES.values()]:
        own = {name: value for name, value in change.items() if name not in ablations.NO_SETTINGS}
        SageTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **ablations.DEFAULTS | own)


@pytest.mark.parametrize(
    ("kind", "factors"),
    [("late", [0.0, 0.0, 1.0, 1.0, 1.0]), ("ramp", [0.0, 0.5, 1.0, 1.0, 1.0]), ("early", [1.0, 1.0, 1.0, 1.0, 0.0])],
)
def test_schedules(ablations, kind, factors):
    assert [ablations.factor_at(kind, done) for done in (0.0, 0.1, 0.2, 0.7, 0.9)] == factors


def test_blurring_is_a_gaussian_filter(ablations):
    saliency = torch.zeros(1, 33, 41)
    saliency[0, 16, 20] = 1
    found = ablations.blurred(saliency, 0.1)[0].numpy()
    expected = gaussian_filter(saliency[0].numpy(), 3.3, truncate=10 / 3.3)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_projection_is_what_the_triplet_compares(ablations):
    x, positive, negative = (Encoding(torch.randn(4, 3), torch.randn(4, 5)) for _ in range(3))
    half = torch.nn.Linear(5, 2)
    terms = ablations.Projected(projection=half).terms(x, positive, negative)
    by_hand = [Encoding(one.logits, half(one.embedding)) for one in (x, positive, negative)]
    expected = SageObjective().terms(*by_hand)
    for name, values in expected.items():
        torch.testing.assert_close(terms[name], values)
    assert terms["triplet"].requires_grad


@pytest.mark.parametrize("only", ["schedule late", "projection head", "maps blurred by 0.1"])
def test_runs_are_scored_and_not_repeated(ablations, tmp_path, monkeypatch, capsys, only):
    rows = ablations.digits_shortcut.load_digits(0.99, 0, rows=48)
    monkeypatch.setattr(ablations.digits_shortcut, "load_digits", lambda correlation, seed: rows)
    out = tmp_path / "ablations.json"
    arguments = ["run", "--out", str(out), "--model", "vit", "--seeds", "1", "--epochs", "1", "--only", only]
    ablations.main(arguments)
    record = json.loads(out.read_text())
    (change,) = (name for name in ablations.CHANGES if name.startswith(only))
    assert {run["change"] for run in record["runs"]} == {"none", "defaults", change}
    assert all(set(ablations.SCORES) <= set(run) for run in record["runs"])
    monkeypatch.setattr(ablations, "train", None)
    ablations.main(arguments)
    assert f"| {change} | 1 | " in capsys.readouterr().out
    monkeypatch.setitem(ablations.CHANGES, "new", {})
    ablations.main([*arguments, "--only", "new", "--minutes", "0"])
    assert "Time is up" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        ablations.main([*arguments, "--epochs", "2"])
    assert "has runs of 1 epochs" in capsys.readouterr().err


def test_the_resnet_is_asked_about_batch_normalisation_alone(ablations):
    assert has_batch_norm(ablations.make_model("resnet"))
    assert not has_batch_norm(ablations.make_model("convnext"))
    assert set(ablations.changes_of("resnet")) == {"none", "defaults", ablations.ONE_PASS}


def test_the_table_pairs_by_seed(ablations):
    def run(change, seed, value, model="vit"):
        return {"model": model, "change": change, "seed": seed, "in_distribution": 0.5, "shifted": value}

    runs = [run("defaults", seed, 0.5 + 0.1 * seed) for seed in range(3)]
    runs += [run("margin 0.5", seed, 0.6 + 0.1 * seed) for seed in range(3)]
    lines = ablations.table(runs).splitlines()
    assert lines[0] == "| change | seeds | vit, in distribution | vit, shifted |"
    assert lines[2] == "| defaults | 3 | 0.500 | 0.600 |"
    assert lines[3] == "| margin 0.5 | 3 | 0.500 (+0.000 ± 0.000) | 0.700 (**+0.100 ± 0.000**) |"
    runs += [run("defaults", 0, 0.25, "convnext"), run("none", 0, 0.125, "resnet")]
    lines = ablations.table(runs).splitlines()
    assert lines[2] == "| defaults | 1, 3 | 0.500 | 0.250 | 0.500 | 0.600 |"
    assert lines[3] == "| margin 0.5 | 0, 3 |  |  | 0.500 (+0.000 ± 0.000) | 0.700 (**+0.100 ± 0.000**) |"
    assert lines[-1] == "| none | 1 | 0.500 | 0.125 |"
