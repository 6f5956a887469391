"""The penalty on input gradients against a network worked out in numpy, and against finite differences."""

import numpy as np
import pytest
import torch
from torch import nn

from sage_hf import SageTrainer
from sage_hf.objectives import Encoding, GradientObjective, GuidedRows, Source
from sage_hf.tasks import MULTI_LABEL, REGRESSION
from tests.conftest import make_args, make_model


class Perceptron(nn.Module):
    """Two layers over a picture of 2x3 pixels."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, pictures):
        return self.head(self.body(pictures.flatten(1)).relu())


def batch(labels):
    generator = torch.Generator().manual_seed(1)
    mask = torch.tensor([True, False, True, True])
    return {
        "pixel_values": torch.randn(4, 1, 2, 3, generator=generator, dtype=torch.float64),
        "saliency": torch.rand(4, 1, 2, 3, generator=generator, dtype=torch.float64) * mask.view(-1, 1, 1, 1),
        "saliency_mask": mask,
        "labels": labels,
    }


SINGLE = torch.tensor([0, 2, 1, 1])
SEVERAL = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]).double()


def numpy_penalty(model, pictures, saliency):
    """sum((irrelevant * d sum(log p) / dx)^2) of each row, back-propagated by hand as the published code does."""
    w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in model.parameters())
    penalties = []
    for x, s in zip(pictures.numpy().reshape(-1, 6), saliency.numpy().reshape(-1, 6), strict=True):
        hidden = w1 @ x + b1
        logits = w2 @ np.maximum(hidden, 0) + b2
        p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        by_logits = 1 - len(p) * p  # d sum_k log p_k / d logit_j
        by_x = w1.T @ ((w2.T @ by_logits) * (hidden > 0))
        penalties.append((((1 - s) * by_x) ** 2).sum())
    return np.array(penalties)


def loss_of(tmp_path, model, rows, **settings):
    trainer = SageTrainer(model, make_args(tmp_path, guidance="gradient", embedding_layer="head", **settings))
    return trainer.compute_loss(model.train(), rows)


def test_equals_the_penalty_worked_out_in_numpy(tmp_path):
    model, rows = Perceptron().double(), batch(SINGLE)
    loss = loss_of(tmp_path, model, rows, guidance_weight=0.3)
    guided = rows["saliency_mask"]
    penalty = numpy_penalty(model, rows["pixel_values"][guided], rows["saliency"][guided]).mean()
    cross_entropy = nn.functional.cross_entropy(model(rows["pixel_values"]), SINGLE)
    assert loss.item() == pytest.approx(cross_entropy.item() + 0.3 * penalty)


def test_its_gradient_equals_finite_differences_of_the_numpy_penalty(tmp_path):
    model, rows = Perceptron().double(), batch(SINGLE)
    loss_of(tmp_path, model, rows, guidance_weight=2.0).backward()
    guided, step = rows["saliency_mask"], 1e-6

    def by_hand():
        with torch.no_grad():
            cross_entropy = nn.functional.cross_entropy(model(rows["pixel_values"]), SINGLE).item()
        return cross_entropy + 2 * numpy_penalty(model, rows["pixel_values"][guided], rows["saliency"][guided]).mean()

    for parameter in model.parameters():
        for index in (0, -1):
            value = parameter.data.view(-1)[index].item()
            ends = []
            for moved in (value + step, value - step):
                parameter.data.view(-1)[index] = moved
                ends.append(by_hand())
            parameter.data.view(-1)[index] = value
            slope = (ends[0] - ends[1]) / (2 * step)
            assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_several_labels_against_finite_differences_of_the_log_probabilities():
    model, rows = Perceptron().double(), batch(SEVERAL)
    guided = rows["saliency_mask"]
    pictures = rows["pixel_values"][guided].requires_grad_()
    logits = model(pictures)
    found = GradientObjective(problem_type=MULTI_LABEL).terms(
        Encoding(logits, logits),
        batch=GuidedRows(SEVERAL[guided], rows["saliency"][guided], row_losses=None, pixel_values=Source(pictures)),
    )["input_gradient"]

    def log_p(x):
        p = 1 / (1 + np.exp(-model(x).detach().numpy()))
        return (np.log(p) + np.log(1 - p)).sum(axis=1)

    expected = np.zeros(len(pictures))
    for pixel in range(6):
        unit = torch.zeros(6).double()
        unit[pixel] = 1e-6
        unit = unit.view(1, 1, 2, 3)
        slope = (log_p(pictures.detach() + unit) - log_p(pictures.detach() - unit)) / 2e-6
        expected += ((1 - rows["saliency"][guided].numpy().reshape(-1, 6)[:, pixel]) * slope) ** 2
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_what_it_can_not_guide(tmp_path):
    with pytest.raises(ValueError, match="needs classes, and a regression has none"):
        GradientObjective(problem_type=REGRESSION)
    with pytest.raises(ValueError, match=r'ViTForImageClassification.*attn_implementation="eager"'):
        SageTrainer(make_model("vit"), make_args(tmp_path, guidance="gradient"))
    SageTrainer(make_model("resnet"), make_args(tmp_path, guidance="gradient"))
    settings = {"activation_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(ValueError, match="use_reentrant"):
        SageTrainer(make_model("resnet"), make_args(tmp_path, guidance="gradient", **settings))
