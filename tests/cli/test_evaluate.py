import json

import datasets
import pytest

from sage_hf.cli import main
from tests.conftest import CLASSES, make_dataset, make_model


@pytest.fixture
def sources(tmp_path, processor):
    model = make_model("resnet")
    model.config.id2label, model.config.label2id = dict(enumerate(CLASSES)), {n: i for i, n in enumerate(CLASSES)}
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    datasets.DatasetDict(test=make_dataset(6)).save_to_disk(tmp_path / "data")
    return tmp_path


def arguments(folder, *more):
    return ["evaluate", str(folder / "model"), str(folder / "data"), "--use_cpu", "--bootstrap_resamples", "10", *more]


def test_json_and_output_say_the_same(sources, capsys):
    file = sources / "figures.json"
    assert main(arguments(sources, "--json", "--saliency", "--output", str(file))) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(file.read_text())
    assert set(printed["metrics"]["test"]) == {"loss", "accuracy", "balanced_accuracy", "macro_f1"}
    assert set(printed["saliency_alignment"]["test"]) == {"pictures", "cam", "gradient"}
    assert main(arguments(sources, "--output", str(file))) == 1
    assert "is there already" in capsys.readouterr().err
    assert printed == json.loads(file.read_text())


def test_the_summary_shows_every_figure(sources, capsys):
    assert main(arguments(sources, "--split", "test", "--bona_fide", "healthy")) == 0
    text = capsys.readouterr().out
    for shown in ("test: 6 rows", "balanced_accuracy", "calibration", "ece", "threshold 0.5", "apcer, rust", " to "):
        assert shown in text


def test_the_folder_of_output_is_made_before_anything_is_measured(sources, capsys, monkeypatch):
    file = sources / "figures" / "here" / "test.json"
    assert main(arguments(sources, "--output", str(file))) == 0
    assert "test: 6 rows" in capsys.readouterr().out
    assert json.loads(file.read_text())["rows"] == {"test": 6}

    def measure(*args, **kwargs):
        raise AssertionError("this takes hours")

    monkeypatch.setattr("sage_hf.cli.evaluate.evaluate_model", measure)
    assert main(arguments(sources, "--output", str(sources / "model" / "config.json" / "test.json"))) == 1
    assert "config.json" in capsys.readouterr().err


def test_annotators(sources, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("sage_hf.cli.evaluate.evaluate_model", lambda *args, **settings: asked.append(settings) or {})
    assert main(arguments(sources, "--json")) == 0
    assert main(arguments(sources, "--json", "--annotators", "union")) == 0
    # The run's are taken where none are asked for.
    assert ["annotators" in settings for settings in asked] == [False, True]
    assert asked[1]["annotators"] == "union"


def test_mistakes_are_explained_without_a_traceback(sources, capsys):
    assert main(arguments(sources, "--split", "train")) == 1
    assert "no split 'train'; it has test" in capsys.readouterr().err
