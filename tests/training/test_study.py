import json
import math

import numpy as np
import pytest
import scipy.stats
import study
import study_report
import torch
from torch import nn

FIGURES = {"Right": (study.Figure("good", "accuracy"), study.Figure("bad", "errors", higher_is_better=False))}


def make_study(train, **changes):
    search = {"none": [{"w": 1.0}, {"w": 2.0}], "sage": [{"w": 3.0}, {"w": 4.0}], "clean": [{"w": 5.0}, {"w": 6.0}]}
    settings = {
        "name": "made_up",
        "title": "Made up",
        "train": train,
        "models": {"small": study.Model(epochs=7, search=search, search_seeds=(1000, 1001))},
        "blocks": (
            study.Block("small", "hard", ("none", "sage", "clean")),
            study.Block("small", "easy", ("none", "sage"), search_in="hard"),
            study.Block("small", "hard", ("sage, inverted",)),
        ),
        "tables": FIGURES,
    }
    return study.Study(**settings | changes)


# What the methods reach in a test, by seed.
GOOD = {"none": [0.50, 0.60, 0.55], "sage": [0.80, 0.85, 0.70], "clean": [0.90, 0.80, 0.95]}
GOOD["sage, inverted"] = [0.40, 0.60, 0.50]


@pytest.fixture
def calls():
    return []


@pytest.fixture
def made_up(calls):
    """Validation prefers the second setting, on the mean of both seeds alone; test scores are those of `GOOD`."""

    def train(run):
        calls.append(run)
        even = run.settings["w"] % 2 == 0
        validation = {1000: 0.5 if even else 0.9, 1001: 0.9 if even else 0.4}.get(run.seed, 0.0)
        good = GOOD[run.method][run.seed % 3] + (0.05 if run.scenario == "easy" else 0.0)
        return {"validation": validation, "good": good, "bad": 1 - good}

    # Second settings by name: none 2, sage 4, clean 6.
    return make_study(train)


@pytest.fixture
def runs(tmp_path):
    return study.Runs(tmp_path / "runs.jsonl")


def test_a_block_may_want_more_seeds(made_up, calls, runs):
    few, _, inverted = made_up.blocks
    more = study.replace(made_up, blocks=(few, study.replace(inverted, seeds=3)))
    assert study.run_all(more, 2, runs, quick=False)
    tested = [(run.method, run.seed) for run in calls if run.stage == "test"]
    assert sorted(tested) == [
        *((method, seed) for method in ("clean", "none", "sage") for seed in (0, 1)),
        *(("sage, inverted", seed) for seed in range(3)),
    ]
    done = {row["method"]: len(row["seeds"]) for row in study_report.summary(more, runs, 2)}
    assert done == {"none": 2, "sage": 2, "clean": 2, "sage, inverted": 3}
    assert study_report.missing(more, runs, 2) == {}
    assert study_report.missing(more, study.Runs(runs.path.with_name("none.jsonl")), 2) == {"small, hard": 3 * 2 + 3}


def test_settings_are_searched_once_and_used_in_tests_with_other_seeds(made_up, calls, runs):
    assert study.run_all(made_up, 3, runs, quick=False)
    searched = [run for run in calls if run.stage == "search"]
    assert {(run.scenario, run.seed, run.epochs) for run in searched} == {("hard", 1000, 7), ("hard", 1001, 7)}
    assert len(searched) == 3 * 2 * 2
    tested = [run for run in calls if run.stage == "test"]
    assert {run.seed for run in tested} == {0, 1, 2}
    settings = {"none": {"w": 2.0}, "sage": {"w": 4.0}, "clean": {"w": 6.0}}
    settings["sage, inverted"] = {"w": 4.0, "saliency_control": "inverted"}
    assert all(run.settings == settings[run.method] for run in tested)
    # The first block is done before the second, and seed by seed all its methods.
    order = [(run.scenario, run.seed, run.method) for run in tested]
    assert order[:4] == [("hard", 0, "none"), ("hard", 0, "sage"), ("hard", 0, "clean"), ("hard", 1, "none")]
    assert order[9:11] == [("easy", 0, "none"), ("easy", 0, "sage")]


