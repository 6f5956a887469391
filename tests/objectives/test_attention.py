import math

import pytest
import torch

from sage_hf import SageTrainer
from sage_hf.objectives.attention import attention_over_grid
from tests.conftest import make_args, make_model
from tests.models.architectures import make_classifier
from tests.test_own_modules import Network


def eager(model):
    model.set_attn_implementation("eager")
    return model


def naive_divergence(attention, saliency):
    """KL(map || class token's attention) in plain Python: 4 x 4 patches of 8 x 8 pixels after a class token."""
    heads = attention.tolist()
    given = [sum(head[0][1 + place] for head in heads) / len(heads) for place in range(16)]
    marked = [saliency[0, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].sum().item() / 64 for y in range(4) for x in range(4)]
    alpha, beta = ([value / sum(values) for value in values] for values in (given, marked))
    return sum(b * math.log(b / a) for a, b in zip(alpha, beta, strict=True) if b > 0)


def test_equals_a_loop_over_heads_and_patches(tmp_path, batch):
    batch["saliency"][2, 0, :16] = 0.0  # some patches are not marked at all
    model = eager(make_model("vit"))
    trainer = SageTrainer(model, make_args(tmp_path, guidance="attention", guidance_weight=0.7))
    loss = trainer.compute_loss(model.train(), batch)
    outputs = model(batch["pixel_values"], output_attentions=True)
    cross_entropy = torch.nn.functional.cross_entropy(outputs.logits, batch["labels"]).item()
    terms = [naive_divergence(outputs.attentions[-1][row], batch["saliency"][row]) for row in (0, 2)]
    assert loss.item() == pytest.approx(cross_entropy + 0.7 * sum(terms) / 2, rel=1e-5)
    loss.backward()
    query = next(p for name, p in model.named_parameters() if "layers.1" in name and "q" in name.split(".")[-2])
    assert query.grad.any()


def test_training_moves_attention_to_what_is_marked(tmp_path, batch):
    model = eager(make_model("vit"))
    trainer = SageTrainer(model, make_args(tmp_path, guidance="attention"))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    values = []
    for _ in range(15):
        optimizer.zero_grad()
        trainer.compute_loss(model.train(), batch).backward()
        optimizer.step()
        values.append(trainer._terms.means(trainer.accelerator)["attention"])
    assert values[-1] < 0.3 * values[0]


def test_without_a_class_token_all_tokens_are_asked():
    attention = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).softmax(-1)
    found = attention_over_grid(attention, 32, 32)
    torch.testing.assert_close(found, attention.mean(dim=(1, 2)).view(2, 4, 4))


def test_registers_are_left_out():
    attention = torch.rand(1, 1, 21, 21, generator=torch.Generator().manual_seed(0)).softmax(-1)
    found = attention_over_grid(attention, 32, 32)
    torch.testing.assert_close(found.flatten(), attention[0, 0, 0, 5:] / attention[0, 0, 0, 5:].sum())


def test_what_it_can_not_guide(tmp_path, batch):
    with pytest.raises(ValueError, match=r'does not tell what it attends to. Load.*attn_implementation="eager"'):
        SageTrainer(make_model("vit"), make_args(tmp_path, guidance="attention"))
    with pytest.raises(ValueError, match="Of Network, no model of transformers"):
        SageTrainer(Network(), make_args(tmp_path, guidance="attention", embedding_layer="head"))
    model = make_model("resnet")
    trainer = SageTrainer(model, make_args(tmp_path, guidance="attention"))
    with pytest.raises(ValueError, match="this one returned none"):
        trainer.compute_loss(model.train(), batch)
    model = eager(make_classifier("swin", "SwinForImageClassification"))
    trainer = SageTrainer(model, make_args(tmp_path, guidance="attention"))
    with pytest.raises(ValueError, match=r"attention of its last layer|the whole picture"):
        trainer.compute_loss(model.train(), batch)
