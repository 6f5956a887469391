"""`sage-hf report`: what the page says is what the run recorded, or what the model predicts."""

import json
import shutil
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest

from sage_hf.cli import main
from sage_hf.evaluation import evaluate_model
from tests.conftest import make_dataset
from tests.pages.reading import check_page, tables
from tests.reporting.runs import NAMES, SPLITS

USUAL = ["--use_cpu", "--bootstrap_resamples", "10"]


@pytest.fixture(scope="module")
def runs(finished_runs, tmp_path_factory):
    """Runs of its own, to write into."""
    return Path(shutil.copytree(finished_runs, tmp_path_factory.mktemp("report") / "runs"))


@pytest.fixture(scope="module")
def full(runs):
    """The page with everything, and its source."""
    more = ["--dataset", str(runs / "data"), "--unknown", str(runs / "unknown"), "--out", str(runs / "full.html")]
    assert main(["report", str(runs / "sage"), str(runs / "none"), *more, *USUAL]) == 0
    source = (runs / "full.html").read_text(encoding="utf-8")
    return check_page(source), source


@pytest.fixture(scope="module")
def predicted(runs):
    return evaluate_model(
        runs / "sage",
        runs / "data",
        unknown=[str(runs / "unknown")],
        bootstrap_resamples=10,
        predictions=True,
        use_cpu=True,
    )


def shown(figure) -> str:
    return f"{figure['value']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"


def test_metrics_are_those_of_the_run(runs, full):
    results = json.loads((runs / "sage" / "results.json").read_text())
    header, *rows = tables(full[0])["Metrics by split"]
    assert header == ["split", "loss", "accuracy", "balanced accuracy", "macro f1"]
    assert rows == [
        [
            split,
            f"{results['metrics'][split]['loss']:.4f}",
            *(shown(results["intervals"][split][name]) for name in ("accuracy", "balanced_accuracy", "macro_f1")),
        ]
        for split in SPLITS
    ]


def test_the_other_run_beside_it(runs, full):
    header, *rows = tables(full[0])["This run beside others"]
    accuracy = header.index("accuracy")
    for run, guidance in (("sage, this run", "sage"), ("none", "none")):
        intervals = json.loads((runs / guidance / "results.json").read_text())["intervals"]
        for split in SPLITS:
            (row,) = (row for row in rows if row[:3] == [split, run, guidance])
            assert row[accuracy] == shown(intervals[split]["accuracy"])
    assert len(rows) == 4
    charts = [one.text for one in full[0].all("title")]
    assert any(text.startswith("accuracy, evaluation. sage: ") and " none: " in text for text in charts)


def test_a_curve_of_every_term(runs, full):
    state = json.loads((runs / "sage" / "trainer_state.json").read_text())["log_history"]
    titles = [one.text for one in full[0].all("title")]
    for name in (
        "loss",
        "cross_entropy",
        "triplet",
        "consistency",
        "satisfied_triplets",
        "learning_rate",
        "grad_norm",
    ):
        assert any(title.startswith(f"{name.replace('_', ' ')}. training: ") for title in titles), name
    found = tables(full[0])["triplet"]
    assert found[0] == ["optimizer step", "training"]
    assert found[1:] == [[f"{row['step']}", f"{row['triplet']:.4g}"] for row in state if "triplet" in row]
    # Training and evaluation are logged at other steps: a row for each point.
    loss = tables(full[0])["loss"]
    evaluated = [[f"{row['step']}", f"{row['eval_loss']:.4g}"] for row in state if "eval_loss" in row]
    assert [row[1:] for row in loss if row[0] == "evaluation"] == evaluated


def test_alignment_is_that_of_the_run(runs, full):
    recorded = json.loads((runs / "sage" / "results.json").read_text())["saliency_alignment"]
    caption = "Agreement of the model's saliency, for the class that it predicts, with the maps of annotated rows"
    rows = tables(full[0])[caption][1:]
    assert len(rows) == 4
    cc = recorded["test"]["gradient"]["cc"]
    (row,) = (row for row in rows if row[0] == "test" and row[2] == "input gradient")
    assert row[1] == str(recorded["test"]["pictures"])
    assert row[3] == f"{cc['value']:.3f} ({cc['low']:.3f} to {cc['high']:.3f})"


def test_calibration_is_that_of_the_predictions(full, predicted):
    rows = tables(full[0])["Calibration by split, lower is better"][1:]
    names = ("ece", "mce", "brier_score", "negative_log_likelihood")
    assert rows == [[split, *(shown(predicted["calibration"][split][name]) for name in names)] for split in SPLITS]


def test_roc_areas_by_counting_pairs(full, predicted):
    header, *rows = tables(full[0])["Area under the ROC curve of each class against all others (0.5 is chance)"]
    assert header == ["class", *SPLITS]
    assert [row[0] for row in rows] == [*NAMES, "mean of the classes"]
    for column, split in enumerate(SPLITS, 1):
        logits, labels = (predicted["predictions"][split][name] for name in ("logits", "labels"))
        scores = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
        for index in range(3):
            own, others = scores[labels == index, index], scores[labels != index, index]
            pairs = [(one > other) + 0.5 * (one == other) for one in own for other in others]
            assert float(rows[index][column]) == pytest.approx(np.mean(pairs), abs=6e-5)


