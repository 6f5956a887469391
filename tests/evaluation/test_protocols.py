"""Leave-one-out protocols: what is left out is nowhere in training, and unknown afterwards."""

import json

import datasets
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from sage_hf import DataError, SageTrainer, load_image_classifier
from sage_hf.cli import main
from sage_hf.evaluation import evaluate_model, model_evaluation
from sage_hf.evaluation.logit_figures import ranking_figures
from sage_hf.evaluation.protocols import leave_one_out, leave_out
from tests.conftest import CLASSES, make_args, make_dataset, make_model

SETTINGS = {"use_cpu": True, "disable_tqdm": True, "bootstrap_resamples": 10}


def make_splits():
    return datasets.DatasetDict(
        train=make_dataset(9), validation=make_dataset(6, split="validation"), test=make_dataset(9, split="test")
    )


def make_attacks(count):
    """Every third row is live; the others are prints and lenses in turn."""
    kinds = [None if row % 3 == 0 else ("print", "lens")[row % 2] for row in range(count)]
    features = datasets.Features(
        image=datasets.Image(),
        saliency=datasets.Image(mode="L"),
        label=datasets.ClassLabel(names=["live", "attack"]),
        attack_type=datasets.Value("string"),
    )
    rows = make_dataset(count)
    columns = {
        "image": list(rows["image"]),
        "saliency": list(rows["saliency"]),
        "label": [int(kind is not None) for kind in kinds],
        "attack_type": kinds,
    }
    return datasets.Dataset.from_dict(columns, features=features)


def attacks():
    return datasets.DatasetDict(train=make_attacks(12), validation=make_attacks(6), test=make_attacks(12))


@pytest.mark.parametrize("value", CLASSES)
def test_a_class_left_out_is_nowhere_and_the_others_keep_their_names(value):
    splits = make_splits()
    known, unknown = leave_out(splits, "label", [value])
    names = [name for name in CLASSES if name != value]
    for split, rows in splits.items():
        assert known[split].features["label"].names == names
        kept = [names[label] for label in known[split]["label"]]
        assert kept == [CLASSES[label] for label in rows["label"] if CLASSES[label] != value]
        assert {CLASSES[label] for label in unknown[split]["label"]} == {value}
        assert len(known[split]) + len(unknown[split]) == len(rows)
        assert known[split].column_names == rows.column_names
        # The very same pictures, in the same order.
        expected = [row["image"].tobytes() for row in rows if CLASSES[row["label"]] != value]
        assert [row["image"].tobytes() for row in known[split]] == expected


def test_every_value_in_turn():
    turns = list(leave_one_out(attacks(), "attack_type"))
    assert [value for value, _, _ in turns] == ["lens", "print"]
    for value, known, unknown in turns:
        assert value not in known["train"]["attack_type"]
        assert value not in known["validation"]["attack_type"]
        assert set(unknown["test"]["attack_type"]) == {value}
        assert known["train"].features["label"].names == ["live", "attack"]
    assert [value for value, _, _ in leave_one_out(attacks(), "attack_type", keep=["lens"])] == ["print"]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("label", ["mould"], r"no row has \['mould'\] in column 'label'"),
        ("kind", ["rust"], "no split has a column 'kind'"),
        ("image", ["rust"], "holds Image"),
        ("label", CLASSES[1:], "no two classes left"),
        ("label", CLASSES, "nothing is left of the train split"),
    ],
)
def test_mistakes(column, values, message):
    with pytest.raises(DataError, match=message):
        leave_out(make_splits(), column, values)


def test_a_class_that_goes_with_its_types_is_said():
    with pytest.raises(DataError, match=r"no row of \['attack'\] without \['lens', 'print'\]"):
        leave_out(attacks(), "attack_type", ["print", "lens"])


def test_a_split_of_what_is_left_out_alone_is_unknown_as_a_whole():
    splits = attacks()
    splits["test"] = splits["test"].filter(lambda kind: kind == "lens", input_columns="attack_type")
    known, unknown = leave_out(splits, "attack_type", ["lens"])
    assert "test" not in known
    assert len(unknown["test"]) == len(splits["test"])


