import pytest
import torch
from torch import nn

from sage_hf import SageTrainer
from sage_hf.features import FeatureCapture
from sage_hf.models import logits_of
from tests.conftest import make_args, make_model
from tests.models.architectures import make_classifier


def captured(model, pictures):
    """Features as the capture gives them, laid out, and the model's own output with its hidden states."""
    capture = FeatureCapture(model, lambda inputs: logits_of(model(**inputs)), {"pixel_values": pictures[:2]})
    capture.start()
    output = model(pixel_values=pictures, output_hidden_states=True)
    features = capture.take()
    capture.remove()
    return capture.grid.maps(features), output.hidden_states


def pictures():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["resnet", "convnext"])
def test_convolutional_networks_give_what_they_pool(kind):
    found, hidden = captured(make_model(kind).train(), pictures())
    torch.testing.assert_close(found, hidden[-1])


def test_a_vit_gives_what_enters_its_last_block():
    model = make_model("vit")
    model.set_attn_implementation("eager")
    found, hidden = captured(model, pictures())
    expected = hidden[-2][:, 1:].transpose(1, 2).reshape(3, 16, 4, 4)  # without the class token
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("kind", "name"), [("swin", "Swin"), ("segformer", "Segformer"), ("ijepa", "IJepa")])
def test_fused_attention_before_the_features_does_not_matter(kind, name):
    model = make_classifier(kind, f"{name}ForImageClassification")
    found, _ = captured(model.eval(), torch.randn(3, 3, 64, 64) if kind == "segformer" else pictures())
    assert found.ndim == 4
    assert found.requires_grad


def test_fused_attention_after_the_features_is_named():
    with pytest.raises(ValueError, match=r'fused kernel.*attn_implementation="eager"'):
        captured(make_model("vit"), pictures())


@pytest.mark.parametrize("guidance", ["cyborg", "gradient"])
def test_what_has_no_second_derivative_is_named(tmp_path, batch, guidance):
    model = make_classifier("pp_lcnet", "PPLCNetForImageClassification")
    trainer = SageTrainer(model, make_args(tmp_path, guidance=guidance))
    with pytest.raises(ValueError, match=r"PPLCNet.*an operation that.*hardsigmoid.*Use another guidance"):
        trainer.compute_loss(model.train(), batch)


def test_a_model_that_flattens_first_has_no_features():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(ValueError, match="Sequential has no features with a place in the picture"):
        FeatureCapture(model, lambda inputs: model(inputs["pixel_values"]), {"pixel_values": pictures()})


def test_finding_leaves_the_model_and_the_random_state_as_they_were():
    model = make_model("resnet").train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    state = torch.get_rng_state()
    inputs = {"pixel_values": pictures()}
    capture = FeatureCapture(model, lambda some: logits_of(model(**some)), inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    model(**inputs)  # not asked for
    with pytest.raises(RuntimeError, match="did not run"):
        capture.take()
    capture.remove()


def test_a_layer_that_is_called_twice_is_taken_at_the_right_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 2, stride=2)
            self.shared = nn.Conv2d(4, 4, 1)
            self.head = nn.Linear(4, 3)

        def forward(self, pixel_values):
            self.last = self.shared(self.shared(self.stem(pixel_values)))
            return self.head(self.last.mean(dim=(2, 3)))

    model = Twice()
    capture = FeatureCapture(model, lambda inputs: model(**inputs), {"pixel_values": pictures()})
    capture.start()
    model(pictures())
    assert capture.take() is model.last