def test_confusion_by_counting(full, predicted):
    for split in SPLITS:
        rows = tables(full[0])[f"confusion, {split}"][1:]
        logits, labels = (predicted["predictions"][split][name] for name in ("logits", "labels"))
        for index, name in enumerate(NAMES):
            taken = [str(int(((labels == index) & (logits.argmax(1) == other)).sum())) for other in range(3)]
            assert rows[index] == [name, *taken]


def test_open_set_against_another_dataset(full, predicted):
    for split in SPLITS:
        caption = f"{predicted['rows'][split]} known and 4 unknown rows of {split}"
        msp, energy = tables(full[0])[caption][1:]
        figures = predicted["open_set"][split]
        assert msp[1] == shown(figures["msp_auroc"])
        assert energy[5] == shown(figures["energy_oscr"])
    titles = [one.text for one in full[0].all("title")]
    assert any(title.startswith("energy, test. known: 6 rows") and "unknown: 4 rows" in title for title in titles)


def test_pictures_settings_environment(runs, full):
    page, source = full
    assert len(page.all("img")) == 2
    assert all("row: picture" in one.attributes["alt"] for one in page.all("img"))
    terms = dict(zip([one.text for one in page.all("dt")], [one.text for one in page.all("dd")], strict=True))
    record = json.loads((runs / "sage" / "run.json").read_text())
    assert terms["learning_rate"] == "0.01"
    assert terms["degradation"] == "shuffle"
    assert terms["torch"] == record["versions"]["torch"]
    assert terms["hardware"] == record["hardware"]
    assert "Pictures of &lt;b&gt;noise&lt;/b&gt;." in source


def test_names_are_harmless(full):
    page, source = full
    assert "<script" not in source
    assert NAMES[1] in {one.text.strip() for one in page.all("th")}


def test_no_path_of_this_machine_is_told(runs, full):
    assert str(runs) not in full[1]
    assert str(Path.home()) + "/" not in full[1]


def test_without_predictions_it_says_what_to_run(runs, capsys):
    assert main(["report", str(runs / "none"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    path = runs / "none" / "report.html"
    assert told == {"report": str(path), "bytes": path.stat().st_size}
    page = check_page(path.read_text(encoding="utf-8"))
    commands = [one.text for one in page.all("code")]
    assert "sage-hf report none --dataset DATA" in commands
    assert "sage-hf report none --dataset DATA --unknown CLASS" in commands
    assert "sage-hf report none OTHER_RUN" in commands
    assert page.all("h1")[0].text == "Report of none"
    assert "Plain fine-tuning, without saliency guidance, 6 optimizer steps" in page.all("p")[0].text


def test_other_data_are_said_to_be_other(runs):
    changed = make_dataset(6, split="test").cast_column("label", datasets.ClassLabel(names=NAMES))
    datasets.DatasetDict(test=changed.select([0, 0, 0])).save_to_disk(runs / "other")
    out = runs / "other.html"
    assert main(["report", str(runs / "sage"), "--dataset", str(runs / "other"), "--out", str(out), *USUAL]) == 0
    assert "They are not those that the run recorded. test, loss: " in out.read_text(encoding="utf-8")


def test_only_its_own_pages_are_replaced(runs, capsys):
    path = runs / "mine.html"
    path.write_text("mine")
    assert main(["report", str(runs / "sage"), "--out", str(path)]) == 1
    assert "is no page of sage_hf" in capsys.readouterr().err
    assert path.read_text() == "mine"
    for _ in range(2):
        assert main(["report", str(runs / "sage"), "--out", str(runs / "new.html")]) == 0


def test_runs_of_other_data_are_not_compared(runs, tmp_path, capsys):
    shutil.copytree(runs / "none", tmp_path / "foreign")
    results = json.loads((tmp_path / "foreign" / "results.json").read_text())
    results["data"]["train"] = "1 rows"
    (tmp_path / "foreign" / "results.json").write_text(json.dumps(results))
    assert main(["report", str(runs / "sage"), str(tmp_path / "foreign")]) == 1
    assert "was trained on other data" in capsys.readouterr().err


def test_mistakes_are_explained(runs, tmp_path, capsys, monkeypatch):
    for arguments, message in (
        ([str(tmp_path / "nothing")], "There is no folder"),
        ([str(tmp_path)], "holds no run"),
        ([str(runs / "sage"), str(tmp_path)], "holds no run"),
        (
            [str(runs / "sage"), "--dataset", str(runs / "data"), "--split", "tset", "--out", str(tmp_path / "p")],
            "tset",
        ),
    ):
        assert main(["report", *arguments]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["report", str(runs / "sage"), "--unknown", "rust"])
    assert "of what --dataset names" in capsys.readouterr().err
    (tmp_path / "results.json").write_text("{")
    assert main(["report", str(tmp_path)]) == 1
    assert "can't be read" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", str(runs / "sage")]) == 1
    assert "pip install 'sage_hf[report]'" in capsys.readouterr().err
