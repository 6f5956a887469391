import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf import AlignedTransform, DataError, load_image_classifier
from sage_hf.viewing import Subject
from sage_hf.viewing.pictures import Painter
from sage_hf.viewing.subjects import subject_names
from tests.conftest import make_model


def test_a_model_is_left_as_it_was(processor, batch):
    model = make_model("vit").train()
    subject = Subject(model, processor, "vit")
    model.train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    subject.outputs(batch["pixel_values"])
    assert set(subject.looks(batch["pixel_values"])) == {"cam", "gradient"}
    assert model.training
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_folder_is_loaded_by_its_name(processor, batch, tmp_path):
    model = make_model("convnext").eval()
    model.save_pretrained(tmp_path / "run")
    processor.save_pretrained(tmp_path / "run")
    subject = Subject.load(tmp_path / "run", use_cpu=True)
    assert subject.name == "run"
    probabilities, embedding = subject.outputs(batch["pixel_values"])
    np.testing.assert_allclose(probabilities, model(batch["pixel_values"]).logits.softmax(1).detach(), atol=1e-6)
    assert embedding.shape == (4, 16)
    with pytest.raises(DataError, match="is not a folder"):
        Subject.load("./no/such/run")


def test_names_tell_models_apart(tmp_path):
    (tmp_path / "a" / "run").mkdir(parents=True)
    (tmp_path / "b" / "run").mkdir(parents=True)
    assert subject_names([tmp_path / "a" / "run"]) == ["run"]
    assert subject_names([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert subject_names(["me/model", tmp_path / "a" / "run"]) == ["me/model", "run"]
    assert subject_names(["me/model", "me/model"]) == ["me/model (1)", "me/model (2)"]


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessorPil(size={"height": 16, "width": 16}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]),
        ViTImageProcessorPil(size={"height": 16, "width": 16}, do_normalize=False),
        ViTImageProcessorPil(size={"height": 16, "width": 16}, do_rescale=False, do_normalize=False),
        # Divides by the deviation twice.
        EfficientNetImageProcessorPil(size={"height": 16, "width": 16}, image_std=[0.2, 0.3, 0.25]),
    ],
    ids=["normalised", "rescaled", "neither", "twice"],
)
def test_inputs_are_turned_back_into_the_picture(processor):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    transform = AlignedTransform(processor)
    drawn = Painter(transform)(transform({"image": Image.fromarray(pixels)})["pixel_values"])
    np.testing.assert_allclose(np.asarray(drawn).astype(int), pixels, atol=1)


def test_pictures_that_can_not_be_drawn():
    processor = ViTImageProcessorPil(image_mean=[0.5] * 5, image_std=[0.5] * 5)
    with pytest.raises(DataError, match="5 channels can't be drawn"):
        Painter(AlignedTransform(processor, num_channels=5))


# peft asks for an old name of the property (seen in 0.19.1).
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_predicts_what_it_did_before_it_was_saved(processor, batch, tmp_path):
    peft = pytest.importorskip("peft")
    make_model("vit").save_pretrained(tmp_path / "base")
    base = load_image_classifier(tmp_path / "base")
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"], init_lora_weights=False
    )
    adapted = peft.get_peft_model(base, config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    processor.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = adapted(batch["pixel_values"]).logits.softmax(dim=1)
    subject = Subject.load(tmp_path / "adapter", use_cpu=True)
    probabilities, embedding = subject.outputs(batch["pixel_values"])
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert embedding.shape == (4, 16)
    assert set(subject.looks(batch["pixel_values"])) == {"cam", "gradient"}
