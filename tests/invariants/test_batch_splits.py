"""The same rows give the same gradients however an optimizer step splits them."""

import pytest
import torch
from torch import nn

from sage_hf import SageTrainer, SageTrainingArguments
from tests.conftest import Rows, make_model

BLUR = {"degradation": "blur"}  # needs no other row, so that a split can't change the views
OWN_SETTINGS = {
    "sage": BLUR | {"consistency": "both"},
    "augment": BLUR | {"guidance_weight": 0.7},
    "cyborg": {"guidance_weight": 2.0},
    "gradient": {"guidance_weight": 2.0},
    "harmonization": {"guidance_weight": 2.0},
    "attention": {"guidance_weight": 2.0},
}


class GradientKeeper(SageTrainer):
    """Keeps the gradients of the first optimizer step, and the order of the rows."""

    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer(model)
        optimizer.register_step_pre_hook(self.keep)
        return optimizer

    def keep(self, *_):
        if not hasattr(self, "gradients"):
            self.gradients = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}


def gradients(tmp_path, kind, batch_size, accumulation, dataset=None, prepare=None, **settings):
    model = make_model(kind)
    if prepare:
        prepare(model)
    args = SageTrainingArguments(
        **{
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": batch_size,
            "gradient_accumulation_steps": accumulation,
            "max_steps": 1,
            "max_grad_norm": 0.0,
            "use_cpu": True,
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_steps": 1,
        }
        | OWN_SETTINGS.get(settings.get("guidance", "sage"), {})
        | settings
    )
    trainer = GradientKeeper(model=model, args=args, train_dataset=dataset or Rows())
    trainer.train()
    (log,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    return trainer.gradients, log


def without_batch_statistics(model):
    """Batch normalisation by running statistics, whatever the mode: the batch's own depend on the split by design."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
            layer.train = lambda mode=True, layer=layer: layer


def assert_same(first, second, rtol=1e-4, atol=1e-6):
    (gradients, log), (others, other_log) = first, second
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], rtol=rtol, atol=atol, msg=name)
    assert log.keys() == other_log.keys()
    for name in log.keys() - {"epoch", "grad_norm", "learning_rate", "step"}:
        assert log[name] == pytest.approx(other_log[name], rel=1e-5), name


@pytest.mark.parametrize("guidance", ["sage", "none"])
@pytest.mark.parametrize("split", [(8, 2), (4, 4), (2, 8)])
@pytest.mark.parametrize("kind", ["vit", "convnext", "resnet"])
def test_accumulation_gives_the_gradients_of_the_whole_batch(tmp_path, kind, split, guidance):
    settings = {"guidance": guidance, "prepare": without_batch_statistics}
    whole = gradients(tmp_path / "whole", kind, 16, 1, **settings)
    parts = gradients(tmp_path / "parts", kind, *split, **settings)
    assert ("triplet" in whole[1]) == (guidance == "sage")
    assert_same(whole, parts)


def eager(model):
    """What differentiates twice, or reads attention, needs plain attention."""
    without_batch_statistics(model)
    model.set_attn_implementation("eager")


COMPARED = [
    (kind, guidance, term)
    for guidance, term in (
        ("augment", "augmented"),
        ("cyborg", "cam"),
        ("gradient", "input_gradient"),
        ("harmonization", "harmonization"),
        ("attention", "attention"),
    )
    for kind in ("vit", "convnext", "resnet")
    if guidance != "attention" or kind == "vit"
]


@pytest.mark.parametrize(("kind", "guidance", "term"), COMPARED)
def test_every_guidance_counts_rows_alike(tmp_path, kind, guidance, term):
    settings = {"guidance": guidance, "prepare": eager}
    whole = gradients(tmp_path / "whole", kind, 16, 1, **settings)
    assert whole[1][term] > 0
    assert_same(whole, gradients(tmp_path / "parts", kind, 6, 3, **settings))  # of 6, 6 and 4 rows


@pytest.mark.parametrize("guidance", ["cyborg", "gradient", "harmonization", "attention"])
def test_every_guidance_survives_recomputed_activations_and_bfloat16(tmp_path, guidance):
    settings = {"guidance": guidance, "prepare": eager}
    plain = gradients(tmp_path / "plain", "vit", 16, 1, **settings)
    assert_same(plain, gradients(tmp_path / "recomputed", "vit", 16, 1, activation_checkpointing=True, **settings))
    rough, log = gradients(tmp_path / "rough", "vit", 16, 1, bf16=True, **settings)
    assert log["loss"] == pytest.approx(plain[1]["loss"], rel=0.02)
    flat, rough_flat = (torch.cat([g.flatten() for g in grads.values()]) for grads in (plain[0], rough))
    assert torch.cosine_similarity(flat, rough_flat, dim=0) > 0.98
    assert not torch.equal(flat, rough_flat)


@pytest.mark.parametrize("guidance", ["augment", "cyborg", "gradient", "harmonization", "attention"])
def test_a_step_in_two_is_guided_with_twice_the_weight(tmp_path, guidance):
    settings, weight = {"guidance": guidance, "prepare": eager}, OWN_SETTINGS[guidance]["guidance_weight"]
    seldom, _ = gradients(tmp_path / "seldom", "vit", 16, 1, guidance_interval=2, **settings)
    always, _ = gradients(tmp_path / "always", "vit", 16, 1, guidance_weight=2 * weight, **settings)
    for name, gradient in seldom.items():
        torch.testing.assert_close(gradient, always[name], msg=name)


def test_one_row_in_one_is_every_row(tmp_path):
    assert_same(gradients(tmp_path / "a", "vit", 16, 1), gradients(tmp_path / "b", "vit", 16, 1, guidance_one_in=1))
    fewer = gradients(tmp_path / "c", "vit", 4, 4, guidance_one_in=2)  # 4, 2, 0 and 0 annotated rows
    assert fewer[1]["annotated"] == pytest.approx(6 / 16)
    assert fewer[1]["triplet"] > 0


def test_every_row_annotated_equals_the_mean_over_rows(tmp_path):
    dataset = Rows(annotated=tuple(range(16)))
    whole = gradients(tmp_path / "whole", "vit", 16, 1, dataset=dataset)
    assert_same(whole, gradients(tmp_path / "parts", "vit", 4, 4, dataset=dataset))
    assert whole[1]["annotated"] == 1.0


def test_the_last_smaller_batch_of_an_epoch_counts_by_its_rows(tmp_path):
    # 16 rows in micro-batches of 6, 6 and 4.
    whole = gradients(tmp_path / "whole", "vit", 16, 1)
    assert_same(whole, gradients(tmp_path / "parts", "vit", 6, 3))


def test_activation_checkpointing_gives_the_same_gradients(tmp_path):
    plain = gradients(tmp_path / "plain", "vit", 16, 1)
    assert_same(plain, gradients(tmp_path / "recomputed", "vit", 16, 1, activation_checkpointing=True))


@pytest.mark.parametrize("view_forward", ["separate", "recomputed"])
def test_separate_passes_give_the_gradients_of_one(tmp_path, view_forward):
    one = gradients(tmp_path / "one", "vit", 16, 1, view_forward="concatenated")
    assert_same(one, gradients(tmp_path / "two", "vit", 16, 1, view_forward=view_forward))


@pytest.mark.parametrize("kind", ["vit", "convnext", "resnet"])
def test_bfloat16_stays_near(tmp_path, kind):
    exact, log = gradients(tmp_path / "exact", kind, 16, 1)
    rough, rough_log = gradients(tmp_path / "rough", kind, 16, 1, bf16=True)
    assert rough_log["loss"] == pytest.approx(log["loss"], rel=0.02)
    flat, rough_flat = (torch.cat([g.flatten() for g in grads.values()]) for grads in (exact, rough))
    assert torch.cosine_similarity(flat, rough_flat, dim=0) > 0.98


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_torch_compile_gives_the_same_gradients(tmp_path, kind):
    plain = gradients(tmp_path / "plain", kind, 16, 1)
    compiled, log = gradients(tmp_path / "compiled", kind, 16, 1, torch_compile=True, torch_compile_backend="eager")
    assert_same(plain, ({name.removeprefix("_orig_mod."): g for name, g in compiled.items()}, log))
