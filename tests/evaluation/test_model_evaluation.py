import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from sage_hf import DataError, SageTrainer, load_image_classifier
from sage_hf.cli import main
from sage_hf.evaluation import SaliencyAlignment, evaluate_model, model_saliency
from sage_hf.evaluation.logit_figures import attack_figures, equal_error_threshold, open_set_figures
from tests.conftest import CLASSES, make_args, make_dataset, make_model, make_rows

SETTINGS = {"use_cpu": True, "disable_tqdm": True, "bootstrap_resamples": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def trained(folder):
    """A run of the command on three splits, with weighted classes."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    make_model("vit", num_labels=7).save_pretrained(folder / "model")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder / "model")
    splits = {"train": make_dataset(8), "validation": make_dataset(6, annotated=2), "test": make_dataset(9)}
    datasets.DatasetDict(splits).save_to_disk(folder / "data")
    train(folder, "run", "--class_weights", "balanced", "--saliency_alignment", "true", "--card_pictures", "2")
    return folder


def train(folder, name, *more):
    arguments = ["--model", folder / "model", "--dataset", folder / "data", "--output_dir", folder / name]
    usual = [
        "--max_steps",
        2,
        "--per_device_train_batch_size",
        4,
        "--learning_rate",
        0.01,
        "--bootstrap_resamples",
        20,
    ]
    assert main(["train", *map(str, [*arguments, *usual, "--use_cpu", "--report_to", "none", *more])]) == 0


def results_of(run):
    return json.loads((run / "results.json").read_text())


def test_the_figures_are_those_of_the_run(trained):
    stated = results_of(trained / "run")
    found = evaluate_model(trained / "run", trained / "data", **SETTINGS)
    for split, figures in stated["metrics"].items():
        assert found["metrics"][split] == pytest.approx(figures, rel=1e-6)
    assert found["intervals"] == stated["intervals"]
    assert found["rows"] == {"validation": 6, "test": 9}
    assert found["classes"] == CLASSES
    assert found["model_revision"] is None
    by_scikit = found["calibration"]["test"]["negative_log_likelihood"]
    assert by_scikit["low"] <= by_scikit["value"] <= by_scikit["high"]


# peft asks for an old name of the property (seen in 0.19.1).
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapters(trained):
    train(trained, "adapter", "--lora_rank", "2")
    found = evaluate_model(trained / "adapter", trained / "data", **SETTINGS)
    assert found["metrics"] == results_of(trained / "adapter")["metrics"]


def logits_of(folder, split):
    trainer = SageTrainer(
        load_image_classifier(folder / "run"),
        make_args(folder / "scratch", guidance="none"),
        processing_class=processor_of(folder),
    )
    return trainer.predict(split).predictions


def processor_of(folder):
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder / "run")


def renamed(names, labels, annotated=None):
    rows = [
        row | {"label": label} for row, label in zip(make_rows(len(labels), annotated=annotated), labels, strict=True)
    ]
    features = datasets.Features(
        image=datasets.Image(), saliency=datasets.Image(mode="L"), label=datasets.ClassLabel(names=names)
    )
    return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)


def test_classes_are_matched_by_name(trained, tmp_path):
    """The same rows under other numbers, without one of the model's classes, with one that it doesn't know."""
    names = ["mould", CLASSES[2], CLASSES[0]]
    mixed = renamed(names, [1, 2, 0, 1, 2, 0])
    datasets.DatasetDict(test=mixed).save_to_disk(tmp_path / "mixed")
    with pytest.raises(DataError, match=r"test split: column 'label' has rows of \['mould'\]"):
        evaluate_model(trained / "run", tmp_path / "mixed", **SETTINGS)

    found = evaluate_model(trained / "run", tmp_path / "mixed", unknown=["mould"], **SETTINGS)
    logits = logits_of(trained, make_dataset(6))
    known, right = [0, 1, 3, 4], np.array([2, 0, 2, 0])
    assert found["rows"] == {"test": 4}
    assert found["unknown_rows"] == {"test": 2}
    assert found["metrics"]["test"]["accuracy"] == (logits[known].argmax(axis=1) == right).mean()
    confidence = softmax(logits, axis=1).max(axis=1)
    expected = roc_auc_score([1, 1, 0, 1, 1, 0], confidence)
    assert found["open_set"]["test"]["msp_auroc"]["value"] == pytest.approx(expected)


def test_another_dataset_as_unknown(trained, tmp_path):
    datasets.DatasetDict(other=renamed(["a", "b"], [0, 1, 0])).save_to_disk(tmp_path / "other")
    found = evaluate_model(
        trained / "run", trained / "data", splits=["test"], unknown=[str(tmp_path / "other")], **SETTINGS
    )
    known, strange = logits_of(trained, make_dataset(9)), logits_of(trained, make_dataset(3))
    energy = torch.logsumexp(torch.tensor(np.concatenate([known, strange])), dim=1)
    expected = roc_auc_score([1] * 9 + [0] * 3, energy)
    assert found["open_set"]["test"]["energy_auroc"]["value"] == pytest.approx(expected)
    assert found["unknown_rows"] == {"test": 3}


def test_presentation_attacks(trained):
    found = evaluate_model(
        trained / "run", trained / "data", bona_fide="healthy", threshold_split="validation", **SETTINGS
    )
    assert set(found["metrics"]) == {"validation", "test"}
    assert set(found["presentation_attack"]) == {"test"}
    figures = found["presentation_attack"]["test"]
    validation, test = (
        1 - softmax(logits_of(trained, make_dataset(rows)).astype(float), axis=1)[:, 0] for rows in (6, 9)
    )
    wrong = np.arange(6) % 3 > 0
    assert figures["threshold"] == equal_error_threshold(validation, wrong)
    assert figures["threshold"] not in validation
    label = np.arange(9) % 3
    missed = {name: (test[label == index] < figures["threshold"]).mean() for index, name in enumerate(CLASSES)}
    assert figures["apcer"]["value"] == max(missed["rust"], missed["miner"])
    assert figures["apcer_by_type"]["miner"]["value"] == missed["miner"]
    assert figures["bpcer"]["value"] == (test[label == 0] >= figures["threshold"]).mean()


def test_rows_of_unknown_classes_are_attacks_of_further_types(trained, tmp_path):
    mixed = renamed([*CLASSES, "mask"], [0, 1, 2, 3, 3])
    datasets.DatasetDict(test=mixed).save_to_disk(tmp_path / "mixed")
    found = evaluate_model(trained / "run", tmp_path / "mixed", unknown=["mask"], bona_fide="healthy", **SETTINGS)
    figures = found["presentation_attack"]["test"]
    scores = 1 - softmax(logits_of(trained, make_dataset(5)).astype(float), axis=1)[:, 0]
    assert figures["apcer_by_type"]["mask"]["value"] == (scores[3:] < 0.5).mean()
    assert figures["auroc"]["value"] == pytest.approx(roc_auc_score([0, 1, 1, 1, 1], scores))


def no_predictions(monkeypatch):
    def predict(*args, **kwargs):
        raise AssertionError("predicted before all was checked")

    monkeypatch.setattr(SageTrainer, "predict", predict)


def test_a_split_of_one_kind_has_no_attack_figures(trained, tmp_path, monkeypatch):
    splits = {"validation": renamed(CLASSES, [0, 1, 2]), "prints": renamed(CLASSES, [1, 1]), "live": make_dataset(1)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "data")
    found = evaluate_model(trained / "run", tmp_path / "data", bona_fide="healthy", **SETTINGS)
    assert set(found["metrics"]) == set(splits)
    assert set(found["presentation_attack"]) == {"validation"}
    no_predictions(monkeypatch)
    for name, lacking in (("prints", "rows of 'healthy'"), ("live", "attacks that the model knows")):
        with pytest.raises(DataError, match=f"{name} split: there are no {lacking}"):
            evaluate_model(trained / "run", tmp_path / "data", bona_fide="healthy", threshold_split=name, **SETTINGS)
    with pytest.raises(DataError, match="none of the splits prints, live has both rows of 'healthy' and attacks"):
        evaluate_model(trained / "run", tmp_path / "data", bona_fide="healthy", splits=["prints", "live"], **SETTINGS)


def test_bare_indices_are_matched_without_all_of_them(trained, tmp_path, processor):
    names = ["2", "0", "1"]  # of the model, in its order
    model = make_model("vit")
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    split = make_dataset(6).remove_columns("label").add_column("label", [0, 0, 2, 0, 2, 2])
    datasets.DatasetDict(test=split).save_to_disk(tmp_path / "data")
    found = evaluate_model(tmp_path / "model", tmp_path / "data", predictions=True, **SETTINGS)
    assert found["predictions"]["test"]["labels"].tolist() == [1, 1, 0, 1, 0, 0]


def test_a_model_without_class_names_is_said_to_need_them(tmp_path, processor):
    make_model("vit").save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    datasets.DatasetDict(test=make_dataset(3)).save_to_disk(tmp_path / "data")
    with pytest.raises(DataError, match=r"it knows LABEL_0, LABEL_1, LABEL_2\. .*id2label"):
        evaluate_model(tmp_path / "model", tmp_path / "data", **SETTINGS)


def test_annotators_are_the_runs(trained, tmp_path):
    """Two annotators who marked places that overlap: their union is no mean."""
    rows = make_rows(6)
    for row in rows:
        other = Image.fromarray(np.pad(np.full((20, 20), 120, np.uint8), ((10, 10), (20, 8))))
        row["saliency"] = [row["saliency"], other]
    features = datasets.Features(
        image=datasets.Image(),
        saliency=datasets.List(datasets.Image(mode="L")),
        label=datasets.ClassLabel(names=CLASSES),
    )
    split = datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)
    (tmp_path / "model").symlink_to(trained / "model")
    datasets.DatasetDict(train=split, test=split).save_to_disk(tmp_path / "data")
    train(tmp_path, "run", "--annotators", "union", "--saliency_alignment", "true")
    stated = results_of(tmp_path / "run")["saliency_alignment"]
    found = evaluate_model(tmp_path / "run", tmp_path / "data", saliency=True, **SETTINGS)
    assert found["saliency_alignment"] == stated
    found = evaluate_model(tmp_path / "run", tmp_path / "data", saliency=True, annotators="mean", **SETTINGS)
    assert found["saliency_alignment"] != stated


def test_alignment_is_that_of_the_metric(trained):
    found = evaluate_model(trained / "run", trained / "data", saliency=True, **SETTINGS)["saliency_alignment"]
    assert found["validation"]["pictures"] == 2
    assert found["test"]["pictures"] == 9
    stated = results_of(trained / "run")["saliency_alignment"]
    assert found == stated

    from sage_hf import AlignedTransform

    rows = [*map(AlignedTransform(processor_of(trained)), make_dataset(9))]
    model = load_image_classifier(trained / "run")
    for method in ("cam", "gradient"):
        maps = model_saliency(model, torch.stack([row["pixel_values"] for row in rows]), method=method)
        expected = SaliencyAlignment(keep_in_memory=True).compute(
            predictions=maps.double().tolist(), references=[row["saliency"][0].double().tolist() for row in rows]
        )
        for name, figure in found["test"][method].items():
            assert figure["value"] == pytest.approx(expected[name], rel=1e-4), name
            assert figure["low"] <= figure["value"] <= figure["high"]


def test_several_labels_and_numbers(tmp_path, processor):
    names = ["cyst", "stone"]
    features = {
        "multi_label_classification": (datasets.List(datasets.ClassLabel(names=names)), [[0], [], [1, 0], [1]], 2),
        "regression": (datasets.Value("float32"), [0.5, 1.0, 2.0, 0.0], 1),
    }
    for problem, (feature, labels, outputs) in features.items():
        model = make_model("convnext", num_labels=outputs)
        model.config.problem_type = problem
        if outputs == 2:
            model.config.id2label, model.config.label2id = {0: "stone", 1: "cyst"}, {"stone": 0, "cyst": 1}
        model.save_pretrained(tmp_path / problem)
        processor.save_pretrained(tmp_path / problem)
        columns = {"image": [row["image"] for row in make_rows(4)], "label": labels}
        split = datasets.Dataset.from_dict(columns, datasets.Features(image=datasets.Image(), label=feature))
        datasets.DatasetDict(test=split).save_to_disk(tmp_path / f"{problem}-data")
        found = evaluate_model(tmp_path / problem, tmp_path / f"{problem}-data", **SETTINGS)
        assert found["problem_type"] == problem
        assert "calibration" not in found
        trainer = SageTrainer(model, make_args(tmp_path / "scratch", guidance="none"), processing_class=processor)
        logits = trainer.predict(split).predictions
        if outputs == 1:
            expected = np.abs(logits[:, 0] - np.array(labels)).mean()
            assert found["metrics"]["test"]["mean_absolute_error"] == pytest.approx(expected)
        else:
            truth = np.array([[0, 1], [0, 0], [1, 1], [1, 0]])  # in the model's order
            assert found["metrics"]["test"]["subset_accuracy"] == ((logits >= 0) == truth).all(axis=1).mean()
        with pytest.raises(ValueError, match="need one label a picture"):
            evaluate_model(tmp_path / problem, tmp_path / f"{problem}-data", unknown=["x"], **SETTINGS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"splits": ["holdout"]}, "no split 'holdout'; it has train, validation, test"),
        ({"unknown": ["rust"]}, r"\['rust'\] can't be unknown classes, the model knows them"),
        ({"unknown": ["mould", "rot"]}, r"\['mould', 'rot'\] are no classes of the dataset"),
        ({"unknown": ["./mould"]}, "'./mould' is no class of the dataset, and no dataset"),
        ({"bona_fide": "live"}, "the model knows no class 'live', it knows healthy, rust, miner"),
        ({"unknown": ["./mould", "./rot"]}, "one other dataset at most"),
        ({"bona_fide": "rust", "attack_type_column": "kind"}, "the validation split has no column 'kind'"),
        ({"threshold_split": "validation"}, "name the class that is none with bona_fide"),
        (
            {"bona_fide": "rust", "threshold_split": "test", "splits": ["test"]},
            "a threshold is for other rows",
        ),
    ],
)
def test_mistakes(trained, monkeypatch, settings, message):
    no_predictions(monkeypatch)
    with pytest.raises(ValueError, match=message):
        evaluate_model(trained / "run", trained / "data", **SETTINGS, **settings)


def test_saliency_needs_maps(trained, tmp_path):
    datasets.DatasetDict(test=make_dataset(4, annotated=0)).save_to_disk(tmp_path / "bare")
    with pytest.raises(DataError, match="no row of the splits test has a map in the column 'saliency'"):
        evaluate_model(trained / "run", tmp_path / "bare", saliency=True, **SETTINGS)


def test_resamples_without_either_kind():
    """With one unknown row in two, a quarter of the resamples hold none, and as many hold no other."""
    logits = np.array([[2.0, 0.0], [0.0, 1.0]])
    figures = open_set_figures(logits[:1], np.array([0]), logits[1:], resamples=50)
    assert figures["msp_auroc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    attacks = attack_figures(np.array([0.2, 0.9, 0.4]), [None, "print", "lens"], None, resamples=50)
    assert attacks["apcer_by_type"]["lens"]["value"] == 1.0
    assert attacks["apcer"]["value"] == 1.0
    assert attacks["bpcer"]["value"] == 0.0
