"""Pictures that are finished in batches are those that the transform makes one by one, bit for bit."""

import datasets
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from sage_hf import AlignedTransform, SageTrainer, SaliencyCollator
from sage_hf.data.finishing import CHANGES, jitter
from tests.conftest import make_args, make_dataset, make_model
from tests.data.test_alignment import PROCESSORS
from tests.data.test_replay import TAKEN_APART

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def noise(width, height, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 3])
@settings(max_examples=60, deadline=None)
@given(factors=st.lists(st.floats(0.01, 1.99), min_size=3, max_size=3), seed=st.integers(0, 1000))
@example(factors=[1.0, 1.0, 1.0], seed=0)
@example(factors=[1.99, 1.99, 1.99], seed=0)
@example(factors=[0.5, 1.5, 0.25], seed=0)
def test_jitter_is_pils(channels, device, factors, seed):
    picture = noise(13, 9, channels, seed)
    expected = picture
    for enhance, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[: 2 if channels == 1 else 3],
        factors,
        strict=False,
    ):
        expected = enhance(expected).enhance(factor)
    pictures = torch.from_numpy(np.array(picture).reshape(9, 13, channels)).permute(2, 0, 1)
    other = torch.full_like(pictures, 7)  # whose mean and factors are its own
    batch = torch.stack([other, pictures]).to(device)
    found = jitter(batch, torch.tensor([[0.3, 1.7, 1.2], factors], device=device))[1].permute(1, 2, 0)
    assert np.array_equal(found.cpu().numpy(), np.array(expected).reshape(9, 13, channels))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "augmentation",
    [{}, {"horizontal_flip": 0.5}, {"random_crop_scale": 0.4, "horizontal_flip": 0.5, "color_jitter": 0.6}],
)
@pytest.mark.parametrize("name", sorted(TAKEN_APART))
def test_batches_are_those_of_finished_rows(name, augmentation, device):
    transform = AlignedTransform(PROCESSORS[name], **augmentation)
    unfinished, finish = transform.in_batches()
    rows = [
        {"image": noise(90, 70, seed=index), "saliency": noise(90, 70, 1, seed=index), "label": index}
        for index in range(6)
    ]
    rows[2]["saliency"] = None

    def batch_of(one):
        return SaliencyCollator()([one(row, np.random.default_rng(index)) for index, row in enumerate(rows)])

    expected, sent = batch_of(transform), batch_of(unfinished)
    assert sent["pixel_values"].dtype == torch.uint8
    found = finish({key: value.to(device) for key, value in sent.items()})
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key].cpu(), value), key
    assert finish(expected) is expected


def test_maps_are_sent_as_bytes_where_the_processor_resizes():
    unfinished, _ = AlignedTransform(PROCESSORS["resize"]).in_batches()
    row = unfinished({"image": noise(90, 70), "saliency": noise(90, 70, 1), "label": 0})
    assert row["saliency"].dtype == torch.uint8
    assert unfinished({"image": noise(90, 70), "saliency": Image.new("L", (90, 70)), "label": 0})["saliency"] is None


def test_grey_pictures_and_batches_without_any_map():
    transform = AlignedTransform(
        type(PROCESSORS["resize"])(size={"height": 20, "width": 30}, image_mean=[0.4], image_std=[0.3]),
        num_channels=1,
        color_jitter=0.5,
    )
    unfinished, finish = transform.in_batches()
    row = {"image": noise(60, 40, 1), "saliency": None, "label": 0}
    expected, found = (SaliencyCollator()([one(row, np.random.default_rng(0))] * 2) for one in (transform, unfinished))
    found = finish(found)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert found["saliency"].dtype == torch.float32


@pytest.mark.parametrize("name", sorted(set(PROCESSORS) - TAKEN_APART))
def test_what_cannot_be_taken_apart_is_finished_row_by_row(name):
    transform = AlignedTransform(PROCESSORS[name])
    assert transform.in_batches() == (transform, None)


def trained(folder, processor, data, **others):
    settings = {"horizontal_flip": 0.5, "color_jitter": 0.4, "random_crop_scale": 0.6, "logging_steps": 1}
    args = make_args(folder, max_steps=4, seed=3, on_error="skip", **settings, **others)
    torch.manual_seed(0)
    trainer = SageTrainer(make_model("vit"), args, train_dataset=data, processing_class=processor)
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", ["map-style", "stream"])
def test_a_training_is_the_same_either_way(kind, tmp_path, processor, monkeypatch):
    """The way of a GPU, taken on the processor; with accumulation, and a row that can't be used."""
    rows = list(make_dataset(10))
    rows[3]["image"] = {"bytes": b"no picture", "path": None}
    data = make_dataset(rows=rows)
    if kind == "stream":
        data = data.to_iterable_dataset(num_shards=2)
    assert isinstance(data, datasets.IterableDataset) == (kind == "stream")
    losses, weights, kinds = [], [], []
    for finishes in (False, True):
        monkeypatch.setattr(SageTrainer, "finishes_in_batches", finishes)
        seen, collate = set(), SaliencyCollator.__call__

        def collating(self, rows, seen=seen, collate=collate):
            batch = collate(self, rows)
            seen.add((batch["pixel_values"].dtype, CHANGES in batch))
            return batch

        with monkeypatch.context() as patch:
            patch.setattr(SaliencyCollator, "__call__", collating)
            trainer = trained(tmp_path / str(finishes), processor, data, gradient_accumulation_steps=2)
        kinds.append(seen)
        losses.append([log["loss"] for log in trainer.state.log_history if "loss" in log])
        weights.append(torch.cat([weight.flatten() for weight in trainer.model.parameters()]))
    assert kinds[0] == {(torch.float32, False)}
    assert (torch.uint8, True) in kinds[1]
    assert losses[0] == losses[1]
    assert torch.equal(*weights)


def test_pictures_are_finished_in_batches_on_a_device_alone(tmp_path, processor, monkeypatch):
    class Own(SaliencyCollator):
        """Of a user, who expects pictures as they will be."""

    data = make_dataset(4)
    for collator, device, expected in ((None, "cpu", False), (None, "meta", True), (Own(), "meta", False)):
        args = make_args(tmp_path)
        trainer = SageTrainer(
            make_model("vit"), args, data_collator=collator, train_dataset=data, processing_class=processor
        )
        monkeypatch.setattr(trainer.accelerator.state, "device", torch.device(device))
        assert not trainer.finishes_in_batches  # whoever asks for the loader gets pictures as they are
        monkeypatch.setattr(trainer, "is_in_train", True)
        assert trainer.finishes_in_batches is expected
