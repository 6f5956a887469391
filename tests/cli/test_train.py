import json

import datasets
import pytest
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

from sage_hf import DataError, load_image_classifier
from sage_hf.cli import main
from sage_hf.cli.train import parse, train
from tests.conftest import CLASSES, make_dataset, make_model, make_rows
from tests.data.test_unusable import spoilt


@pytest.fixture
def sources(tmp_path, processor):
    """A local checkpoint with another head, and a local dataset."""
    make_model("vit", num_labels=7).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    splits = {"train": make_dataset(8, annotated=4), "validation": make_dataset(4), "test": make_dataset(4)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "data")
    return tmp_path


def arguments(folder, *more):
    return [
        "train",
        *("--model", str(folder / "model"), "--dataset", str(folder / "data"), "--output_dir", str(folder / "out")),
        *("--num_train_epochs", "1", "--per_device_train_batch_size", "4", "--use_cpu", "--report_to", "none"),
        *("--bootstrap_resamples", "20"),
        *more,
    ]


def test_train_saves_a_checkpoint_and_says_what_came_of_it(sources, capsys):
    assert main(arguments(sources)) == 0
    output = capsys.readouterr().out
    assert "guidance sage: 2 steps" in output
    assert "50 % of the rows with a map" in output
    assert "validation" in output
    assert "balanced_accuracy" in output
    model = AutoModelForImageClassification.from_pretrained(sources / "out")
    assert list(model.config.id2label.values()) == CLASSES
    results = json.loads((sources / "out" / "results.json").read_text())
    assert set(results["metrics"]) == {"validation", "test"}
    assert set(results["metrics"]["test"]) == {"loss", "accuracy", "balanced_accuracy", "macro_f1"}
    card = (sources / "out" / "README.md").read_text()
    assert f"| test | {results['metrics']['test']['loss']:.4f} |" in card
    assert str(sources) not in card


def test_same_seed_same_run(sources):
    results = []
    for name in ("first", "second"):
        assert main([*arguments(sources), "--output_dir", str(sources / name)]) == 0
        results.append(json.loads((sources / name / "results.json").read_text())["metrics"])
    assert results[0] == results[1]


def test_config_file_and_flags(sources, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        f"model: {sources / 'model'}\ndataset: {sources / 'data'}\nguidance: none\nlearning_rate: 3e-4\n"
        "horizontal_flip: 0.5\nuse_cpu: true\n"
    )
    run, args = parse(["--config", str(config), "--guidance", "sage", f"--output_dir={tmp_path / 'out'}"])
    assert run.model == str(sources / "model")
    assert (args.guidance, args.learning_rate, args.horizontal_flip) == ("sage", 3e-4, 0.5)
    assert args.output_dir == str(tmp_path / "out")


def test_another_run_in_the_folder_is_refused_before_anything_is_loaded(sources, capsys):
    assert main(arguments(sources)) == 0
    before = (sources / "out" / "model.safetensors").read_bytes()
    assert main([*arguments(sources), "--dataset", "does/not-exist"]) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert (sources / "out" / "model.safetensors").read_bytes() == before


def test_resume_from_the_command(sources):
    assert main(arguments(sources, "--save_strategy", "steps", "--save_steps", "1", "--max_steps", "2")) == 0
    again = arguments(sources, "--save_strategy", "steps", "--save_steps", "1", "--max_steps", "4")
    assert main([*again, "--resume_from_checkpoint", "true"]) == 0
    assert json.loads((sources / "out" / "results.json").read_text())["steps"] == 4


