"""Harmonization against the published code, run once, and against a loop over pixels."""

import numpy as np
import pytest
import torch

from sage_hf import SageTrainer
from sage_hf.objectives import Encoding, GuidedRows, HarmonizationObjective, Source
from sage_hf.objectives.harmonization import LEVELS
from sage_hf.tasks import MULTI_LABEL, REGRESSION
from tests.conftest import make_args, make_model
from tests.objectives.test_gradient import SEVERAL, SINGLE, Perceptron, batch

PUBLISHED = {(32, 32): (0.2538965940475464, 0.38221535086631775), (17, 24): (0.24121172726154327, 0.3069353699684143)}
"""What serre-lab/Harmonization gives for `waves` and `marks`, row by row, with TensorFlow 2.21."""


def waves(height, width):
    """In the place of gradients."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([np.sin(0.3 * x + 0.1 * y) * np.cos(0.2 * y), np.sin(0.05 * x * y)]).astype(np.float32)


def marks(height, width):
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([np.exp(-((x - 10) ** 2 + (y - 8) ** 2) / 30), x > width / 2]).astype(np.float32)


def terms_of(gradients, maps):
    """Of a linear model whose gradients are given, (rows, channels, height, width)."""
    gradients = torch.as_tensor(gradients)
    pictures = torch.ones_like(gradients).requires_grad_()
    true = (pictures * gradients).sum(dim=(1, 2, 3))
    logits = torch.stack([-3 * true, true], dim=1)
    labels = torch.ones(len(true), dtype=torch.long)
    rows = GuidedRows(labels, torch.as_tensor(maps).unsqueeze(1), row_losses=None, pixel_values=Source(pictures))
    return HarmonizationObjective().terms(Encoding(logits, logits), batch=rows)["harmonization"]


@pytest.mark.parametrize("size", PUBLISHED)
def test_equals_the_published_code(size):
    found = terms_of(waves(*size)[:, None], marks(*size))
    np.testing.assert_allclose(found.detach(), PUBLISHED[size], rtol=1e-5)


def test_channels_are_averaged():
    one = waves(32, 32)[:, None]
    several = np.concatenate([2 * one, 0 * one, one], axis=1)
    np.testing.assert_allclose(terms_of(several, marks(32, 32)).detach(), PUBLISHED[32, 32], rtol=1e-5)


def cut(values):
    return np.maximum((values - values.mean()) / (values.std() + 1e-5), 0)


def half(values):
    weights = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    height, width = ((side + 1) // 2 for side in values.shape)
    made = np.zeros((height, width))
    first = [max(0, 2 * (half - 1) + 5 - side) // 2 for half, side in zip((height, width), values.shape, strict=True)]
    for row in range(height):
        for column in range(width):
            for i in range(5):
                for j in range(5):
                    y, x = 2 * row + i - first[0], 2 * column + j - first[1]
                    if 0 <= y < values.shape[0] and 0 <= x < values.shape[1]:
                        made[row, column] += weights[i, j] * values[y, x]
    return made


def by_hand(gradient, saliency):
    """The distance of one row, by loops."""
    found, human = cut(gradient), cut(saliency)
    human = human / (human.max() + 1e-6) * (found.max() + 1e-6)
    distances = []
    for _ in range(LEVELS):
        distances.append(((found - human) ** 2).mean())
        found, human = half(found), half(human)
    return np.mean(distances)


def distances_by_hand(model, rows, labels):
    """Of the rows with a map, the gradient back-propagated in numpy."""
    w1, b1, w2, _ = (parameter.detach().numpy() for parameter in model.parameters())
    expected = []
    for index in rows["saliency_mask"].nonzero().squeeze(1).tolist():
        x, s, y = (values[index].numpy() for values in (rows["pixel_values"], rows["saliency"], labels))
        by_logits = np.eye(3)[y] if labels is SINGLE else y
        gradient = w1.T @ ((w2.T @ by_logits) * (w1 @ x.reshape(-1) + b1 > 0))
        expected.append(by_hand(gradient.reshape(2, 3), s[0]))
    return np.array(expected)


def test_the_loss_has_the_distance_of_the_true_logits_gradient(tmp_path):
    model, rows = Perceptron().double(), batch(SINGLE)
    args = make_args(tmp_path, guidance="harmonization", embedding_layer="head", guidance_weight=0.7)
    loss = SageTrainer(model, args).compute_loss(model.train(), dict(rows))
    cross_entropy = torch.nn.functional.cross_entropy(model(rows["pixel_values"]), SINGLE).item()
    distance = distances_by_hand(model, rows, SINGLE).mean()
    assert loss.item() == pytest.approx(cross_entropy + 0.7 * distance, rel=1e-6)


@pytest.mark.parametrize("labels", [SINGLE, SEVERAL])
def test_it_is_of_all_labels_that_are_present(labels):
    model, rows = Perceptron().double(), batch(labels)
    guided = rows["saliency_mask"]
    pictures = rows["pixel_values"][guided].requires_grad_()
    logits = model(pictures)
    kind = {} if labels is SINGLE else {"problem_type": MULTI_LABEL}
    of_rows = GuidedRows(labels[guided], rows["saliency"][guided], row_losses=None, pixel_values=Source(pictures))
    found = HarmonizationObjective(**kind).terms(Encoding(logits, logits), batch=of_rows)["harmonization"]
    np.testing.assert_allclose(found.detach(), distances_by_hand(model, rows, labels), rtol=1e-9)


def test_constant_gradients_and_maps_have_a_finite_derivative():
    flat = torch.full((2, 1, 8, 8), 0.5, requires_grad=True)
    pictures = torch.ones(2, 1, 8, 8).requires_grad_()
    logits = (pictures * flat).sum(dim=(1, 2, 3)).unsqueeze(1)
    maps = torch.stack([torch.ones(1, 8, 8), torch.rand(1, 8, 8)])
    rows = GuidedRows(torch.tensor([0, 0]), maps, row_losses=None, pixel_values=Source(pictures))
    found = HarmonizationObjective().terms(Encoding(logits, logits), batch=rows)["harmonization"]
    found.sum().backward()
    assert found.isfinite().all()
    assert flat.grad.isfinite().all()


def test_what_it_can_not_guide(tmp_path):
    with pytest.raises(ValueError, match="needs classes, and a regression has none"):
        HarmonizationObjective(problem_type=REGRESSION)
    with pytest.raises(ValueError, match="guidance_weight must be 0 or more"):
        HarmonizationObjective(guidance_weight=-1)
    with pytest.raises(ValueError, match=r'ViTForImageClassification.*attn_implementation="eager"'):
        SageTrainer(make_model("vit"), make_args(tmp_path, guidance="harmonization"))
