"""Modules that are not of transformers: any that takes pictures first and returns logits."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.models import logits_of
from tests.conftest import CLASSES, Rows, make_args, make_dataset


class Network(nn.Module):
    """Calls its pictures `x`, and answers in one of the forms that people use."""

    def __init__(self, form="tensor"):
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        logits = self.head(self.body(x))
        return {"tensor": logits, "tuple": (logits, x), "dict": {"logits": logits, "other": x}}[self.form]


def make_trainer(folder, model, dataset=None, **settings):
    args = make_args(folder, **{"embedding_layer": "head"} | settings)
    return SageTrainer(model, args, train_dataset=Rows() if dataset is None else dataset)


def test_every_form_of_answer_trains_alike(tmp_path):
    weights = []
    for form in ("tensor", "tuple", "dict"):
        model = Network(form)
        trainer = make_trainer(tmp_path / form, model, save_strategy="no", logging_steps=1)
        trainer.train()
        assert all("triplet" in entry for entry in trainer.state.log_history if "loss" in entry)
        weights.append(model.head.weight)
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], Network().head.weight)


def test_checkpoint_holds_weights_classes_and_settings_and_can_be_resumed(tmp_path, processor):
    model = Network()
    args = {"save_steps": 2, "per_device_train_batch_size": 4}
    trainer = SageTrainer(
        model,
        SageTrainingArguments(
            output_dir=str(tmp_path / "run"),
            max_steps=4,
            embedding_layer="head",
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            **args,
        ),
        train_dataset=make_dataset(8),
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert list(config["id2label"].values()) == CLASSES
    assert config["sage"]["guidance"] == "sage"
    assert config["architectures"] == ["Network"]
    fresh = Network()
    fresh.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"))
    assert torch.equal(fresh.head.weight, model.head.weight)
    trainer.create_model_card()
    assert "PyTorch module of its author's own" in (tmp_path / "run" / "README.md").read_text()

    again = SageTrainer(Network(), trainer.args, train_dataset=make_dataset(8), processing_class=processor)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert torch.equal(again.model.head.weight, model.head.weight)


def test_the_head_must_be_named(tmp_path):
    with pytest.raises(ValueError, match=r"Network has no `config.num_labels`.*'head' \(3 outputs\)"):
        make_trainer(tmp_path, Network(), embedding_layer=None)
    with pytest.raises(ValueError, match=r"should name a linear layer or a 1x1 convolution, got Sequential"):
        make_trainer(tmp_path, Network(), embedding_layer="body")


def test_labels_beyond_the_head_are_reported(tmp_path, processor):
    model = Network()
    model.head = nn.Linear(8, 2)
    with pytest.raises(ValueError, match=r"'miner' is not one of the model's|outside the head's range"):
        SageTrainer(
            model,
            SageTrainingArguments(output_dir=str(tmp_path), embedding_layer="head", use_cpu=True, report_to="none"),
            train_dataset=make_dataset(6),
            processing_class=processor,
        )


@pytest.mark.parametrize("output", [None, {"scores": torch.zeros(2, 3)}, torch.zeros(2, 3, 4), (torch.zeros(2),)])
def test_an_answer_without_logits_is_reported(output):
    with pytest.raises(TypeError, match="without logits"):
        logits_of(output)


def test_labels_are_smoothed_without_a_config(tmp_path):
    model, rows = Network(), [Rows()[index] for index in range(4)]
    trainer = make_trainer(tmp_path, model, label_smoothing_factor=0.2, guidance="none")
    batch = trainer.data_collator(rows)
    expected = nn.functional.cross_entropy(model(batch["pixel_values"]), batch["labels"], label_smoothing=0.2)
    torch.testing.assert_close(trainer.compute_loss(model.train(), batch), expected)
    assert trainer.args.label_smoothing_factor == 0.2


def test_predictions_without_labels(tmp_path, processor):
    args = SageTrainingArguments(
        output_dir=str(tmp_path), embedding_layer="head", use_cpu=True, report_to="none", disable_tqdm=True
    )
    model = Network()
    trainer = SageTrainer(model, args, processing_class=processor)
    dataset = make_dataset(4)
    with_labels = trainer.predict(dataset)
    without = trainer.predict(dataset.remove_columns("label"))
    assert without.label_ids is None
    assert (without.predictions == with_labels.predictions).all()


def test_grey_modules_read_grey_pictures(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    grey = ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.5], image_std=[0.5])
    args = SageTrainingArguments(
        output_dir=str(tmp_path), embedding_layer="3", max_steps=1, save_strategy="no", use_cpu=True, disable_tqdm=True
    )
    SageTrainer(model, args, train_dataset=make_dataset(4), processing_class=grey).train()
