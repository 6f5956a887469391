"""Class activation maps against those made by hand: weights times features, and differences of logits."""

import numpy as np
import pytest
import torch

from sage_hf import SageTrainer
from sage_hf.objectives import CyborgObjective, Encoding, GuidedRows, Source
from sage_hf.tasks import MULTI_LABEL, REGRESSION
from tests.conftest import make_args, make_model


def pooled_by_hand(saliency, height, width):
    rows, columns = saliency.shape[0] // height, saliency.shape[1] // width
    return np.array(
        [
            [saliency[y * rows : (y + 1) * rows, x * columns : (x + 1) * columns].mean() for x in range(width)]
            for y in range(height)
        ]
    )


def scaled(values):
    return (values - values.min()) / (values.max() - values.min())


def naive_terms(features, importance, saliency):
    """The paper's term for each row, given the importance of each channel for the row's class."""
    terms = []
    for activations, weights, human in zip(features, importance, saliency, strict=True):
        cam = sum(weight * activation for weight, activation in zip(weights, activations, strict=True))
        wanted = scaled(pooled_by_hand(human[0], *cam.shape))
        terms.append(((scaled(cam) - wanted) ** 2).mean())
    return np.array(terms)


def trained_loss(tmp_path, model, batch, **settings):
    trainer = SageTrainer(model, make_args(tmp_path, guidance="cyborg", **settings))
    loss = trainer.compute_loss(model.train(), batch)
    return loss, trainer._terms.means(trainer.accelerator)


def test_with_pooling_and_a_linear_head_it_is_the_linear_class_activation_map(tmp_path, batch):
    model, plain = make_model("resnet").double(), make_model("resnet").double().train()
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    loss, logged = trained_loss(tmp_path, model, batch, guidance_weight=3.0)

    rows, labels = batch["saliency_mask"], batch["labels"]
    outputs = plain(batch["pixel_values"], output_hidden_states=True)
    features = outputs.hidden_states[-1][rows]
    weights = plain.classifier[1].weight[labels[rows]]
    terms = naive_terms(features.detach().numpy(), weights.detach().numpy(), batch["saliency"][rows].numpy())
    assert logged["cam"] == pytest.approx(terms.mean())
    cross_entropy = torch.nn.functional.cross_entropy(outputs.logits, labels)
    assert loss.item() == pytest.approx(cross_entropy.item() + 3 * terms.mean())

    # Gradients as well, that of the head's weights in the map among them.
    cams = torch.einsum("rc,rchw->rhw", weights, features).flatten(1)
    low, high = cams.min(dim=1, keepdim=True).values, cams.max(dim=1, keepdim=True).values
    size = features.shape[-2:]
    wanted = [scaled(pooled_by_hand(human[0], *size)) for human in batch["saliency"][rows].numpy()]
    difference = (cams - low) / (high - low) - torch.from_numpy(np.array(wanted)).flatten(1)
    (cross_entropy + 3 * difference.square().mean()).backward()
    loss.backward()
    for (name, parameter), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-6, atol=1e-9, msg=name)


def test_in_a_convnext_a_channel_weighs_what_the_logit_gains_by_it(tmp_path, batch):
    # Between pooling and head there is a layer normalisation, so the weight is a slope: here a finite difference.
    model, plain = make_model("convnext").double(), make_model("convnext").double()
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    _, logged = trained_loss(tmp_path, model, batch)
    rows, labels = batch["saliency_mask"], batch["labels"]
    with torch.no_grad():
        features = plain(batch["pixel_values"], output_hidden_states=True).hidden_states[-1][rows]

        def logit(pooled):
            return plain.classifier(plain.convnext.layernorm(pooled)).gather(1, labels[rows, None])[:, 0]

        pooled, step = features.mean(dim=(2, 3)), 1e-5
        importance = torch.stack(
            [
                (logit(pooled + step * unit) - logit(pooled - step * unit)) / (2 * step)
                for unit in torch.eye(16).double()
            ],
            dim=1,
        )
    expected = naive_terms(features.numpy(), importance.numpy(), batch["saliency"][rows].numpy())
    assert logged["cam"] == pytest.approx(expected.mean(), rel=1e-6)


@pytest.mark.parametrize("kind", ["convnext", "resnet"])
def test_a_frozen_backbone_leaves_the_map_to_the_head(tmp_path, batch, kind):
    model = make_model(kind)
    loss, _ = trained_loss(tmp_path, model, batch, freeze_backbone=True)
    free = make_model(kind)
    if kind == "resnet":  # a frozen backbone normalises as in evaluation
        for module in free.modules():
            module.train = lambda mode=True, module=module: module
        free.eval()
    other, _ = trained_loss(tmp_path, free, batch)
    loss.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        name for name, p in model.named_parameters() if "classifier" in name
    }
    if kind == "convnext":
        torch.testing.assert_close(loss, other)


def terms_of(activations, logits_by, saliency, labels, **settings):
    """The terms of rows whose logits are pooled features times a matrix."""
    logits = activations.mean(dim=(2, 3)) @ logits_by
    batch = GuidedRows(labels, saliency, row_losses=None, features=Source(activations))
    return CyborgObjective(**settings).terms(Encoding(logits, logits), batch=batch)["cam"]


def test_constant_maps_and_constant_activations_are_no_number_to_fear():
    activations = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    activations[1] = 0.7  # a constant activation map
    activations.requires_grad_()
    saliency = torch.zeros(3, 1, 8, 8)
    saliency[0, 0, :4] = 1.0
    saliency[1, 0, :4] = 1.0
    saliency[2] = 1.0  # everything is marked: no word of where to look
    head = torch.eye(2).requires_grad_()
    terms = terms_of(activations, head, saliency, torch.tensor([0, 1, 0]))
    assert terms[1].item() == pytest.approx(0.5)  # zero everywhere, against a map of half ones
    assert terms[2].item() == 0.0
    terms.sum().backward()
    assert torch.isfinite(activations.grad).all()
    assert activations.grad[0].any()
    assert not activations.grad[1:].any()
    assert torch.isfinite(head.grad).all()


def test_several_labels_add_up_and_none_says_nothing():
    generator = torch.Generator().manual_seed(0)
    activations = torch.rand(3, 3, 4, 4, generator=generator).double().requires_grad_()
    saliency = torch.rand(3, 1, 4, 4, generator=generator).double()
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]).double()
    head = torch.randn(3, 3, generator=generator).double()
    terms = terms_of(activations, head, saliency, labels, problem_type=MULTI_LABEL)
    importance = (labels @ head.T).numpy()
    expected = naive_terms(activations.detach().numpy()[:2], importance[:2], saliency.numpy()[:2])
    assert terms[:2].tolist() == pytest.approx(expected.tolist())
    assert terms[2].item() == 0.0


def test_what_it_can_not_guide(tmp_path, batch):
    with pytest.raises(ValueError, match="needs classes, and a regression has none"):
        CyborgObjective(problem_type=REGRESSION)
    with pytest.raises(ValueError, match="guidance_weight must be 0 or more"):
        CyborgObjective(guidance_weight=-1.0)
    with pytest.raises(ValueError, match=r'fused kernel.*attn_implementation="eager"'):
        trained_loss(tmp_path, make_model("vit"), batch)
    with pytest.raises(ValueError, match="differentiates twice, which compiled models can't"):
        trained_loss(tmp_path, make_model("resnet"), batch, torch_compile=True)