@pytest.fixture
def model(tmp_path, processor):
    make_model("vit", num_labels=7).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path


def train(folder, *more):
    arguments = ["--model", folder / "model", "--dataset", folder / "data", "--output_dir", folder / "run"]
    usual = ["--max_steps", 2, "--per_device_train_batch_size", 4, "--bootstrap_resamples", 0, "--use_cpu"]
    return main(["train", *map(str, [*arguments, *usual, "--report_to", "none", "--guidance", "none", *more])])


def logits_of(folder, split):
    from transformers import AutoImageProcessor

    trainer = SageTrainer(
        load_image_classifier(folder / "run"),
        make_args(folder / "scratch", guidance="none"),
        processing_class=AutoImageProcessor.from_pretrained(folder / "run"),
    )
    return trainer.predict(split.select_columns(["image"])).predictions


def test_train_leaves_a_class_out_and_evaluate_takes_it_for_unknown(model, capsys):
    splits = make_splits()
    splits.save_to_disk(model / "data")
    assert train(model, "--leave_out", "rust") == 0
    config = json.loads((model / "run" / "config.json").read_text())
    assert list(config["id2label"].values()) == ["healthy", "miner"]
    assert config["sage"]["left_out"] == {"column": "label", "values": ["rust"]}
    assert "| left_out | rust (column label) |" in (model / "run" / "README.md").read_text()

    capsys.readouterr()
    command = ["evaluate", str(model / "run"), str(model / "data"), "--bootstrap_resamples", "0", "--use_cpu"]
    assert main([*command, "--split", "test", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == {"test": 6}
    assert found["unknown_rows"] == {"test": 3}
    assert found["left_out"] == {"column": "label", "values": ["rust"]}
    labels = np.array(splits["test"]["label"])
    logits = logits_of(model, splits["test"])
    confidence = softmax(logits, axis=1).max(axis=1)
    auroc = found["open_set"]["test"]["msp_auroc"]["value"]
    assert auroc == pytest.approx(roc_auc_score(labels != CLASSES.index("rust"), confidence))
    stated = json.loads((model / "run" / "results.json").read_text())["metrics"]["test"]
    assert found["metrics"]["test"] == stated


def test_train_leaves_a_type_of_attack_out(model):
    splits = attacks()
    splits.save_to_disk(model / "data")
    assert train(model, "--leave_out", "lens", "--leave_out_column", "attack_type") == 0
    found = evaluate_model(model / "run", model / "data", splits=["test"], bona_fide="live", **SETTINGS)
    kinds = splits["test"]["attack_type"]
    assert found["rows"] == {"test": sum(kind != "lens" for kind in kinds)}
    assert found["unknown_rows"] == {"test": sum(kind == "lens" for kind in kinds)}
    scores = 1 - softmax(logits_of(model, splits["test"]).astype(float), axis=1)[:, 0]
    figures = found["presentation_attack"]["test"]
    for kind in ("print", "lens"):
        missed = np.mean([score < 0.5 for score, one in zip(scores, kinds, strict=True) if one == kind])
        assert figures["apcer_by_type"][kind]["value"] == pytest.approx(missed)
    assert figures["auroc"]["value"] == pytest.approx(roc_auc_score([kind is not None for kind in kinds], scores))


@pytest.mark.parametrize("column", ["label", "attack_type"])
def test_a_threshold_knows_nothing_of_what_was_left_out(model, monkeypatch, column):
    splits = make_splits() if column == "label" else attacks()
    splits.save_to_disk(model / "data")
    value, bona_fide = ("rust", "healthy") if column == "label" else ("lens", "live")
    assert train(model, "--leave_out", value, "--leave_out_column", column) == 0
    seen = {}
    plain = model_evaluation.equal_error_threshold

    def spied(scores, attack):
        seen["attacks"], seen["threshold"] = attack.tolist(), plain(scores, attack)
        return seen["threshold"]

    monkeypatch.setattr(model_evaluation, "equal_error_threshold", spied)
    chosen = {"bona_fide": bona_fide, "threshold_split": "validation"}
    found = evaluate_model(model / "run", model / "data", **chosen, **SETTINGS)
    known, _ = leave_out(splits, column, [value])
    names = known["validation"].features["label"].names
    assert seen["attacks"] == [names[label] != bona_fide for label in known["validation"]["label"]]
    figures = found["presentation_attack"]["test"]
    assert figures["threshold"] == seen["threshold"]
    assert value in figures["apcer_by_type"]


def test_a_split_without_types_is_read_by_its_classes(model):
    splits = attacks()
    splits["validation"] = splits["validation"].remove_columns("attack_type")
    splits.save_to_disk(model / "data")
    assert train(model, "--leave_out", "lens", "--leave_out_column", "attack_type") == 0
    found = evaluate_model(model / "run", model / "data", bona_fide="live", **SETTINGS)["presentation_attack"]
    assert "apcer_by_type" not in found["validation"]
    assert set(found["test"]["apcer_by_type"]) == {"print", "lens"}
    chosen = {"bona_fide": "live", "threshold_split": "validation"}
    found = evaluate_model(model / "run", model / "data", **chosen, **SETTINGS)["presentation_attack"]
    assert set(found["test"]["apcer_by_type"]) == {"print", "lens"}
    # Nobody reads the types of the split that sets the threshold; those of others must be there if asked for.
    asked = {"bona_fide": "live", "attack_type_column": "attack_type"}
    again = evaluate_model(model / "run", model / "data", threshold_split="validation", **asked, **SETTINGS)
    assert again["presentation_attack"] == found
    with pytest.raises(DataError, match="attack_type_column: the validation split has no column 'attack_type'"):
        evaluate_model(model / "run", model / "data", **asked, **SETTINGS)


def test_a_class_left_out_is_set_aside_when_another_dataset_is_unknown(model):
    splits = make_splits()
    splits.save_to_disk(model / "data")
    datasets.DatasetDict(test=make_dataset(4)).save_to_disk(model / "other")
    assert train(model, "--leave_out", "rust") == 0
    other = str(model / "other")
    chosen = {"splits": ["test"], "predictions": True} | SETTINGS
    alone = evaluate_model(model / "run", model / "data", unknown=[other], bona_fide="healthy", **chosen)
    assert (alone["rows"], alone["unknown_rows"]) == ({"test": 6}, {"test": 4})
    elsewhere = logits_of(model, make_dataset(4))
    np.testing.assert_allclose(alone["predictions"]["test"]["unknown_logits"], elsewhere, rtol=1e-5)
    assert set(alone["presentation_attack"]["test"]["apcer_by_type"]) == {"miner", "rust"}
    both = evaluate_model(model / "run", model / "data", unknown=["rust", other], **chosen)
    assert (both["rows"], both["unknown_rows"]) == ({"test": 6}, {"test": 7})
    # A split that has none of what was left out is evaluated without open-set figures.
    datasets.DatasetDict(test=splits["test"].select([0, 2])).save_to_disk(model / "rest")
    assert "open_set" not in evaluate_model(model / "run", model / "rest", **SETTINGS)


def test_flags_that_do_not_go_together(model, capsys):
    make_splits().save_to_disk(model / "data")
    assert train(model, "--leave_out_column", "label") == 1
    assert "name the values with leave_out" in capsys.readouterr().err
    assert train(model, "--leave_out", "rust", "--streaming", "true") == 1
    assert "streaming" in capsys.readouterr().err


def test_ranking_is_scikit_learns():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(60, 4)).round(1), generator.integers(0, 4, 60)
    found = ranking_figures(logits, labels, resamples=50)["auroc"]
    expected = roc_auc_score(labels, softmax(logits, axis=1), multi_class="ovr")
    assert found["value"] == pytest.approx(expected)
    assert found["low"] < expected < found["high"]
    assert ranking_figures(logits[:3], np.zeros(3, dtype=int), resamples=5) == {}
