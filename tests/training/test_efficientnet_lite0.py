"""The converted network against the reference implementation on the same weights."""

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from sage_hf import find_classification_heads
from tests.conftest import load_script, make_dataset
from tests.test_trainer import make_trainer


@pytest.fixture(scope="module")
def lite0():
    return load_script("efficientnet_lite0.py")


@pytest.fixture(scope="module")
def model(lite0):
    return lite0.efficientnet_lite0()


@torch.no_grad()
def test_logits_are_those_of_the_reference_network(lite0, model):
    from efficientnet_lite_pytorch import EfficientNet

    reference = EfficientNet.from_name("efficientnet-lite0")
    reference.load_state_dict(lite0.source_weights())
    x = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(x).logits, reference.eval()(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_it_is_really_pretrained(model, lite0):
    # The two photographs that scikit-learn ships: a Chinese temple and a flower.
    buildings = {442: "bell cote", 449: "boathouse", 483: "castle", 663: "monastery", 698: "palace", 832: "stupa"}
    from sklearn.datasets import load_sample_image

    top = {}
    for name in ("china.jpg", "flower.jpg"):
        inputs = lite0.image_processor()(images=load_sample_image(name), return_tensors="pt")
        top[name] = model(**inputs).logits[0].topk(5).indices.tolist()
    assert set(top["china.jpg"]) <= set(buildings)
    assert top["flower.jpg"][0] == 985  # daisy


def test_checkpoint_folder(lite0, model, tmp_path):
    model.save_pretrained(tmp_path)
    lite0.image_processor(96).save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    values = processor(images=torch.full((3, 120, 150), 255, dtype=torch.uint8).numpy(), return_tensors="pt")
    pixel_values = values["pixel_values"]
    assert pixel_values.shape == (1, 3, 96, 96)
    torch.testing.assert_close(
        pixel_values, torch.full_like(pixel_values, 1.0), rtol=0, atol=1e-6
    )  # (255 - 127) / 128
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixel_values).logits, model(pixel_values).logits)


def test_gates_stay_open_in_training_even_if_they_are_not_frozen(lite0, model, tmp_path):
    model.save_pretrained(tmp_path / "lite0")
    loaded = AutoModelForImageClassification.from_pretrained(
        tmp_path / "lite0", num_labels=3, ignore_mismatched_sizes=True
    )
    assert find_classification_heads(loaded) == ["classifier"]
    gates = {name: p.detach().clone() for name, p in loaded.named_parameters() if ".squeeze_excite." in name}
    assert len(gates) == 4 * 16
    trainer = make_trainer(
        tmp_path,
        model=loaded,
        train_dataset=make_dataset(4),
        processing_class=lite0.image_processor(64),
        weight_decay=0.1,
        max_steps=2,
    )
    trainer.train()
    for name, before in gates.items():
        assert torch.equal(loaded.get_parameter(name), before), name
