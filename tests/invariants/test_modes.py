"""
Every way to train gives the loss and the gradients of plain float32 training, within the tolerance stated for it.

A step of gradient descent with a learning rate of one moves each weight by its gradient, so whole runs of the Trainer
are compared, with all that accelerate does on the way.
"""

import pytest
import torch

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.cli.model_options import add_adapters
from tests.conftest import Rows, make_model
from tests.models.architectures import make_classifier

# Relative difference, in the Euclidean norm, of all gradients together; and relative difference of the loss.
TOLERANCES = {
    "accumulation": 1e-5,
    "activation checkpointing": 1e-6,
    "recomputed views": 1e-5,  # sums in another order: 1.2e-6 on some processors
    "recomputed views, compiled": 1e-5,
    "compiled": 1e-5,
    "bf16": 5e-2,
    "fp16": 5e-3,
}
MODES = {
    "accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
    "activation checkpointing": {"activation_checkpointing": True},
    "recomputed views": {"view_forward": "recomputed"},
    "recomputed views, compiled": {
        "view_forward": "recomputed",
        "torch_compile": True,
        "torch_compile_backend": "aot_eager",
    },
    # The graph is captured as for any backend; generating code for it would take longer than the test.
    "compiled": {"torch_compile": True, "torch_compile_backend": "aot_eager"},
    "bf16": {"bf16": True},
}


def make(kind):
    if kind == "mobilevit":  # batch normalisation, dropout, attention
        model = make_classifier("mobilevit", "MobileViTForImageClassification")
        for module in model.modules():  # its own initial weights are so small that all pictures look alike
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    else:
        model = make_model(kind)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # modes draw their masks in another order
    return model


