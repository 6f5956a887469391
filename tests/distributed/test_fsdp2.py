"""What a model that is split over processes can't do is refused; that it trains as a whole one: test_two_processes."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils.deepspeed import HfDeepSpeedConfig

from sage_hf import SageTrainingArguments
from sage_hf.checks import check_read_apart, check_split_model, check_split_model_is_saved
from sage_hf.forwarding import Encoder
from tests.conftest import make_model
from tests.test_trainer import make_trainer


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("resnet", {}, "view_forward='concatenated'"),
        ("vit", {"view_forward": "separate"}, "view_forward='concatenated'"),
        ("vit", {"view_forward": "recomputed"}, "view_forward='concatenated'"),
        ("resnet", {"guidance": "cyborg"}, "differentiates twice"),
    ],
)
def test_what_a_split_model_would_wait_for_is_refused(tmp_path, dataset, processor, kind, settings, message):
    trainer = make_trainer(tmp_path, kind, train_dataset=dataset, processing_class=processor, **settings)
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match=message):
        trainer.train()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("vit", {}),
        ("vit", {"guidance": "none"}),
        ("resnet", {"guidance": "none"}),
        ("resnet", {"view_forward": "concatenated"}),
    ],
)
def test_what_a_split_model_can_do_is_not_refused(kind, settings):
    args = SageTrainingArguments(output_dir="run", use_cpu=True, **settings)
    encoder = Encoder(make_model(kind), view_forward=args.view_forward)
    check_split_model(args.objective(), encoder.view_forward)


def test_what_some_processes_would_read_alone_is_refused():
    check_read_apart(card_pictures=0, saliency_alignment=False)
    with pytest.raises(ValueError, match="card_pictures passes pictures through the model on some processes"):
        check_read_apart(card_pictures=3)


@pytest.mark.parametrize(("stage", "gathers", "refused"), [(3, False, True), (3, True, False), (2, False, False)])
def test_zero_3_that_saves_no_model_is_refused(stage, gathers, refused):
    zero = {"stage": stage, "stage3_gather_16bit_weights_on_model_save": gathers}
    plugin = SimpleNamespace(hf_ds_config=HfDeepSpeedConfig({"zero_optimization": zero}))
    with pytest.raises(ValueError, match="Set zero3_save_16bit_model") if refused else nullcontext():
        check_split_model_is_saved(None, plugin)


def test_a_model_that_would_not_be_saved_is_refused(monkeypatch):
    sharded, full = (
        FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type=f"{kind}_STATE_DICT")
        for kind in ("SHARDED", "FULL")
    )
    with pytest.raises(ValueError, match="Set FULL_STATE_DICT"):
        check_split_model_is_saved(sharded)
    check_split_model_is_saved(full)
    check_split_model_is_saved(None)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="over GPUs alone"):
        check_split_model_is_saved(None)
