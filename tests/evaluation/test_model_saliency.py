import copy

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam, Saliency
from torch import nn

from sage_hf.cli.models import architectures
from sage_hf.evaluation import model_saliency
from sage_hf.features import Grid, find_grid
from tests.conftest import SIZE, make_model
from tests.models.architectures import CLASSES, SIZES, make_classifier

TARGETS = torch.tensor([0, 2, 1, 0])


@pytest.fixture
def pictures(batch):
    return batch["pixel_values"]


class Logits(nn.Module):
    """What captum takes: a module that returns logits."""

    def __init__(self, model):
        super().__init__()
        self.model = model.eval()

    def forward(self, pixel_values):
        return self.model(pixel_values=pixel_values).logits


def normalised(maps):
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(largest > 0, maps / largest, 0)


def enlarged(maps):
    return F.interpolate(maps.unsqueeze(1), (SIZE, SIZE), mode="bilinear").squeeze(1)


def test_gradient_is_captums(model, pictures):
    expected = Saliency(Logits(model)).attribute(pictures.clone().requires_grad_(), TARGETS, abs=True).sum(dim=1)
    torch.testing.assert_close(model_saliency(model, pictures, TARGETS, "gradient"), normalised(expected))


@pytest.mark.parametrize(
    ("kind", "layer"), [("convnext", "convnext.encoder.stages.1"), ("resnet", "resnet.encoder.stages.1")]
)
def test_cam_is_captums(kind, layer, pictures):
    model = make_model(kind)
    logits = Logits(model)
    cam = LayerGradCam(logits, model.get_submodule(layer)).attribute(pictures, TARGETS, relu_attributions=True)
    expected = normalised(enlarged(cam.detach().squeeze(1)))
    torch.testing.assert_close(model_saliency(model, pictures, TARGETS), expected)


def test_cam_of_tokens_is_captums(pictures):
    """What enters the last block of a ViT, whose class token alone goes on: the tokens laid out by hand."""
    model = make_model("vit")
    logits, weights, features = Logits(model), {}, {}

    def keep(module, args, output):
        features["tokens"] = output
        output.register_hook(lambda gradient: weights.update(tokens=gradient))

    handle = model.vit.layers[0].register_forward_hook(keep)
    chosen = logits(pictures)[torch.arange(4), TARGETS]
    chosen.sum().backward()
    handle.remove()
    for row in range(4):
        mean = sum(weights["tokens"][row, 1 + token] for token in range(16)) / 16
        cam = torch.stack([(mean * features["tokens"][row, 1 + token]).sum() for token in range(16)]).view(1, 4, 4)
        expected = normalised(enlarged(cam.detach().relu()))
        torch.testing.assert_close(model_saliency(model, pictures, TARGETS)[row], expected[0])
    assert all(parameter.grad is not None for parameter in model.classifier.parameters())  # by this test alone


def test_cam_of_a_linear_head_is_zhous(pictures):
    """Global average pooling, then one linear layer: the head's weights on the features themselves."""
    model = make_model("resnet").eval()
    with torch.no_grad():
        features = model.resnet(pictures).last_hidden_state
        weights = model.classifier[1].weight[TARGETS]
        cam = torch.einsum("nc,nchw->nhw", weights, features)
    expected = normalised(enlarged(cam.relu()))
    torch.testing.assert_close(model_saliency(model, pictures, TARGETS), expected)


def test_a_model_in_half_precision(pictures):
    model = make_model("resnet").eval()
    expected = model_saliency(model, pictures, TARGETS)
    found = model_saliency(model.bfloat16(), pictures, TARGETS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1)


def test_the_predicted_class_is_the_default(model, pictures):
    predicted = Logits(model)(pictures).argmax(dim=1)
    for method in ("cam", "gradient"):
        assert torch.equal(
            model_saliency(model, pictures, method=method), model_saliency(model, pictures, predicted, method)
        )


@pytest.mark.parametrize("method", ["cam", "gradient"])
def test_rows_do_not_depend_on_each_other(model, pictures, method):
    together = model_saliency(model, pictures, TARGETS, method)
    assert together.shape == (4, SIZE, SIZE)
    for row in range(4):
        alone = model_saliency(model, pictures[row : row + 1], TARGETS[row : row + 1], method)
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["cam", "gradient"])
def test_the_model_is_left_as_it_was(model, pictures, method):
    model.train()
    model.get_submodule("classifier").eval()
    model.classifier.requires_grad_(False)
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    state = torch.get_rng_state()
    with torch.inference_mode():
        found = model_saliency(model, pictures, method=method)
    assert not found.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert pictures.grad is None


