"""The same rows give the same gradients however an optimizer step splits them."""

import pytest
import torch
from torch import nn

from sage_hf import SageTrainer, SageTrainingArguments
from tests.conftest import Rows, make_model


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
            "degradation": "blur",  # needs no other row, so that a split can't change the views
            "consistency": "both",
            "use_cpu": True,
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_steps": 1,
        }
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
    for name in ("loss", "cross_entropy", "triplet", "consistency", "satisfied_triplets", "annotated"):
        assert log[name] == pytest.approx(other_log[name], rel=1e-5), name


@pytest.mark.parametrize("guidance", ["sage", "none"])
@pytest.mark.parametrize("split", [(8, 2), (4, 4), (2, 8)])
@pytest.mark.parametrize("kind", ["vit", "convnext", "resnet"])
def test_accumulation_gives_the_gradients_of_the_whole_batch(tmp_path, kind, split, guidance):
    settings = {"guidance": guidance, "prepare": without_batch_statistics}
    whole = gradients(tmp_path / "whole", kind, 16, 1, **settings)
    parts = gradients(tmp_path / "parts", kind, *split, **settings)
    if guidance == "none":
        for _, log in (whole, parts):
            log.update(dict.fromkeys(("triplet", "consistency", "satisfied_triplets", "annotated"), 0.0))
    assert_same(whole, parts)


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


def test_separate_passes_give_the_gradients_of_one(tmp_path):
    one = gradients(tmp_path / "one", "vit", 16, 1, view_forward="concatenated")
    assert_same(one, gradients(tmp_path / "two", "vit", 16, 1, view_forward="separate"))


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
