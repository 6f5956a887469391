"""Runs in every state that their folder can be in."""

import json

import pytest

from sage_hf import SageTrainer
from sage_hf.reporting import write_report
from sage_hf.reporting.run_folder import read_run
from tests.conftest import make_args, make_dataset, make_model
from tests.pages.reading import check_page, tables


def test_the_folder_of_a_trainer(tmp_path, processor):
    """Without any card: checkpoint and state alone."""
    trainer = SageTrainer(
        make_model("resnet"),
        make_args(tmp_path / "out", logging_steps=1, max_steps=3, save_steps=3),
        train_dataset=make_dataset(8),
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model()
    run = read_run(tmp_path / "out")
    assert run.record is None
    assert [row["step"] for row in run.log] == [1, 2, 3]  # of the last checkpoint
    assert run.hyperparameters["max_steps"] == 3
    assert run.sage["guidance"] == "sage"
    page = check_page(write_report(tmp_path / "out").read_text(encoding="utf-8"))
    assert "consistency" in tables(page)
    commands = [one.text for one in page.all("code")]
    assert "sage-hf evaluate out DATA" in commands
    terms = [one.text for one in page.all("dt")]
    assert {"torch", "sage_hf", "learning_rate", "triplet_weight"} <= set(terms)


def test_the_folder_of_the_quickstart(tmp_path):
    results = {
        "none": {"test": [0.5, 0.7], "shifted": [0.1, 0.1]},
        "sage": {"test": [0.6, 0.8], "shifted": [0.6, 0.5]},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = check_page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert tables(page)["Accuracy of several trainings"][1:] == [
        # t(1) = 12.706, times the deviation over the root of 2: 12.706 * 0.1 of two values 0.2 apart.
        ["test", "none", "0.6000 (-0.6706 to 1.8706)", "0.5000, 0.7000"],
        ["test", "sage", "0.7000 (-0.5706 to 1.9706)", "0.6000, 0.8000"],
        ["shifted", "none", "0.1000 (0.1000 to 0.1000)", "0.1000, 0.1000"],
        ["shifted", "sage", "0.5500 (-0.0853 to 1.1853)", "0.6000, 0.5000"],
    ]
    assert page.all("p")[0].text == "Several trainings: guidance none, sage."


def test_files_of_something_else(tmp_path):
    (tmp_path / "results.json").write_text('{"accuracy": 0.5}')
    with pytest.raises(ValueError, match="was not written by `sage-hf train`: it has no metrics"):
        read_run(tmp_path)
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(ValueError, match="holds no JSON object"):
        read_run(tmp_path)
    (tmp_path / "results.json").unlink()
    (tmp_path / "run.json").write_text('{"model_name": "x"}')
    with pytest.raises(ValueError, match="can't be read"):
        read_run(tmp_path)


def test_secrets_of_a_run_stay_in_it(tmp_path):
    results = {"metrics": {"test": {"accuracy": 0.5}}, "guidance": "hf_" + 34 * "x"}
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match="holds a Hub token"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_runs_that_are_called_alike_are_told_apart(tmp_path):
    """They were one line of a chart, and one of them was not there."""
    for seed, low in (("a", 0.5), ("b", 0.7), ("c", 0.3)):
        folder = tmp_path / seed / "vit"
        folder.mkdir(parents=True)
        interval = {"accuracy": {"value": low + 0.1, "low": low, "high": low + 0.2}}
        found = {"metrics": {"test": {"accuracy": low + 0.1}}, "intervals": {"test": interval}, "guidance": "sage"}
        (folder / "results.json").write_text(json.dumps(found))
    page = write_report(tmp_path / "a" / "vit", [tmp_path / "b" / "vit", tmp_path / "c" / "vit"]).read_text(
        encoding="utf-8"
    )
    of = [
        "a/vit, this run (sage): 0.6 (0.5 to 0.7)",
        "b/vit (sage): 0.8 (0.7 to 0.9)",
        "c/vit (sage): 0.4 (0.3 to 0.5)",
    ]
    assert "; ".join(of) in page