def step(model, folder, **settings):
    """Loss and gradients, by parameter, of one optimizer step over all sixteen rows."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    settings = {"per_device_train_batch_size": 16, "use_cpu": True} | settings
    args = SageTrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        logging_steps=1,
        optim="sgd",
        learning_rate=1.0,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        degradation="mean",  # shuffling depends on who shares a batch
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    trainer = SageTrainer(model, args, train_dataset=Rows())
    trainer.train()
    gradients = {
        name: before[name] - parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return trainer.state.log_history[0], gradients


def relative_difference(found, expected):
    both = [torch.cat([gradients[name].flatten() for name in expected]) for gradients in (found, expected)]
    return ((both[0] - both[1]).norm() / both[1].norm()).item()


def assert_close(found, expected, tolerance):
    assert relative_difference(found[1], expected[1]) <= tolerance
    for term in ("loss", "cross_entropy", "triplet", "consistency"):
        assert found[0][term] == pytest.approx(expected[0][term], rel=tolerance, abs=tolerance * 1e-2), term


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("accumulation", "vit"),
        ("accumulation", "convnext"),  # not with batch normalisation: a row's gradient depends on those beside it
        ("activation checkpointing", "vit"),
        ("activation checkpointing", "mobilevit"),
        ("recomputed views", "vit"),
        ("recomputed views", "convnext"),
        ("recomputed views, compiled", "vit"),
        ("compiled", "vit"),
        ("compiled", "convnext"),
        ("compiled", "mobilevit"),
        ("bf16", "vit"),
        ("bf16", "convnext"),
    ],
)
def test_mode(mode, kind, tmp_path):
    expected = step(make(kind), tmp_path / "plain")
    found = step(make(kind), tmp_path / "mode", **MODES[mode])
    assert_close(found, expected, TOLERANCES[mode])
    if mode == "bf16":
        assert relative_difference(found[1], expected[1]) > 1e-4, "nothing was computed in half precision"


@pytest.mark.parametrize("kind", ["resnet", "mobilevit"])
def test_bf16_costs_batch_normalisation_no_more_than_in_plain_training(kind, tmp_path):
    # Statistics of few values amplify rounding: measured relative differences are 0.14 and 0.38 without guidance.
    differences = {}
    for guidance in ("none", "sage"):
        (_, expected), (_, found) = (
            step(make(kind), tmp_path / guidance / str(bf16), guidance=guidance, bf16=bf16) for bf16 in (False, True)
        )
        differences[guidance] = relative_difference(found, expected)
    assert differences["sage"] <= 1.5 * differences["none"]


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_fp16_with_a_scaler(kind):
    """On a CPU accelerate refuses fp16, so autocast and scaler are torch's own, around the Trainer's loss."""
    rows = [Rows()[index] for index in range(16)]
    results = []
    for dtype in (torch.float32, torch.float16):
        model = make(kind).train()
        args = SageTrainingArguments(output_dir="unused", degradation="mean", use_cpu=True, report_to="none")
        trainer = SageTrainer(model, args)
        scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
        with torch.autocast("cpu", torch.float16, enabled=dtype == torch.float16):
            loss = trainer.compute_loss(model, trainer.data_collator(rows))
        assert loss.dtype == torch.float32
        optimizer = torch.optim.SGD(model.parameters())
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer) if scaler.is_enabled() else None
        results.append((loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}))
    assert results[1][0] == pytest.approx(results[0][0], rel=TOLERANCES["fp16"])
    assert 1e-5 < relative_difference(results[1][1], results[0][1]) <= TOLERANCES["fp16"]


def test_recomputing_activations_leaves_running_statistics_as_plain_training_does(tmp_path):
    plain, recomputed = make("mobilevit"), make("mobilevit")
    step(plain, tmp_path / "plain")
    step(recomputed, tmp_path / "mode", activation_checkpointing=True)
    unguided = make("mobilevit")
    step(unguided, tmp_path / "none", guidance="none")
    switched_on_by_hand = make("mobilevit")
    switched_on_by_hand.activation_checkpointing_enable()
    step(switched_on_by_hand, tmp_path / "hand")
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(recomputed.get_buffer(name), buffer, msg=name)
        torch.testing.assert_close(switched_on_by_hand.get_buffer(name), buffer, msg=name)
        torch.testing.assert_close(unguided.get_buffer(name), buffer, msg=name)


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_a_frozen_backbone_gives_the_head_the_same_gradient(kind, tmp_path):
    expected = step(make(kind), tmp_path / "plain")
    found = step(make(kind), tmp_path / "mode", freeze_backbone=True)
    assert set(found[1]) == {"classifier.weight", "classifier.bias"}
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, expected[1][name])
    assert found[0]["loss"] == pytest.approx(expected[0]["loss"])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_fresh_adapters_give_the_head_the_same_gradient(kind, tmp_path):
    # A fresh adapter adds nothing yet, so head and loss are those of the model as it is.
    expected = step(make(kind), tmp_path / "plain")
    found = step(add_adapters(make(kind), rank=4), tmp_path / "mode")
    assert found[0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-6)
    for name in ("weight", "bias"):
        gradient = found[1][f"base_model.model.classifier.modules_to_save.default.{name}"]
        torch.testing.assert_close(gradient, expected[1][f"classifier.{name}"])
    assert any(gradient.any() for name, gradient in found[1].items() if "lora_B" in name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["vit", "convnext"])
@pytest.mark.parametrize("mode", ["bf16", "fp16", "compiled"])
def test_mode_on_a_gpu(mode, kind, tmp_path):
    settings = {"fp16": True} if mode == "fp16" else MODES[mode]
    expected = step(make(kind), tmp_path / "plain", use_cpu=False)
    found = step(make(kind), tmp_path / "mode", use_cpu=False, **settings)
    assert_close(found, expected, TOLERANCES[mode])


def test_a_model_that_can_not_recompute_says_so(tmp_path):
    with pytest.raises(ValueError, match="ConvNextForImageClassification does not support activation checkpointing"):
        step(make("convnext"), tmp_path, activation_checkpointing=True)
