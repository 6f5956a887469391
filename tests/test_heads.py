import pytest
import torch
import transformers
from transformers import AutoModel, AutoModelForImageClassification

from sage_hf import SageTrainer, find_classification_heads, load_image_classifier
from sage_hf.heads import BackboneClassifier
from tests.conftest import Rows, make_args

VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
CONVNEXT = {"image_size": 32, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
BACKBONES = {
    "DINOv3ViTModel": VIT,
    "DINOv3ConvNextModel": CONVNEXT,
    "CLIPVisionModel": VIT,
    "SiglipVisionModel": VIT,
    "PixioModel": VIT,
}


def make_backbone(name, settings):
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    return kind(kind.config_class(**settings)).eval()


@pytest.fixture(params=BACKBONES)
def backbone(request):
    return make_backbone(request.param, BACKBONES[request.param])


def trainer_for(model, folder, **settings):
    args = make_args(folder, **settings)
    return SageTrainer(model, args, train_dataset=Rows())


def test_a_backbone_gets_a_head_and_keeps_its_weights(backbone, tmp_path):
    backbone.save_pretrained(tmp_path)
    model = load_image_classifier(tmp_path, num_labels=3).eval()
    assert isinstance(model, BackboneClassifier)
    assert find_classification_heads(model) == ["classifier"]
    x = torch.randn(2, 3, 32, 32)
    pooled = backbone(x).pooler_output.flatten(1)
    torch.testing.assert_close(model(x).logits, pooled @ model.classifier.weight.T + model.classifier.bias)


def test_it_trains_and_is_saved_as_the_backbone_with_a_head_beside(backbone, tmp_path):
    backbone.save_pretrained(tmp_path / "backbone")
    model = load_image_classifier(tmp_path / "backbone", num_labels=3)
    trainer = trainer_for(model, tmp_path / "run", save_steps=2)
    trainer.train()
    trainer.save_model()
    x = torch.randn(2, 3, 32, 32)
    expected = model.eval()(x).logits

    reloaded = load_image_classifier(tmp_path / "run").eval()
    torch.testing.assert_close(reloaded(x).logits, expected, rtol=0, atol=0)
    assert reloaded.config.sage["guidance"] == "sage"
    plain = AutoModel.from_pretrained(tmp_path / "run").eval()
    assert type(plain) is type(backbone)
    torch.testing.assert_close(plain(x).last_hidden_state, model.backbone(x).last_hidden_state, rtol=0, atol=0)
    assert not torch.equal(plain(x).last_hidden_state, backbone(x).last_hidden_state)

    # Resumed from half-way, in a model loaded anew, it ends where the uninterrupted run ended.
    again = trainer_for(load_image_classifier(tmp_path / "backbone", num_labels=3), tmp_path / "run")
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    torch.testing.assert_close(again.model.eval()(x).logits, expected, rtol=0, atol=0)
    card = tmp_path / "run" / "README.md"
    trainer.create_model_card()
    assert 'load_image_classifier("run")' in card.read_text()


@pytest.mark.parametrize(
    ("name", "settings"),
    [("Dinov2Model", VIT), ("ViTModel", VIT), ("IJepaModel", VIT), ("CLIPModel", {"vision_config": VIT})],
)
def test_transformers_own_classifier_is_taken_where_there_is_one(name, settings, tmp_path):
    make_backbone(name, settings).save_pretrained(tmp_path)
    torch.manual_seed(0)
    model = load_image_classifier(tmp_path, num_labels=3)
    torch.manual_seed(0)
    expected = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=3)
    assert type(model) is type(expected)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.eval()(x).logits, expected.eval()(x).logits)


def test_a_backbone_that_hides_patches_is_refused(tmp_path):
    make_backbone("ViTMAEModel", VIT).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"hides patches of its pictures at random.*ViTForImageClassification"):
        load_image_classifier(tmp_path, num_labels=3)
    # What the message advises keeps the weights.
    assert transformers.ViTForImageClassification.from_pretrained(tmp_path, num_labels=3) is not None


def test_a_text_model_is_refused(tmp_path):
    transformers.BertConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="type 'bert' don't classify pictures"):
        load_image_classifier(tmp_path)


def test_a_model_without_a_head_is_told_where_to_get_one(tmp_path):
    with pytest.raises(ValueError, match=r"load_image_classifier"):
        trainer_for(make_backbone("DINOv3ViTModel", VIT), tmp_path)


def test_hub_arguments_reach_the_weights(backbone, tmp_path):
    backbone.save_pretrained(tmp_path / "inner")
    model = load_image_classifier(tmp_path, subfolder="inner", local_files_only=True, num_labels=3)
    assert model.config.num_labels == 3
