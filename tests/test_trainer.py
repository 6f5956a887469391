import copy
import itertools
import json

import pytest
import torch
import torch.nn.functional as F
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, TrainingArguments

from sage_hf import SageObjective, SageTrainer, SageTrainingArguments
from sage_hf.cli import main
from sage_hf.evaluation import classification_metrics
from tests.conftest import CLASSES, Rows, make_dataset, make_model, make_rows


def make_trainer(tmp_path, kind="vit", model=None, **kwargs):
    settings = {
        "output_dir": str(tmp_path / "run"),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "learning_rate": 1e-3,
    }
    names = ("train_dataset", "eval_dataset", "processing_class", "objective", "compute_metrics", "callbacks")
    own = {name: kwargs.pop(name) for name in names if name in kwargs}
    args = SageTrainingArguments(**(settings | kwargs))
    return SageTrainer(model=model or make_model(kind), args=args, **own)


@pytest.fixture
def trained(tmp_path, dataset, processor):
    trainer = make_trainer(
        tmp_path,
        train_dataset=dataset,
        eval_dataset=make_dataset(6, split="validation"),
        processing_class=processor,
        compute_metrics=classification_metrics,
    )
    trainer.train()
    return trainer


def test_loss_is_cross_entropy_and_the_weighted_mean_of_the_terms(tmp_path, batch):
    objective = SageObjective(degradation="mean", triplet_weight=0.7, consistency="both", consistency_weight=2.0)
    trainer = make_trainer(tmp_path, objective=objective)
    model = trainer.model.train()
    loss = trainer.compute_loss(model, batch)

    # The same from plain passes, one row at a time.
    x, rows = batch["pixel_values"], [0, 2]
    expected = F.cross_entropy(model(x).logits, batch["labels"]).item()
    pooled = {}
    handle = model.classifier.register_forward_pre_hook(lambda module, args: pooled.update(z=args[0]))
    for row in rows:
        s, picture = batch["saliency"][row], x[row]
        degraded = picture.mean(dim=(1, 2), keepdim=True).expand_as(picture)
        passes = []
        for view in (picture, s * picture + (1 - s) * degraded, (1 - s) * picture + s * degraded):
            logits = model(view[None]).logits[0]
            passes.append((pooled["z"][0], logits.softmax(-1)))
        (z, p), (z_positive, p_positive), (z_negative, p_negative) = passes
        similarity = torch.nn.CosineSimilarity(dim=0)
        triplet = (similarity(z, z_negative) - similarity(z, z_positive) + objective.margin).clamp(min=0)
        kl = (p * (p / p_positive).log()).sum()
        middle = (p + p_negative) / 2
        jsd = ((p * (p / middle).log()).sum() + (p_negative * (p_negative / middle).log()).sum()) / 2
        expected += (0.7 * triplet + 2.0 * (kl + torch.log(torch.tensor(2.0)) - jsd)).item() / len(rows)
    handle.remove()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["vit", "convnext", "resnet"])
def test_a_batch_without_maps_is_plain_cross_entropy_bit_for_bit(tmp_path, batch, kind):
    batch["saliency_mask"] = torch.zeros(4, dtype=torch.bool)
    trainer = make_trainer(tmp_path, kind)
    model, plain = trainer.model.train(), make_model(kind).train()
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    expected = F.cross_entropy(plain(batch["pixel_values"]).logits, batch["labels"])
    expected.backward()
    assert torch.equal(loss, expected)
    for (name, parameter), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad), name


def test_a_batch_without_maps_costs_one_forward_pass(tmp_path, batch):
    trainer = make_trainer(tmp_path, "resnet")
    sizes = []
    trainer.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    trainer.compute_loss(trainer.model.train(), batch)
    assert sizes == [4, 4]  # the pictures, then two views of the two annotated ones
    sizes.clear()
    trainer.compute_loss(trainer.model, batch | {"saliency_mask": torch.zeros(4, dtype=torch.bool)})
    assert sizes == [4]
    sizes.clear()
    trainer.model.eval()
    trainer.compute_loss(trainer.model, batch)
    assert sizes == [4]


