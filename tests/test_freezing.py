import pytest
import torch
from torch import nn

from sage_hf import SageTrainer
from tests.conftest import Rows, make_args, make_model
from tests.models.architectures import make_classifier


def train(model, folder, **settings):
    args = make_args(folder, max_steps=3, learning_rate=0.1, freeze_backbone=True, save_strategy="no", **settings)
    trainer = SageTrainer(model, args, train_dataset=Rows())
    trainer.train()
    return trainer


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("make", "head"),
    [
        (lambda: make_model("vit"), ("classifier.",)),
        (lambda: make_model("resnet"), ("classifier.",)),  # batch normalisation
        (
            lambda: make_classifier("clip", "CLIPForImageClassification"),
            ("classifier.",),
        ),  # says nothing of a backbone
        (
            lambda: make_classifier("swiftformer", "SwiftFormerForImageClassification"),
            ("head.", "dist_head.", "norm."),
        ),
        (
            lambda: make_classifier("levit", "LevitForImageClassificationWithTeacher"),
            ("classifier.", "classifier_distill."),
        ),
    ],
)
def test_only_the_head_moves_and_running_statistics_stay(make, head, tmp_path):
    model = make()
    before = state(model)
    train(model, tmp_path)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.startswith(head) for name in moved), moved
    for name in head[: 1 + (len(head) == 2)]:
        assert any(one.startswith(name) and one.endswith("weight") for one in moved)


def test_frozen_layers_work_as_in_evaluation(tmp_path):
    model = make_model("vit")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    trainer = train(model, tmp_path)
    assert not model.vit.training
    assert model.classifier.training
    batch = {"pixel_values": torch.randn(4, 3, 32, 32), "labels": torch.tensor([0, 1, 2, 0])}
    model.train()
    assert trainer.compute_loss(model, batch) == trainer.compute_loss(model, batch)


def test_a_module_of_ones_own_is_frozen_but_for_its_head(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    before = state(model)
    train(model, tmp_path, embedding_layer="4")
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"4.weight", "4.bias"}


class Tokens(nn.Module):
    """Parameters beside the layers, as timm's vision transformers have them, and statistics without parameters."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 12))
        self.norm = nn.BatchNorm2d(3, affine=False)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.pool(self.norm(x)).flatten(1) + self.position)


def test_parameters_and_statistics_outside_of_layers_are_frozen_too(tmp_path):
    model = Tokens()
    before = state(model)
    train(model, tmp_path, embedding_layer="head")
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"head.weight", "head.bias"}