def test_search_runs_keep_no_test_scores(made_up, runs):
    study.run_all(made_up, 1, runs, quick=False)
    assert all(set(line["scores"]) == {"validation"} for line in runs.find(stage="search"))
    assert all(set(line["scores"]) == {"validation", "good", "bad"} for line in runs.find(stage="test"))


def test_an_interrupted_benchmark_goes_on_where_it_stopped(made_up, calls, runs):
    class StopError(Exception):
        pass

    def stop(run):
        if len(calls) == 15:
            raise StopError
        return made_up.train(run)

    with pytest.raises(StopError):
        study.run_all(make_study(stop), 3, runs, quick=False)
    again = study.Runs(runs.path)
    assert len(again.lines) == 15
    assert study.run_all(made_up, 3, again, quick=False)
    assert len(calls) == len(set(map(repr, calls))) == len(again.lines) == 12 + 3 * 6
    # More seeds later: only those that are missing.
    assert study.run_all(made_up, 4, again, quick=False)
    assert [run.seed for run in calls[30:]] == [3] * 6
    assert not study.run_all(made_up, 5, again, quick=False, minutes=0)
    assert len(calls) == 36


def test_a_line_that_is_cut_off_is_named(runs):
    runs.path.write_text('{"stage": "test"}\n{"stage": "te')
    with pytest.raises(ValueError, match=r"runs\.jsonl, line 2, is no JSON.*Remove the line"):
        study.Runs(runs.path)


def rows_of(made_up, runs, seeds=3):
    return {(row["scenario"], row["method"]): row for row in study_report.summary(made_up, runs, seeds)}


def test_means_and_paired_differences_as_scipy_has_them(made_up, runs):
    study.run_all(made_up, 3, runs, quick=False)
    rows = rows_of(made_up, runs)
    for method, reference in (("sage", "none"), ("clean", "sage"), ("sage, inverted", "none"), ("none", "sage")):
        figure = rows["hard", method]["figures"]["good"]
        test = scipy.stats.ttest_rel(GOOD[method], GOOD[reference])
        low, high = test.confidence_interval(0.95)
        difference = figure[f"to {reference}"]
        assert difference["mean"] == pytest.approx(np.subtract(GOOD[method], GOOD[reference]).mean())
        assert difference["mean"] - difference["half_width"] == pytest.approx(low)
        assert difference["mean"] + difference["half_width"] == pytest.approx(high)
        assert figure["mean"] == pytest.approx(np.mean(GOOD[method]))
        half = scipy.stats.t.ppf(0.975, 2) * np.std(GOOD[method], ddof=1) / math.sqrt(3)
        assert figure["half_width"] == pytest.approx(half)
    assert rows["easy", "sage"]["figures"]["good"]["mean"] == pytest.approx(np.mean(GOOD["sage"]) + 0.05)
    assert rows["hard", "sage"]["figures"]["bad"]["to none"]["mean"] == pytest.approx(-0.7 / 3)
    assert "to none" not in rows["hard", "none"]["figures"]["good"]
    # The table marks what is told apart from zero: here (0.30, 0.25, 0.15) is, with t(2) = 4.303 standard errors.
    table = study_report.table(made_up, list(rows.values()), "Right").splitlines()
    assert "| small | hard | sage | 3 | 0.783 ± 0.190 | 0.217 ± 0.190 | **+0.233 ± 0.190** |  |" in table
    assert table[2].startswith("| small | easy | none |")


def test_the_share_of_the_damage_undone_by_hand(made_up, runs):
    made_up = make_study(made_up.train, unharmed="clean")
    study.run_all(made_up, 3, runs, quick=False)
    rows = rows_of(made_up, runs)
    share = rows["hard", "sage"]["figures"]["good"]["share"]
    # 0.30 / 0.40, 0.25 / 0.20, 0.15 / 0.40
    assert share["mean"] == pytest.approx((0.75 + 1.25 + 0.375) / 3)
    assert rows["hard", "clean"]["figures"]["good"]["share"]["mean"] == pytest.approx(1)
    assert rows["hard", "sage, inverted"]["figures"]["good"]["share"]["mean"] == pytest.approx((-0.25 + 0 - 0.125) / 3)
    # Nothing is trained without the shortcut where the scenario is easy.
    assert "share" not in rows["easy", "sage"]["figures"]["good"]
    assert "share of the damage undone" in study_report.table(made_up, list(rows.values()), "Right")