def test_rows_that_can_not_be_guided_do_not_dilute_those_that_are(tmp_path, batch):
    # Micro-batches of 4 rows and of 1: shuffling needs a second row, so the last one's map guides nothing.
    single = {name: values[:1] for name, values in batch.items()}
    trainer = make_trainer(tmp_path)
    _, counts = trainer.get_batch_samples(iter([batch, single]), 2, torch.device("cpu"))
    assert counts.tolist() == [5, 5, 5, 3, 2, 0]
    control = make_trainer(tmp_path, saliency_control="shuffled")
    lonely = batch | {"saliency_mask": torch.tensor([True, False, False, False])}
    _, counts = control.get_batch_samples(iter([batch, lonely]), 2, torch.device("cpu"))
    assert counts.tolist() == [8, 8, 8, 3, 2, 0]


def test_rows_are_counted_on_beyond_what_float32_counts(tmp_path, batch):
    trainer = make_trainer(tmp_path)
    trainer._rows_seen[0] = 2**24
    for _ in range(3):
        trainer.get_batch_samples(iter([{name: values[:1] for name, values in batch.items()}]), 1, torch.device("cpu"))
    assert trainer._rows_seen[0] == 2**24 + 3


def test_label_smoothing_is_in_training_alone(tmp_path, batch):
    trainer = make_trainer(tmp_path, guidance="none", label_smoothing_factor=0.2)
    logits = trainer.model(batch["pixel_values"]).logits
    expected = F.cross_entropy(logits, batch["labels"], label_smoothing=0.2)
    torch.testing.assert_close(trainer.compute_loss(trainer.model.train(), batch), expected)
    expected = F.cross_entropy(logits, batch["labels"])
    torch.testing.assert_close(trainer.compute_loss(trainer.model.eval(), batch), expected)


def test_a_trained_model_can_be_copied(tmp_path, batch):
    trainer = make_trainer(tmp_path, guidance_interval=2)
    for step in (0, 1):
        trainer.state.global_step = step
        trainer.compute_loss(trainer.model.train(), batch)
        copy.deepcopy(trainer.model)


def test_views_differ_between_steps_batches_and_processes(tmp_path, batch):
    trainer = make_trainer(tmp_path)
    seen = []
    trainer._guide.objective = SageObjective(
        degradation=lambda x, generator: seen.append(generator.initial_seed()) or torch.zeros_like(x)
    )
    for step in (0, 0, 1):
        trainer.state.global_step = step
        trainer._guide.batches = 0
        for _ in range(2):
            trainer.compute_loss(trainer.model.train(), batch)
    first, again, next_step = seen[:2], seen[2:4], seen[4:]
    assert first == again
    assert len({*first, *next_step}) == 4


def test_models_with_a_teacher_train_on_a_named_head(tmp_path, dataset, processor):
    torch.manual_seed(0)
    config = DeiTConfig(
        image_size=32, patch_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=3
    )
    trainer = make_trainer(
        tmp_path,
        model=DeiTForImageClassificationWithTeacher(config),
        train_dataset=dataset,
        eval_dataset=dataset,
        processing_class=processor,
        embedding_layer="cls_classifier",
    )
    trainer.train()
    assert "eval_loss" in trainer.evaluate()


def test_guidance_none_ignores_maps(tmp_path, batch):
    trainer = make_trainer(tmp_path, guidance="none")
    model = trainer.model.train()
    expected = F.cross_entropy(model(batch["pixel_values"]).logits, batch["labels"])
    assert torch.equal(trainer.compute_loss(model, batch), expected)


def test_interval_guides_every_kth_step_with_its_weight(tmp_path, batch):
    plain = make_trainer(tmp_path, degradation="mean", guidance_interval=1)
    trainer = make_trainer(tmp_path, degradation="mean", guidance_interval=3)
    cross_entropy = F.cross_entropy(plain.model(batch["pixel_values"]).logits, batch["labels"]).item()
    guided = plain.compute_loss(plain.model.train(), batch).item() - cross_entropy
    for step, weight in [(0, 3), (1, 0), (2, 0), (3, 3)]:
        trainer.state.global_step = step
        loss = trainer.compute_loss(trainer.model.train(), batch).item()
        assert loss - cross_entropy == pytest.approx(weight * guided, abs=1e-5)