def test_broken_rows_are_left_out_and_auto_starts_and_goes_on(sources):
    splits = {"train": spoilt(8, {2, 5}), "validation": make_dataset(4)}
    datasets.DatasetDict(splits).save_to_disk(sources / "broken")
    usual = ("--dataset", str(sources / "broken"), "--check_rows", "0", "--resume_from_checkpoint", "auto")
    usual += ("--save_strategy", "steps", "--save_steps", "1", "--logging_steps", "1")
    with pytest.raises(DataError, match=r"row [25]"):
        train(*parse(arguments(sources, *usual, "--output_dir", str(sources / "raised"))[1:]))
    assert main(arguments(sources, *usual, "--on_error", "skip", "--max_steps", "2")) == 0
    assert main(arguments(sources, *usual, "--on_error", "skip", "--max_steps", "4")) == 0
    assert json.loads((sources / "out" / "results.json").read_text())["steps"] == 4
    skipped = json.loads((sources / "out" / "run.json").read_text())["skipped_rows"]
    assert (skipped["rows"], skipped["times"]) == (2, 4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--degradation", "smear"], "Unknown degradation 'smear'"),
        (["--guidance", "saga"], "Unknown guidance 'saga'"),
        (["--train_split", "training"], "has no split 'training'; it has train, validation, test"),
        (["--label_column", "species"], "no split has a column 'species'"),
        (["--dataset", "./nowhere"], "'./nowhere' is not a folder"),
        (["--model", "./nowhere"], "'./nowhere' is not a folder"),
    ],
)
def test_mistakes_are_explained_without_a_traceback(sources, capsys, more, message):
    assert main(arguments(sources, *more)) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "learning_rat: 0.1",
            "the config has the key 'learning_rat', which is no argument. Did you mean 'learning_rate'",
        ),
        ("- a\n- b", "should hold `argument: value` lines"),
        ("a: [", "is not YAML"),
    ],
)
def test_mistakes_in_the_config_are_explained(tmp_path, capsys, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    assert main(["train", "--config", str(tmp_path / "bad.yaml")]) == 1
    assert message in capsys.readouterr().err


def test_json_alone_on_standard_output(sources, capsys):
    assert main(arguments(sources, "--json", "--logging_steps", "1")) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2


def test_yaml_no_and_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text("model: ~/model\ndataset: me/data\nsave_strategy: no\neval_strategy: no\n")
    run, args = parse(["--config", str(tmp_path / "run.yaml"), "--use_cpu"])
    assert run.model == str(tmp_path / "model")
    assert args.save_strategy == args.eval_strategy == "no"


def test_every_evaluated_split_is_checked_before_training(sources, capsys):
    splits = datasets.load_from_disk(sources / "data")
    wrong = splits["test"].cast_column("label", datasets.Value("int64")).map(lambda row: {"label": 9})
    hidden = splits["test"].cast_column("label", datasets.Value("int64")).map(lambda row: {"label": -1})
    names = splits["train"].features["label"]
    for name, test, code in (("wrong", wrong, 1), ("hidden", hidden, 0)):
        parts = datasets.DatasetDict(
            train=splits["train"], test=test.cast_column("label", names) if code == 0 else test
        )
        parts.save_to_disk(sources / name)
        run = [*arguments(sources), "--dataset", str(sources / name), "--output_dir", str(sources / f"out-{name}")]
        assert main(run) == code
    assert not (sources / "out-wrong" / "model.safetensors").exists()
    results = json.loads((sources / "out-hidden" / "results.json").read_text())
    assert results["metrics"] == {}


def test_classes_of_the_checkpoint_keep_their_place(sources):
    model = make_model("vit")
    names = list(reversed(CLASSES))
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {n: i for i, n in enumerate(names)}
    model.save_pretrained(sources / "model")
    assert main(arguments(sources)) == 0
    assert list(AutoModelForImageClassification.from_pretrained(sources / "out").config.id2label.values()) == names


def test_help_names_every_argument(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    output = capsys.readouterr().out
    for flag in ("--model", "--dataset", "--guidance", "--config", "--degradation", "--check_rows", "--learning_rate"):
        assert flag in output


def save_dataset(folder, feature, labels):
    rows = make_rows(len(labels))
    features = datasets.Features(image=datasets.Image(), saliency=datasets.Image(mode="L"), label=feature)
    columns = {"image": [row["image"] for row in rows], "saliency": [row["saliency"] for row in rows], "label": labels}
    split = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(train=split, test=split).save_to_disk(folder / "data")


def test_several_labels(sources, capsys):
    names = ["cyst", "stone", "tumour"]
    save_dataset(
        sources / "several", datasets.List(datasets.Value("string")), [["cyst"], [], ["tumour", "cyst"], ["stone"]]
    )
    assert main([*arguments(sources), "--dataset", str(sources / "several" / "data"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    figures = {"loss", "subset_accuracy", "micro_f1", "macro_f1", "mean_average_precision"}
    assert set(results["metrics"]["test"]) == figures
    config = AutoModelForImageClassification.from_pretrained(sources / "out").config
    assert config.problem_type == "multi_label_classification"
    assert list(config.id2label.values()) == names
    classify = pipeline("image-classification", str(sources / "out"), use_fast=False)
    scores = classify(make_rows(1)[0]["image"])
    assert {score["label"] for score in scores} == set(names)
    assert sum(score["score"] for score in scores) != pytest.approx(1)  # a sigmoid each, no softmax


@pytest.mark.parametrize(
    ("labels", "flags"), [([0.5, -1.0, 2.0, 7.5], ()), ([40, 71, 12, 3], ("--problem_type", "regression"))]
)
def test_numbers(sources, capsys, labels, flags):
    kind = "float64" if isinstance(labels[0], float) else "int64"
    save_dataset(sources / "numbers", datasets.Value(kind), labels)
    assert main([*arguments(sources), "--dataset", str(sources / "numbers" / "data"), "--json", *flags]) == 0
    results = json.loads(capsys.readouterr().out)
    assert set(results["metrics"]["test"]) == {"loss", "mean_absolute_error", "root_mean_squared_error", "r2"}
    config = AutoModelForImageClassification.from_pretrained(sources / "out").config
    assert config.problem_type == "regression"
    assert config.id2label == {0: "label"}


def test_a_backbone_without_a_head(sources, processor, capsys):
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    DINOv3ViTModel(config).save_pretrained(sources / "backbone")
    processor.save_pretrained(sources / "backbone")
    assert main([*arguments(sources), "--model", str(sources / "backbone")]) == 0
    assert f'sage_hf.load_image_classifier("{sources / "out"}")' in capsys.readouterr().out
    assert list(load_image_classifier(sources / "out").config.id2label.values()) == CLASSES


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_low_rank_adapters(sources, capsys):
    assert main([*arguments(sources), "--lora_rank", "4"]) == 0
    assert "load_image_classifier" in capsys.readouterr().out
    model = load_image_classifier(sources / "out")
    assert list(model.config.id2label.values()) == CLASSES
    assert any("lora_A" in name for name, _ in model.named_parameters())


def test_larger_pictures(sources, capsys):
    assert main([*arguments(sources), "--image_size", "64", "--json"]) == 0
    saved = json.loads((sources / "out" / "config.json").read_text())
    assert saved["sage"]["interpolate_pos_encoding"]
    assert json.loads((sources / "out" / "preprocessor_config.json").read_text())["size"] == {
        "height": 64,
        "width": 64,
    }


def test_head_alone_with_balanced_classes(sources):
    assert main([*arguments(sources), "--freeze_backbone", "--class_weights", "balanced"]) == 0
    before = AutoModelForImageClassification.from_pretrained(sources / "model")
    after = AutoModelForImageClassification.from_pretrained(sources / "out")
    for (name, one), other in zip(before.vit.named_parameters(), after.vit.parameters(), strict=True):
        assert (one == other).all(), name
    weights = json.loads((sources / "out" / "training_args.json").read_text())["class_weights"]
    assert weights == ["balanced"]


def test_class_weights_as_numbers_in_a_config(sources, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("model: m\ndataset: d\noutput_dir: o\nclass_weights: [1, 2.5, 3]\nuse_cpu: true\n")
    assert parse(["--config", str(config)])[1].class_weights == ["1", "2.5", "3"]
    config.write_text("model: m\ndataset: d\noutput_dir: o\nclass_weights: balanced\nuse_cpu: true\n")
    assert parse(["--config", str(config)])[1].class_weights == ["balanced"]


def test_card_shows_other_runs_and_pictures_when_asked_to(sources):
    assert main([*arguments(sources), "--output_dir", str(sources / "none"), "--guidance", "none"]) == 0
    compared = ["--compare_with", str(sources / "none"), "--card_pictures", "2"]
    assert main([*arguments(sources), *compared]) == 0
    card = (sources / "out" / "README.md").read_text()
    baseline = json.loads((sources / "none" / "results.json").read_text())
    assert f"| none | not used | 42 | test | {baseline['metrics']['test']['loss']:.4f} |" in card
    assert "![Training pictures" in card
    with Image.open(sources / "out" / "views.png") as views:
        assert views.size == (4 * 136 + 8, 26 + 8 + 2 * 136)
    assert "views.png" not in (sources / "none" / "README.md").read_text()
    assert "![Pictures of the validation split, not trained on" in card
    assert (sources / "out" / "alignment.png").is_file()
    assert "Where the model looks" not in card


def test_alignment_figures_on_the_card(sources):
    assert main(arguments(sources, "--saliency_alignment", "true", "--guidance", "none")) == 0
    card = (sources / "out" / "README.md").read_text()
    found = json.loads((sources / "out" / "results.json").read_text())["saliency_alignment"]
    assert set(found) == {"validation", "test"}
    cc = found["test"]["cam"]["cc"]
    shown = f"{cc['value']:.4f} ({cc['low']:.4f} to {cc['high']:.4f})"
    assert f"| test | 4 | class activation map | {shown} |" in card


def test_runs_that_can_not_be_compared_are_refused_or_left_out(sources, capsys, caplog):
    assert main([*arguments(sources), "--output_dir", str(sources / "none"), "--num_train_epochs", "2"]) == 0
    assert main([*arguments(sources), "--compare_with", str(sources / "none")]) == 0
    assert "none took 4 steps and this run 2: it is left off the card" in caplog.text
    assert "Other runs" not in (sources / "out" / "README.md").read_text()
    other = ["--output_dir", str(sources / "other"), "--compare_with"]
    assert main([*arguments(sources), *other, str(sources / "nowhere")]) == 1
    assert "has no results.json" in capsys.readouterr().err
    results = json.loads((sources / "none" / "results.json").read_text())
    (sources / "none" / "results.json").write_text(json.dumps(results | {"data": {"train": 7}}))
    assert main([*arguments(sources), *other, str(sources / "none")]) == 1
    assert "was trained on other data ({'train': 7}, here" in capsys.readouterr().err
    assert not (sources / "other").exists()


def without_maps(split):
    return split.map(lambda row: {"saliency": None}, features=split.features)


def test_alignment_without_maps_to_compare_with_is_refused_before_training(sources, capsys):
    splits = datasets.load_from_disk(sources / "data")
    bare = {name: split if name == "train" else without_maps(split) for name, split in splits.items()}
    datasets.DatasetDict(bare).save_to_disk(sources / "bare")
    asked = arguments(sources, "--dataset", str(sources / "bare"), "--saliency_alignment", "true")
    assert main(asked) == 1
    assert "no row of the splits validation, test has a map in the column 'saliency'" in capsys.readouterr().err
    assert not (sources / "out" / "model.safetensors").exists()


def blank(split):
    size = split[0]["image"].size
    return split.map(lambda row: {"saliency": Image.new("L", size)}, features=split.features)


def test_a_split_of_blank_maps_is_left_out_of_the_alignment(sources, capsys):
    splits = datasets.load_from_disk(sources / "data")
    splits["test"] = blank(splits["test"])  # of pictures in which there is nothing to mark
    splits.save_to_disk(sources / "blank")
    asked = arguments(sources, "--dataset", str(sources / "blank"), "--saliency_alignment", "true")
    assert main(asked) == 0
    assert set(json.loads((sources / "out" / "results.json").read_text())["saliency_alignment"]) == {"validation"}
    splits["validation"] = blank(splits["validation"])
    splits.save_to_disk(sources / "all_blank")
    other = ["--dataset", str(sources / "all_blank"), "--output_dir", str(sources / "other")]
    assert main([*asked, *other]) == 1
    assert "no row of the splits validation, test has a map in the column 'saliency'" in capsys.readouterr().err
    assert not (sources / "other" / "model.safetensors").exists()


@pytest.mark.parametrize("asked", [("--saliency_alignment", "true"), ("--card_pictures", "1")])
def test_a_map_that_can_not_be_used_is_refused_before_training(sources, capsys, asked):
    splits = datasets.load_from_disk(sources / "data")
    rows = list(splits["test"])
    rows[2]["saliency"] = Image.new("RGB", rows[2]["image"].size, (200, 30, 30))
    splits["test"] = datasets.Dataset.from_list(rows, features=splits["test"].features)
    splits.save_to_disk(sources / "coloured")
    assert main(arguments(sources, "--dataset", str(sources / "coloured"), *asked)) == 1
    assert "row 2, column 'saliency': the map has colours" in capsys.readouterr().err
    assert not (sources / "out" / "model.safetensors").exists()


def test_figures_are_kept_if_what_is_measured_after_them_fails(sources, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no alignment")

    monkeypatch.setattr("sage_hf.cli.train.align_splits", fail)
    assert main(arguments(sources, "--saliency_alignment", "true")) == 1
    assert "accuracy" in json.loads((sources / "out" / "results.json").read_text())["metrics"]["test"]


def test_a_template_that_can_not_be_used_is_refused_before_training(sources, capsys):
    template = sources / "card.md"
    assert main(arguments(sources, "--card_template", str(template))) == 1
    assert "No such file" in capsys.readouterr().err
    template.write_text("# Card\n{% if %}\n")
    assert main(arguments(sources, "--card_template", str(template))) == 1
    assert "card.md, line 2, is no Jinja template" in capsys.readouterr().err
    assert not (sources / "out").exists()


def test_one_value_of_a_list_in_a_config_is_a_list_of_one(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("model: m\ndataset: d\noutput_dir: o\nleave_out: rust\nclass_weights: balanced\nuse_cpu: true\n")
    run_args, args = parse(["--config", str(config)])
    assert run_args.leave_out == ["rust"]
    assert args.class_weights == ["balanced"]


def test_names_in_a_config_are_texts(tmp_path):
    config = tmp_path / "run.yaml"
    usual = "model: m\ndataset: d\noutput_dir: o\nuse_cpu: true\n"
    config.write_text(usual + "unmarked_classes: [0, 'no']\n")
    assert parse(["--config", str(config)])[1].unmarked_classes == ["0", "no"]
    config.write_text(usual + "unmarked_classes: [no, yes]\n")
    with pytest.raises(ValueError, match=r"unmarked_classes has \[False, True\]: without quotes, YAML reads no"):
        parse(["--config", str(config)])
