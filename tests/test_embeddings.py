import pytest
import torch
from torch import nn
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

from sage_hf import EmbeddingCapture, find_classification_heads
from sage_hf.embeddings import release_captures


def test_embedding_times_head_weights_is_the_logits(model, batch):
    capture = EmbeddingCapture(model.eval())
    logits = model(batch["pixel_values"]).logits
    embedding = capture.take()
    head = model.get_submodule(capture.layers[0])
    assert embedding.shape == (4, head.in_features)
    torch.testing.assert_close(embedding @ head.weight.T + head.bias, logits)


def test_layer_inside_the_backbone_with_as_many_outputs_is_no_candidate():
    from tests.conftest import make_model

    model = make_model("vit", num_labels=16)  # the hidden size, so every projection has 16 outputs
    assert find_classification_heads(model) == ["classifier"]


def test_two_heads_are_both_embedded_or_can_be_named():
    config = DeiTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, num_labels=3
    )
    model = DeiTForImageClassificationWithTeacher(config)
    assert find_classification_heads(model) == ["cls_classifier", "distillation_classifier"]
    capture, pictures = EmbeddingCapture(model.eval()), torch.randn(2, 3, 32, 32)
    logits, embedding = model(pictures).logits, capture.take()
    # Independently: the model averages what its two heads make of its first two tokens.
    torch.testing.assert_close(embedding, model.deit(pictures).last_hidden_state[:, :2].flatten(1))
    weights = torch.cat([head.weight for head in (model.cls_classifier, model.distillation_classifier)], dim=1)
    biases = model.cls_classifier.bias + model.distillation_classifier.bias
    torch.testing.assert_close((embedding @ weights.T + biases) / 2, logits)
    assert find_classification_heads(model, "cls_classifier") == ["cls_classifier"]


def test_no_head_is_reported_with_what_was_found(model):
    model.config.num_labels = 77
    with pytest.raises(
        ValueError, match=r"num_labels=77 outputs as its head, found 0: none.*load_image_classifier.*\(3 outputs\)"
    ):
        find_classification_heads(model)


def test_unknown_name_is_reported_with_the_layers(model):
    with pytest.raises(ValueError, match=r"embedding_layer='head' is not a layer.*'classifier"):
        find_classification_heads(model, "head")


def test_model_without_config_needs_a_name():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(ValueError, match=r"has no `config\.num_labels`"):
        find_classification_heads(model)
    capture = EmbeddingCapture(model, "1")
    model(torch.ones(2, 3, 2, 2))
    assert capture.take().shape == (2, 12)


def test_embedding_is_given_once_and_keeps_no_graph(model, batch):
    capture = EmbeddingCapture(model)
    model(batch["pixel_values"])
    capture.take()
    with pytest.raises(RuntimeError, match="did not run"):
        capture.take()


def test_removed_capture_sees_nothing(model, batch):
    capture = EmbeddingCapture(model)
    capture.remove()
    model(batch["pixel_values"])
    with pytest.raises(RuntimeError, match="did not run"):
        capture.take()


def test_layers_of_a_model_without_a_named_backbone_are_not_taken_for_heads():
    from transformers import HGNetV2Config, HGNetV2ForImageClassification

    model = HGNetV2ForImageClassification(HGNetV2Config(num_labels=128))
    with pytest.raises(ValueError, match=r"found 2: 'encoder\.stages.*', 'fc'"):
        find_classification_heads(model)
    assert find_classification_heads(model, "fc") == ["fc"]


def test_a_captured_model_can_be_pickled(model, batch, tmp_path):
    capture = EmbeddingCapture(model)
    torch.save(model, tmp_path / "model.pt")
    copied = torch.load(tmp_path / "model.pt", weights_only=False)
    torch.testing.assert_close(copied.eval()(batch["pixel_values"]).logits, model.eval()(batch["pixel_values"]).logits)
    capture.remove()


def test_captures_are_released(model, batch):
    capture = EmbeddingCapture(model)
    release_captures(model)
    model(batch["pixel_values"])
    with pytest.raises(RuntimeError, match="did not run"):
        capture.take()