def test_evaluation_reports_cross_entropy_alone(trained):
    metrics = trained.evaluate()
    rows = [trained.eval_dataset[index] for index in range(6)]
    assert "saliency" not in rows[0]
    with torch.no_grad():
        logits = trained.model(torch.stack([row["pixel_values"] for row in rows])).logits
    labels = torch.tensor([row["labels"] for row in rows])
    assert metrics["eval_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert metrics["eval_accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    prediction = trained.predict(make_dataset(6, split="test"))
    torch.testing.assert_close(torch.tensor(prediction.predictions), logits)


def test_prediction_needs_no_labels_and_no_maps(trained):
    unlabelled = make_dataset(3, split="test").remove_columns(["label", "saliency"])
    prediction = trained.predict(unlabelled)
    assert prediction.predictions.shape == (3, 3)
    assert prediction.label_ids is None


def test_terms_are_logged(trained):
    logs = [entry for entry in trained.state.log_history if "loss" in entry]
    assert len(logs) == 2
    weights = trained.guidance_objective.weights
    for entry in logs:
        assert 0 <= entry["satisfied_triplets"] <= 1
        assert entry["annotated"] == 1.0
        total = entry["cross_entropy"] + sum(weight * entry[name] for name, weight in weights.items())
        assert entry["loss"] == pytest.approx(total, rel=1e-4)
    assert not any("triplet" in entry for entry in trained.state.log_history if "eval_loss" in entry)


def test_annotated_share_is_logged_and_summed_up(tmp_path, processor):
    trainer = make_trainer(
        tmp_path, train_dataset=make_dataset(8, annotated=2), processing_class=processor, logging_steps=2
    )
    trainer.train()
    (entry,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert entry["annotated"] == 0.25
    assert trainer.annotated_share() == 0.25


def test_config_names_method_versions_and_classes(trained, tmp_path):
    trained.save_model(str(tmp_path / "saved"))
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["sage"]["guidance"] == "sage"
    assert config["sage"]["degradation"] == trained.args.degradation
    assert set(config["sage"]["versions"]) == {"sage_hf", "transformers", "torch"}
    assert list(config["id2label"].values()) == CLASSES


def test_config_names_a_callable_of_the_users_own(tmp_path):
    trainer = make_trainer(tmp_path, objective=SageObjective(degradation=blacken, margin=0.7), guidance="none")
    settings = trainer.model.config.sage
    assert settings["guidance"] == "sage"
    assert settings["degradation"] == f"{__name__}.blacken"
    assert settings["margin"] == 0.7
    assert (
        SageTrainer(
            make_model("vit"), SageTrainingArguments(str(tmp_path), guidance="none", use_cpu=True)
        ).guidance_objective
        is None
    )


def blacken(pixel_values, generator):
    return torch.zeros_like(pixel_values)


def test_checkpoint_has_no_pickle_and_no_token(tmp_path, dataset, processor):
    trainer = make_trainer(
        tmp_path, train_dataset=dataset, processing_class=processor, hub_token="hf_secretsecret", hub_model_id="me/it"
    )
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "training_args.json",
        "run.json",
        "README.md",
    }
    for path in (tmp_path / "run").iterdir():
        content = path.read_bytes()
        assert b"hf_secretsecret" not in content, path
        assert str(tmp_path).encode() not in content, path


def test_card_that_a_person_edited_is_left_alone(trained, tmp_path):
    trained.create_model_card(metrics={"test": {"accuracy": 0.5}})
    card = tmp_path / "run" / "README.md"
    assert "| test | 0.5000 |" in card.read_text()
    trained.create_model_card(metrics={"test": {"accuracy": 0.75}})
    assert "| test | 0.7500 |" in card.read_text()
    card.write_text("My own words.")
    trained.create_model_card()
    assert card.read_text() == "My own words."


def test_persistent_workers_evaluate_the_dataset_they_are_given(tmp_path, dataset, processor):
    trainer = make_trainer(
        tmp_path,
        train_dataset=dataset,
        eval_dataset=make_dataset(6),
        processing_class=processor,
        dataloader_num_workers=1,
        dataloader_persistent_workers=True,
    )
    small, large = make_dataset(rows=make_rows(2)), make_dataset(rows=make_rows(9))
    losses = [trainer.evaluate(split)["eval_loss"] for split in (small, large, small)]
    assert losses[0] == losses[2] != losses[1]


def test_best_checkpoint_of_a_resumed_run_is_found(tmp_path, dataset, processor):
    settings = {
        "train_dataset": dataset,
        "eval_dataset": dataset,
        "processing_class": processor,
        "save_strategy": "steps",
        "save_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "metric_for_best_model": "earliness",
        "greater_is_better": True,
        "load_best_model_at_end": True,
    }
    ranks = iter([0.9, 0.8, 0.1, 0.1])
    trainer = make_trainer(tmp_path, compute_metrics=lambda _: {"earliness": next(ranks)}, **settings)
    trainer.train()
    saved = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    assert saved["best_model_checkpoint"] == "checkpoint-1"
    resumed = make_trainer(
        tmp_path, compute_metrics=lambda _: {"earliness": next(ranks)}, num_train_epochs=2, **settings
    )
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.best_model_checkpoint == str(tmp_path / "run" / "checkpoint-1")
    best = type(resumed.model).from_pretrained(tmp_path / "run" / "checkpoint-1")
    for parameter, other in zip(resumed.model.parameters(), best.parameters(), strict=True):
        assert torch.equal(parameter, other)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_resuming_gives_the_same_weights(tmp_path, dataset, processor, kind, step):
    settings = {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 2, "horizontal_flip": 0.5, "kind": kind}
    whole = make_trainer(tmp_path / "a", train_dataset=dataset, processing_class=processor, **settings)
    whole.train()
    resumed = make_trainer(tmp_path / "b", train_dataset=dataset, processing_class=processor, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "run" / f"checkpoint-{step}"))
    for (name, parameter), other in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(parameter, other), name


