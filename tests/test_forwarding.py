import pytest
import torch
from torch import nn

from sage_hf import EmbeddingCapture
from sage_hf.forwarding import VIEW_FORWARDS, Encoder, has_batch_norm
from tests.conftest import make_model


def pictures():
    generator = torch.Generator().manual_seed(3)
    x, positive, negative = torch.randn(3, 6, 3, 32, 32, generator=generator)
    rows = torch.tensor([0, 2, 3, 5])
    return x, (positive[rows], negative[rows]), rows


def encoded(model, view_forward):
    x, views, rows = pictures()
    # The capture stays: a recomputation needs it.
    encoder = Encoder(model, EmbeddingCapture(model), view_forward=view_forward)
    return encoder.encode(model, {"pixel_values": x}, views, rows)


@pytest.mark.parametrize("view_forward", VIEW_FORWARDS)
@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_anchor_and_views_are_those_of_plain_passes_without_batch_norm(kind, view_forward):
    model = make_model(kind).train()
    x, views, _ = pictures()
    anchor, *others = encoded(model, view_forward)
    torch.testing.assert_close(anchor.logits, model(x).logits, rtol=1e-5, atol=1e-6)
    for other, view in zip(others, views, strict=True):
        torch.testing.assert_close(other.logits, model(view).logits, rtol=1e-5, atol=1e-6)
    if view_forward == "separate":
        assert torch.equal(anchor.logits, model(x).logits)


def test_batch_norm_sees_the_anchor_alone():
    model, plain = make_model("resnet").train(), make_model("resnet").train()
    x, _, _ = pictures()
    for _ in range(2):
        anchor, *_ = encoded(model, "auto")
        assert torch.equal(anchor.logits, plain(x).logits)
    for name, buffer in plain.named_buffers():
        assert torch.equal(model.get_buffer(name), buffer), name
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all(layer.training and layer.track_running_stats for layer in layers)


def test_buffers_stay_the_same_tensors():
    # DDP and the optimizer's graph hold on to the tensors, not to their names.
    model = make_model("resnet").train()
    before = {name: id(buffer) for name, buffer in model.named_buffers()}
    encoded(model, "separate")
    assert {name: id(buffer) for name, buffer in model.named_buffers()} == before


def test_views_are_normalised_by_their_own_statistics():
    model, plain = make_model("resnet").train(), make_model("resnet").train()
    _, views, _ = pictures()
    _, positive, negative = encoded(model, "separate")
    expected = plain(torch.cat(views)).logits
    torch.testing.assert_close(torch.cat([positive.logits, negative.logits]), expected)


def test_in_evaluation_mode_views_are_normalised_by_the_running_statistics():
    model = make_model("resnet").train()
    x, views, _ = pictures()
    model(x)  # so that they are not the initial ones
    _, positive, _ = encoded(model.eval(), "separate")
    torch.testing.assert_close(positive.logits, model(views[0]).logits)


def test_concatenating_changes_the_anchor_with_batch_norm():
    # The reason why "auto" does not concatenate there.
    model = make_model("resnet").train()
    x, _, _ = pictures()
    anchor, *_ = encoded(model, "concatenated")
    assert (anchor.logits - model(x).logits).abs().max() > 1e-3


@pytest.mark.parametrize("view_forward", VIEW_FORWARDS)
def test_gradients_reach_the_parameters_through_all_three(model, view_forward):
    if view_forward == "recomputed" and has_batch_norm(model):
        return  # refused, as a test below has it
    for which in range(3):
        model.zero_grad()
        encoded(model.train(), view_forward)[which].embedding.square().sum().backward()
        body = [p.grad for name, p in model.named_parameters() if "classifier" not in name and p.grad is not None]
        assert sum(grad.abs().sum() for grad in body) > 0