def test_only_seeds_that_both_have_are_paired_and_one_has_no_interval(made_up, runs):
    study.run_all(made_up, 3, runs, quick=False)
    runs.lines = [line for line in runs.lines if not (line["method"] == "none" and line["seed"] in (0, 2))]
    figure = rows_of(made_up, runs)["hard", "sage"]["figures"]["good"]
    assert figure["to none"] == {"mean": pytest.approx(0.25)}
    assert len(figure["values"]) == 3
    assert study_report.missing(made_up, runs, 5) == {"small, hard": 4 + 2 * 3, "small, easy": 4 + 2}


def test_runs_with_settings_no_longer_chosen_are_left_out(made_up, runs):
    study.run_all(made_up, 3, runs, quick=False)
    for line in runs.find(stage="search", method="sage", settings={"w": 3.0}):
        line["scores"]["validation"] = 1.0
    rows = rows_of(made_up, runs)
    assert ("hard", "sage") not in rows
    assert ("hard", "none") in rows


def test_every_method_must_search_as_much():
    with pytest.raises(ValueError, match="as many settings"):
        study.Model(epochs=1, search={"none": [{}], "sage": [{}, {}]})


def test_the_report_says_what_is_missing_and_what_computed_it(made_up, tmp_path, capsys):
    out = tmp_path / "out"
    threads = torch.get_num_threads()
    study.main(made_up, None, ["run", "--out", str(out), "--seeds", "3"])
    study.main(made_up, None, ["report", "--out", str(out), "--seeds", "4"])
    torch.set_num_threads(threads)
    assert (
        "Test runs that are still to be done, of 4 seeds: small, hard: 4; small, easy: 2." in capsys.readouterr().out
    )
    record = json.loads((out / "results.json").read_text())
    assert record["missing"] == {"small, hard": 4, "small, easy": 2}
    assert [set(one) for one in record["versions"]] == [{"sage_hf", "torch", "transformers", "numpy"}]
    assert record["hardware"] == ["x86_64 CPU, one thread"] or len(record["hardware"]) == 1
    assert len(record["results"]) == 6
    svg = (out / "plot.svg").read_text()
    assert svg.startswith("<?xml")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    study.main(made_up, None, ["report", "--out", str(out), "--seeds", "4"])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_report_without_runs_and_options_that_make_no_sense(made_up, tmp_path, capsys):
    with pytest.raises(ValueError, match="has no test runs yet"):
        study.main(made_up, None, ["report", "--out", str(tmp_path)])
    for options, message in ((["--quick"], "--quick needs an --out of its own"), (["--seeds", "0"], "1 or more")):
        with pytest.raises(SystemExit):
            study.main(made_up, None, ["run", *options])
        assert message in capsys.readouterr().err


def test_a_quick_try_has_one_setting_one_epoch_and_one_block_a_model(made_up, calls, runs):
    assert study.run_all(made_up, 1, runs, quick=True)
    assert {run.scenario for run in calls} == {"hard"}
    assert {run.epochs for run in calls} == {1}
    assert [run.settings for run in calls if run.stage == "test"] == [{"w": 1.0}, {"w": 3.0}, {"w": 5.0}]
    # Quick runs are never taken for others.
    assert study_report.summary(made_up, runs, 1) == []


def test_fit_trains_by_the_settings_of_the_run(capsys):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    pictures = torch.randn(32, 1, 2, 2)
    labels = (pictures.flatten(1).sum(dim=1) > 0).long()
    maps = torch.ones(1, 2, 2)
    rows = [{"pixel_values": x, "saliency": maps, "labels": int(y)} for x, y in zip(pictures, labels, strict=True)]
    run = study.Run("test", "linear", "", "none", {"learning_rate": 0.1}, 0, 20, False)
    before = study.accuracy(study.logits(model, pictures), labels)
    study.fit(model, rows, run, learning_rate=0.0, embedding_layer="1", use_cpu=True)  # the run's settings go before
    after = study.accuracy(study.logits(model, pictures, batch_size=7), labels)
    assert after > max(before, 0.9)
    assert capsys.readouterr().out == ""