def test_best_model_is_loaded_whole(tmp_path, dataset, processor):
    evaluations = itertools.count(1)
    trainer = make_trainer(
        tmp_path,
        train_dataset=dataset,
        eval_dataset=dataset,
        processing_class=processor,
        compute_metrics=lambda prediction: {"earliness": 1 / next(evaluations)},  # so that the first is the best
        metric_for_best_model="earliness",
        greater_is_better=True,
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
    )
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1")
    best, last = (type(trainer.model).from_pretrained(tmp_path / "run" / f"checkpoint-{step}") for step in (1, 2))
    assert any(not torch.equal(*pair) for pair in zip(best.parameters(), last.parameters(), strict=True))
    for (name, parameter), other in zip(trainer.model.named_parameters(), best.parameters(), strict=True):
        assert torch.equal(parameter, other), name


def test_streams_train(tmp_path, processor):
    trainer = make_trainer(
        tmp_path, train_dataset=make_dataset(8).to_iterable_dataset(), processing_class=processor, max_steps=2
    )
    trainer.train()
    (first, _) = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert first["annotated"] == 1.0


def test_class_names_in_another_order_are_translated(tmp_path, dataset, processor):
    model = make_model("vit")
    model.config.id2label = dict(enumerate(reversed(CLASSES)))
    model.config.label2id = {name: index for index, name in model.config.id2label.items()}
    trainer = make_trainer(tmp_path, model=model, train_dataset=dataset, processing_class=processor)
    read = [row["labels"] for row in trainer.train_dataset]
    assert [model.config.id2label[label] for label in read] == [CLASSES[label] for label in dataset["label"]]


def test_class_names_as_strings_are_looked_up(tmp_path, processor):
    rows = make_rows(4)
    dataset = make_dataset(rows=rows).cast_column("label", make_dataset(1).features["label"])
    names = dataset.features["label"].names
    strings = dataset.remove_columns("label").add_column("label", [names[row["label"]] for row in rows])
    model = make_model("vit")
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {n: i for i, n in enumerate(names)}
    trainer = make_trainer(tmp_path, model=model, train_dataset=strings, processing_class=processor)
    assert [trainer.train_dataset[index]["labels"] for index in range(4)] == [0, 1, 2, 0]