def test_other_inputs_follow_their_rows():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(1, 1, bias=False)

        def forward(self, picture, scale, flag):
            assert flag == "as it is"
            pooled = picture.mean(dim=(1, 2, 3)).unsqueeze(1) * scale.unsqueeze(1)
            return type("Output", (), {"logits": self.head(pooled)})

    model, rows = Scaled(), torch.tensor([1, 2])
    x, scale = torch.ones(3, 1, 2, 2), torch.tensor([1.0, 10.0, 100.0])
    for view_forward in ("concatenated", "separate", "recomputed"):
        inputs = {"pixel_values": x, "scale": scale, "flag": "as it is"}
        capture = EmbeddingCapture(model, "head")
        anchor, view = Encoder(model, capture, view_forward=view_forward).encode(model, inputs, (x[rows],), rows)
        capture.remove()
        assert anchor.embedding.flatten().tolist() == [1.0, 10.0, 100.0]
        assert view.embedding.flatten().tolist() == [10.0, 100.0]


def test_what_has_batch_norm():
    assert has_batch_norm(make_model("resnet"))
    assert not has_batch_norm(make_model("vit"))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_views_have_the_gradients_of_kept_ones(dropout, monkeypatch):
    # With dropout, the recomputation has to drop the same; so the reference passes the same parts, and keeps them.
    def gradients():
        model = make_model("vit").train()
        for layer in model.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = dropout
        torch.manual_seed(5)
        anchor, positive, negative = encoded(model, "recomputed")
        loss = anchor.logits.square().sum() + (positive.embedding * negative.embedding).sum() + positive.logits.sum()
        loss.backward()
        return loss.detach(), [parameter.grad for parameter in model.parameters()]

    loss, recomputed = gradients()
    monkeypatch.setattr("sage_hf.forwarding.checkpoint", lambda function, *args, use_reentrant: function(*args))
    expected_loss, kept = gradients()
    assert loss == expected_loss
    for one, other in zip(recomputed, kept, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_pictures_are_let_go_of_before_views_are_computed_again(kind):
    # Passes in their order: two parts of the views, x, and in the backward pass the parts again, the last one first.
    model = make_model(kind).train()
    x, views, rows = pictures()
    rows_of_a_pass, kept = [], []

    def saved_by_the_first_layer(layer, args, output):
        rows_of_a_pass.append(len(output))
        if len(output) == len(x):
            output.register_hook(lambda gradient: kept.append(len(rows_of_a_pass)))

    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    first.register_forward_hook(saved_by_the_first_layer)
    encoder = Encoder(model, EmbeddingCapture(model), view_forward="recomputed")
    encodings = encoder.encode(model, {"pixel_values": x}, views, rows)
    assert rows_of_a_pass == [4, 4, 6]  # two rows of x+ and x- each; at most half of six would be one row of each
    sum(encoding.logits.square().sum() for encoding in encodings).backward()
    assert rows_of_a_pass == [4, 4, 6, 4, 4]
    assert kept == [3], "x's first layer had its gradient after views were computed again"


def test_recomputed_parts_hold_the_rows_that_they_are_made_of():
    model = make_model("vit").train()
    x, views, rows = pictures()
    for count in range(1, len(rows) + 1):
        some = tuple(view[:count] for view in views)
        recomputed, kept = (
            Encoder(model, EmbeddingCapture(model), view_forward=way).encode(
                model, {"pixel_values": x}, some, rows[:count]
            )
            for way in ("recomputed", "separate")
        )
        for one, other in zip(recomputed, kept, strict=True):
            torch.testing.assert_close(one.logits, other.logits)
            torch.testing.assert_close(one.embedding, other.embedding)


def test_recomputed_views_are_refused_with_batch_norm():
    with pytest.raises(ValueError, match="gradient_checkpointing=True"):
        encoded(make_model("resnet"), "recomputed")


def test_the_capture_keeps_no_graph_after_a_recomputation():
    model = make_model("vit").train()
    x, views, rows = pictures()
    capture = EmbeddingCapture(model)
    encodings = Encoder(model, capture, view_forward="recomputed").encode(model, {"pixel_values": x}, views, rows)
    sum(encoding.logits.sum() for encoding in encodings).backward()
    assert not capture._embeddings
