import json

import pytest
import torch
from transformers import ConvNextConfig, ConvNextForImageClassification, ViTConfig, ViTForImageClassification

from tests.conftest import load_script

SIDE, BATCH = 64, 16
SHOWN = ("none", "sage, concatenated", "sage, interval 4", "sage, one in 2", "sage, one in 4", "attention")


@pytest.fixture
def script(monkeypatch):
    """The script, with models that are small beside their activations, as large models at usual batches are."""
    module = load_script("benchmarks/step_cost.py")
    monkeypatch.setattr(module, "make_model", small_model)
    return module


def small_model(name, size):
    torch.manual_seed(0)
    if name.startswith("ViT"):
        sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 128}
        config = ViTConfig(image_size=size, patch_size=8, num_labels=10, **sizes)
        config._attn_implementation = "eager"
        return ViTForImageClassification(config)
    return ConvNextForImageClassification(
        ConvNextConfig(hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 1, 1], num_labels=10)
    )


def batch_of(count=BATCH, side=SIDE):
    generator = torch.Generator().manual_seed(0)
    return {
        "pixel_values": torch.randn(count, 3, side, side, generator=generator),
        "saliency": torch.rand(count, 1, side, side, generator=generator),
        "saliency_mask": torch.ones(count, dtype=torch.bool),
        "labels": torch.arange(count) % 10,
    }


def peaks(script, folder, kind, *names):
    measured = []
    for name in names:
        mode = script.Mode(script.Setting(kind, SIDE, BATCH), script.MODES[name], "cpu", str(folder))
        mode.steps(batch_of(), "cpu")
        measured.append(mode.peak(batch_of(), "cpu"))
    return measured


def test_a_quick_run_measures_both_models(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "MODES", {name: script.MODES[name] for name in SHOWN})  # each takes a second
    script.main(["--quick", "--batch", "4", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert [setting["batch"] for setting in record["settings"][:2]] == [4, 4]
    assert record["settings"][2] == {"rounds": 2, "quick": True}
    vit, convnext = (setting.model for setting in script.SETTINGS["cpu"])
    found = [(row["model"], row["mode"]) for row in record["results"]]
    assert found == [(vit, mode) for mode in SHOWN] + [(convnext, mode) for mode in SHOWN if mode != "attention"]
    for row in record["results"]:
        low, high = row["time_ratio_quartiles"]
        assert 0 < low <= row["time_ratio"] <= high
        if row["mode"] == "none":
            assert row["time_ratio"] == row["memory_ratio"] == 1.0
        assert ("views_and_terms_share" in row) == (row["mode"] == "sage, concatenated")
    for model in (vit, convnext):
        ratio = {row["mode"]: row["memory_ratio"] for row in record["results"] if row["model"] == model}
        # A step in k is guided, and its peak is that of any guided step; one row in k is guided, and its peak is less.
        assert ratio["sage, interval 4"] == pytest.approx(ratio["sage, concatenated"], rel=0.02)
        assert 1 < ratio["sage, one in 4"] < ratio["sage, one in 2"] < ratio["sage, concatenated"]


def test_the_table_has_a_line_for_each_row(script):
    row = {"model": "M", "mode": "sage", "time_ratio": 2.345, "memory_ratio": 1.0}
    assert script.table([row]).splitlines()[2:] == ["| M | sage | 2.35 | 1.00 |"]


def test_the_peak_sees_an_allocation_that_is_gone_after_it(script, tmp_path):
    planted = 100_000_000
    mode = script.Mode(script.Setting("ViT", SIDE, BATCH), script.MODES["none"], "cpu", str(tmp_path))
    mode.steps(batch_of(), "cpu")
    before = mode.peak(batch_of(), "cpu")
    mode.model.classifier.register_forward_pre_hook(lambda *_: (torch.empty(planted, dtype=torch.uint8), None)[1])
    # It comes when nearly all activations are there, so that the peak grows by nearly all of it.
    assert planted * 0.98 < mode.peak(batch_of(), "cpu") - before <= planted * 1.001


@pytest.mark.parametrize("kind", ["ViT", "ConvNeXt"])
def test_recomputed_views_need_at_most_a_fifth_more_than_plain_training(script, tmp_path, kind):
    none, kept, recomputed = peaks(script, tmp_path, kind, "none", "sage, concatenated", "sage, recomputed")
    assert kept > 2.2 * none  # so activations are what these peaks are made of
    assert recomputed <= 1.2 * none