# ---- Bad input, before training starts ----


def test_output_folder_with_another_run_is_refused(trained, dataset, processor, tmp_path):
    trained.train()  # the same trainer may go on
    trained.save_model()
    again = make_trainer(tmp_path, train_dataset=dataset, processing_class=processor)
    with pytest.raises(FileExistsError, match=r"already holds a run \(config\.json, model\.safetensors\)"):
        again.train()
    # A checkpoint of another run is no reason to overwrite this one.
    elsewhere = make_trainer(
        tmp_path / "b", train_dataset=dataset, processing_class=processor, save_strategy="steps", save_steps=1
    )
    elsewhere.train()
    with pytest.raises(FileExistsError, match="already holds a run"):
        again.train(resume_from_checkpoint=str(tmp_path / "b" / "run" / "checkpoint-1"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"degradation": "smear"}, "Unknown degradation 'smear'. Choose one of blur, noise, mean, shuffle"),
        ({"guidance": "saga"}, "Unknown guidance 'saga'. Choose one of none, sage"),
        ({"view_forward": "both"}, "Unknown view_forward 'both'"),
        ({"guidance_interval": 0}, "guidance_interval must be 1 or more"),
        ({"save_on_each_node": True}, "without weights on all machines but the first"),
        ({"random_crop_scale": 1.5}, "random_crop_scale must be above 0"),
        ({"horizontal_flip": -0.1}, "horizontal_flip is a probability"),
        ({"color_jitter": 1.0}, "color_jitter must be"),
        ({"check_rows": -2}, "check_rows must be"),
        ({"margin": -1.0}, "margin must be"),
        ({"degradation": blacken}, r"pass SageTrainer\(objective="),
        ({"per_device_train_batch_size": 1}, "per_device_train_batch_size=1 is too small"),
    ],
)
def test_bad_settings_are_explained(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **settings)


def test_what_does_not_go_together_is_explained(tmp_path, dataset):
    with pytest.raises(TypeError, match="args must be SageTrainingArguments"):
        SageTrainer(make_model("vit"), TrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    args = SageTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ValueError, match="needs a model, or a model_init"):
        SageTrainer(args=args)
    with pytest.raises(ValueError, match="pass the checkpoint's image processor as processing_class"):
        SageTrainer(make_model("vit"), args, train_dataset=dataset)
    model = make_model("vit")
    model.config.problem_type = "multi_label_classification"
    with pytest.raises(ValueError, match=r"objective is for .*single_label.*the model for .*multi_label"):
        SageTrainer(model, args, objective=SageObjective())
    with pytest.raises(ValueError, match=r"class_weights has 2 numbers, the model 3 labels"):
        make_trainer(tmp_path, class_weights=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"class_weights must be 'balanced' or numbers above 0, got 1.0 -1.0 2"):
        make_trainer(tmp_path, class_weights=[1.0, -1.0, 2])


def test_the_best_checkpoint_survives_a_resumption_that_saves_nothing_more(tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    settings |= {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    whole = make_trainer(tmp_path, train_dataset=Rows(), eval_dataset=Rows(), max_steps=4, **settings)
    whole.train()
    assert whole.state.best_global_step == 1  # the loss falls, and the greatest is taken for the best
    again = make_trainer(tmp_path, train_dataset=Rows(), eval_dataset=Rows(), max_steps=4, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert str(again.state.best_model_checkpoint).endswith("checkpoint-1")
    for (name, one), other in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_resuming_from_the_hub_while_offline_is_refused(tmp_path, dataset, processor, capsys):
    trainer = make_trainer(tmp_path, train_dataset=dataset, processing_class=processor)
    with pytest.raises(ValueError, match=r"no such folder here, and the Hub is not asked \(HF_HUB_OFFLINE is set"):
        trainer.train(resume_from_checkpoint="me/elsewhere")
    command = ["train", "--model", "m", "--dataset", "d", "--output_dir", str(tmp_path / "run"), "--use_cpu"]
    assert main([*command, "--resume_from_checkpoint", "me/elsewhere"]) == 1
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
