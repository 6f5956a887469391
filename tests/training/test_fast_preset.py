import json

import pytest
import study

from sage_hf import SageTrainingArguments
from sage_hf.training_args import PRESETS
from tests.conftest import load_script


@pytest.fixture(scope="module")
def fast_preset():
    return load_script("benchmarks/fast_preset.py")


def test_a_variant_is_a_preset_or_a_control():
    assert study.settings_of("fast") == {"preset": "fast"}
    assert study.settings_of("inverted") == {"saliency_control": "inverted"}
    assert study.settings_of("") == {}
    assert study.Run("test", "m", "s", "sage, fast", {}, 0, 1, False).base == "sage"


def test_settings_are_those_of_the_other_benchmarks(fast_preset):
    tested = {}
    for name in ("decoy_mnist", "digits_shortcut"):
        for line in (study.HERE / name / "runs.jsonl").read_text().splitlines():
            run = json.loads(line)
            if run["stage"] == "test":
                tested[name, run["model"], run["method"]] = run["settings"]
    for case, (module, model, _, _) in fast_preset.CASES.items():
        for method in ("none", "sage"):
            (settings,) = fast_preset.STUDY.models[case].search[method]
            assert settings == tested[module.STUDY.name, model, method]


def test_the_fast_run_differs_by_the_preset_alone(fast_preset, tmp_path):
    (case, *_) = fast_preset.CASES
    (block,) = study.blocks_of(fast_preset.STUDY, quick=False, model=case)
    runs = study.Runs(tmp_path / "runs.jsonl")
    for method in ("none", "sage"):
        for run in study.search_runs(fast_preset.STUDY, block, method, quick=False):
            runs.add(run, scores={study.VALIDATION: 0.5})
    (full, *_) = study.final_runs(fast_preset.STUDY, block, "sage", 1, runs, quick=False)
    (fast, *_) = study.final_runs(fast_preset.STUDY, block, "sage, fast", 1, runs, quick=False)
    assert fast.settings == full.settings | {"preset": "fast"}
    assert (fast.epochs, fast.seed) == (full.epochs, full.seed)


@pytest.mark.parametrize(("method", "epochs"), [("none", 20), ("sage", 20), ("sage, fast", 40)])
def test_in_the_same_time_fast_has_twice_the_epochs(fast_preset, monkeypatch, method, epochs):
    trained = []
    monkeypatch.setattr(
        fast_preset.digits_shortcut, "train", lambda run: trained.append(run) or {"shifted": 0.5, "validation": 0.5}
    )
    run = study.Run("test", "digits, ViT", fast_preset.SAME_TIME, method, {}, 0, 60, False)
    assert fast_preset.train(run)["epochs"] == epochs
    assert (trained[0].epochs, trained[0].scenario, trained[0].model) == (epochs, "0.99", "vit")


def test_a_quick_run_writes_a_report(fast_preset, tmp_path, capsys):
    (case, *_) = fast_preset.CASES
    arguments = ["run", "--quick", "--seeds", "1", "--out", str(tmp_path), "--model", case]
    study.main(fast_preset.STUDY, fast_preset.__doc__, arguments)
    assert "share of the gain" in capsys.readouterr().out
    assert {json.loads(line)["method"] for line in (tmp_path / "runs.jsonl").read_text().splitlines()} == {
        "none",
        "sage",
        "sage, fast",
    }


def test_the_documentation_has_the_figures_of_the_preset():
    *settings, last = (f"`{name}={value}`" for name, value in PRESETS["fast"].items())
    assert f"{', '.join(settings)} and {last}" in " ".join((SageTrainingArguments.__doc__ or "").split())
