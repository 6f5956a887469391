"""LoRA by peft: trained, saved, resumed and merged as peft does."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from sage_hf import (
    EmbeddingCapture,
    SageTrainer,
    SageTrainingArguments,
    find_classification_heads,
    load_image_classifier,
)
from sage_hf.cli.model_options import add_adapters
from tests.conftest import CLASSES, Rows, make_args, make_dataset, make_model
from tests.models.architectures import make_classifier

# peft 0.21.2 asks for an attribute that transformers 5.23.0 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(params=["vit", "convnext"])
def base(request, tmp_path):
    """The folder of a base model with the classes of ImageNet's size, not ours."""
    make_model(request.param, num_labels=7).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def adapted(base):
    torch.manual_seed(0)
    return add_adapters(load_image_classifier(base, num_labels=3, ignore_mismatched_sizes=True), rank=4)


def make_trainer(model, folder, processor, **settings):
    args = make_args(folder, **settings)
    return SageTrainer(model, args, train_dataset=make_dataset(8), processing_class=processor)


def test_the_head_is_found_once_whichever_way_it_is_trained():
    model = make_model("vit")
    in_full = get_peft_model(model, LoraConfig(target_modules=["q_proj"], modules_to_save=["classifier"]))
    assert find_classification_heads(in_full) == ["base_model.model.classifier"]
    adapted_too = get_peft_model(make_model("vit"), LoraConfig(target_modules=["q_proj", "classifier"]))
    assert find_classification_heads(adapted_too) == ["base_model.model.classifier"]
    x = torch.randn(2, 3, 32, 32)
    for peft_model in (in_full, adapted_too):
        capture = EmbeddingCapture(peft_model.eval())
        peft_model(pixel_values=x)
        expected = peft_model.get_base_model().vit(x).last_hidden_state[:, 0]
        torch.testing.assert_close(capture.take(), expected)


def test_adapter_is_trained_saved_loaded_and_merged(base, tmp_path, processor):
    model = adapted(base)
    weights = {name: one.clone() for name, one in model.named_parameters() if not one.requires_grad}
    trainer = make_trainer(model, tmp_path / "run", processor)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    assert all(torch.equal(one, weights[name]) for name, one in model.named_parameters() if not one.requires_grad)
    files = {path.name for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert {"adapter_model.safetensors", "adapter_config.json", "sage_config.json", "README.md"} <= files
    assert not {"model.safetensors", "config.json"} & files
    tensors = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert all("lora_" in name or "classifier" in name for name in tensors)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "library_name: peft" in card
    assert ", ".join(CLASSES) in card

    x = torch.randn(2, 3, 32, 32)
    expected = model.eval()(pixel_values=x).logits
    loaded = load_image_classifier(tmp_path / "run").eval()
    torch.testing.assert_close(loaded(pixel_values=x).logits, expected)
    assert list(loaded.config.id2label.values()) == CLASSES
    by_hand = AutoModelForImageClassification.from_pretrained(base, num_labels=3, ignore_mismatched_sizes=True)
    by_hand = PeftModel.from_pretrained(by_hand, tmp_path / "run").eval()
    torch.testing.assert_close(by_hand(pixel_values=x).logits, expected)

    merged = loaded.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    plain = AutoModelForImageClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(plain(x).logits, expected, rtol=1e-4, atol=1e-5)
    assert list(plain.config.id2label.values()) == CLASSES


def test_a_resumed_adapter_ends_where_the_uninterrupted_one_does(base, tmp_path, processor):
    whole = make_trainer(adapted(base), tmp_path / "run", processor, save_steps=2)
    whole.train()
    again = make_trainer(adapted(base), tmp_path / "run", processor)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    for (name, one), other in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_saving_again_keeps_a_card_of_ones_own(base, tmp_path, processor):
    trainer = make_trainer(adapted(base), tmp_path / "run", processor, save_strategy="no")
    trainer.train()
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "README.md").write_text("My own words.\n")
    trainer.save_model()
    trainer.create_model_card()
    assert (tmp_path / "run" / "README.md").read_text() == "My own words.\n"


def test_a_model_without_linear_layers_is_reported():
    with pytest.raises(ValueError, match="adapts linear layers, and ResNetForImageClassification has none"):
        add_adapters(make_model("resnet"), rank=4)


def test_transformers_own_adapters_are_refused(tmp_path, processor):
    # Trainer can't resume from a checkpoint of theirs.
    model = make_model("vit")
    model.add_adapter(LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["classifier"]))
    with pytest.raises(ValueError, match=r"use peft.get_peft_model\(model, config\) in place of model.add_adapter"):
        make_trainer(model, tmp_path, processor)


def test_a_batch_without_maps_trains_adapters_too(base, tmp_path):
    args = SageTrainingArguments(
        output_dir=str(tmp_path), max_steps=1, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no"
    )
    SageTrainer(adapted(base), args, train_dataset=Rows(annotated=())).train()


@pytest.mark.parametrize(
    ("kind", "class_name"), [("levit", "LevitForImageClassification"), ("cvt", "CvtForImageClassification")]
)
def test_batch_normalisation_stays_as_the_base_model_has_it(kind, class_name, tmp_path, processor):
    make_classifier(kind, class_name).save_pretrained(tmp_path / "base")
    model = adapted(tmp_path / "base")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    trainer = make_trainer(model, tmp_path / "run", processor)
    trainer.train()
    trainer.save_model()
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    x = torch.randn(2, 3, 32, 32)
    loaded = load_image_classifier(tmp_path / "run").eval()
    torch.testing.assert_close(loaded(pixel_values=x).logits, model.eval()(pixel_values=x).logits)


def test_what_would_be_lost_is_refused(base, tmp_path, processor):
    plain = load_image_classifier(base, num_labels=3, ignore_mismatched_sizes=True)
    model = get_peft_model(plain, LoraConfig(target_modules="all-linear"))
    with pytest.raises(ValueError, match=r"does not save the head 'classifier'.*modules_to_save=\['classifier'\]"):
        make_trainer(model, tmp_path, processor)
    with pytest.raises(ValueError, match="freeze_backbone would freeze the adapters"):
        make_trainer(adapted(base), tmp_path, processor, freeze_backbone=True)


def test_a_named_head_is_found_inside_the_adapter(base, tmp_path, processor):
    trainer = make_trainer(adapted(base), tmp_path, processor, embedding_layer="classifier", save_strategy="no")
    trainer.train()


def test_the_adapter_notes_the_revision_of_its_base(base, tmp_path):
    model = add_adapters(load_image_classifier(base, num_labels=3, ignore_mismatched_sizes=True), 4, revision="v1.0")
    model.save_pretrained(tmp_path / "adapter")
    assert '"revision": "v1.0"' in (tmp_path / "adapter" / "adapter_config.json").read_text()


def test_training_goes_on_from_a_saved_adapter(base, tmp_path, processor):
    trainer = make_trainer(adapted(base), tmp_path / "run", processor, save_strategy="no")
    trainer.train()
    trainer.save_model()
    with pytest.raises(ValueError, match=r"No parameter of the model is trainable.*is_trainable=True"):
        make_trainer(load_image_classifier(tmp_path / "run"), tmp_path / "on", processor)
    model = load_image_classifier(tmp_path / "run", is_trainable=True)
    make_trainer(model, tmp_path / "on", processor, save_strategy="no").train()


def test_an_adapter_of_a_model_that_was_never_saved_says_so(tmp_path):
    add_adapters(make_model("vit"), 4).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not say what it was trained on"):
        load_image_classifier(tmp_path)