def test_nothing_positive_is_nowhere(pictures):
    model = make_model("resnet")
    with torch.no_grad():
        model.classifier[1].weight[0] = -1.0  # features are not negative, so nothing speaks for this class
    found = model_saliency(model, pictures, torch.zeros(4, dtype=torch.int64))
    assert torch.equal(found, torch.zeros(4, SIZE, SIZE))


def test_a_module_of_ones_own(pictures):
    own = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    cam = LayerGradCam(own, own[1]).attribute(pictures, TARGETS, relu_attributions=True)
    expected = normalised(enlarged(cam.detach().squeeze(1)))
    torch.testing.assert_close(model_saliency(own, pictures, TARGETS), expected)


def test_errors(model, pictures):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 3))
    with pytest.raises(ValueError, match="Sequential has no features with a place in the picture"):
        model_saliency(flat, pictures)
    assert model_saliency(flat, pictures, method="gradient").amax() == 1
    with pytest.raises(ValueError, match="Choose one of cam, gradient"):
        model_saliency(model, pictures, method="lime")
    with pytest.raises(ValueError, match=r"4 class indices in \[0, 2\]"):
        model_saliency(model, pictures, torch.tensor([0, 1, 2, 3]))


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((2, 512, 7, 7), (224, 224), Grid("chw", 7, 7, 0)),
        ((2, 7, 7, 512), (224, 224), Grid("hwc", 7, 7, 0)),
        ((2, 64, 6, 8), (48, 64), Grid("chw", 6, 8, 0)),
        ((2, 49, 512), (224, 224), Grid("nc", 7, 7, 0)),
        ((2, 198, 384), (224, 224), Grid("nc", 14, 14, 2)),
        ((2, 261, 384), (224, 224), Grid("nc", 16, 16, 5)),  # DINOv2's patches of 14 pixels, with registers
        ((2, 49, 384), (48, 64), Grid("nc", 6, 8, 1)),
        ((2, 7, 10, 96), (224, 300), Grid("hwc", 7, 10, 0)),  # 300 / 32, filled up
        ((2, 4, 15, 15), (32, 32), Grid("chw", 15, 15, 0)),
        ((2, 16, 17, 7), (48, 64), None),
        ((2, 512, 1, 1), (224, 224), None),
        ((2, 1, 512), (224, 224), None),
        ((2, 512, 1024), (224, 224), None),  # Perceiver's latents
        ((8, 49, 512), (224, 224), None),  # windows
        ((2, 768), (224, 224), None),
    ],
)
def test_grids(shape, size, expected):
    assert find_grid(torch.Size(shape), 2, *size) == expected


# Latents and tokens in windows can't be told from places by their number, in models as tiny as these.
NOT_TINY = {"perceiver": {"num_latents": 3}, "hiera": {"masked_unit_size": [2, 2]}}


CLASSIFIERS = [
    (row["architecture"], name)
    for row in architectures()
    if row["works"] and row["architecture"] != "timm_wrapper"  # for which timm may be missing
    for name in CLASSES[row["architecture"]]
]


@pytest.mark.parametrize(("kind", "name"), CLASSIFIERS)
def test_every_architecture(kind, name, monkeypatch):
    """Maps of pictures that the model never saw, in every shape that features take."""
    from tests.models import architectures as tiny

    monkeypatch.setitem(tiny.CONFIGS, kind, tiny.CONFIGS[kind] | NOT_TINY.get(kind, {}))
    model = make_classifier(kind, name)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # as drawn, some are too small for float32 to tell pictures apart
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5, generator=generator)
    size = SIZES.get(kind, 32)
    pictures = torch.randn(4, 3, size, size, generator=generator)
    for method in ("cam", "gradient"):
        found = model_saliency(model, pictures, method=method)
        assert found.shape == (4, size, size)
        assert found.isfinite().all()
        assert found.min() >= 0
        assert set(found.amax(dim=(1, 2)).tolist()) <= {0.0, 1.0}
        assert found.any()
