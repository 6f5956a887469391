"""Short ways through an image processor give what the processor gives."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf.data.jitter import jittered
from sage_hf.data.replay import Change, ProcessorReplay
from tests.data.test_alignment import PROCESSORS

MIRROR = Image.Transpose.FLIP_LEFT_RIGHT
TAKEN_APART = {name for name in PROCESSORS if not name.startswith(("flipped channels", "crop larger"))}


def smooth(width, height, seed=0, mode="RGB"):
    """A picture with all values from black to white, and no edges."""
    shape = (5, 6, 3) if mode == "RGB" else (5, 6)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def own(processor, picture):
    array = np.array(picture) if picture.mode == "RGB" else np.array(picture)[None]
    layout = "channels_last" if picture.mode == "RGB" else "channels_first"
    return processor(array, input_data_format=layout, return_tensors="pt")["pixel_values"][0].float()


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", [(90, 61), (48, 133), (64, 48), (7, 5)])
def test_pixels_are_the_processors_own(name, size):
    picture = smooth(*size)
    assert torch.equal(ProcessorReplay(PROCESSORS[name], 3).pixel_values([picture]), own(PROCESSORS[name], picture))


def test_grey_pixels_are_the_processors_own():
    processor = ViTImageProcessorPil(size={"height": 20, "width": 30}, image_mean=[0.4], image_std=[0.3])
    replay = ProcessorReplay(processor, 1)
    picture = smooth(70, 40, mode="L")
    assert replay._parts is not None
    assert replay._parts.size == (30, 20)
    assert torch.equal(replay.pixel_values([picture]), own(processor, picture))


@pytest.mark.parametrize("name", PROCESSORS)
def test_only_geometry_and_values_are_taken_apart(name):
    assert (ProcessorReplay(PROCESSORS[name], 3)._parts is not None) == (name in TAKEN_APART)


@pytest.mark.parametrize("name", PROCESSORS)
def test_mirroring_late_is_mirroring_early(name):
    """Up to how resampling and an odd remainder of a centre crop round."""
    replay = ProcessorReplay(PROCESSORS[name], 3)
    picture = smooth(96, 64)
    late = replay.pixel_values([picture], Change(mirrored=True))
    early = own(PROCESSORS[name], picture.transpose(MIRROR))
    other = own(PROCESSORS[name], picture)
    assert (late - early).abs().max() < 0.2 * (late - other).abs().max()


def test_jitter_late_is_jitter_early():
    factors = (1.2, 0.8, 1.3)
    replay = ProcessorReplay(ViTImageProcessorPil(size={"height": 32, "width": 48}, do_normalize=False), 3)
    picture = smooth(96, 64)
    late = replay.pixel_values([picture], Change(jitter=factors))
    early = own(replay.processor, jittered(picture, factors))
    # Values that are cut off on the whole picture, or after it was made small, and roundings.
    assert (late - early).abs().mean() < 1 / 255
    assert (early - own(replay.processor, picture)).abs().mean() > 10 / 255


class SpreadingProcessor(ViTImageProcessorPil):
    """Spreads each picture's values over the whole range."""

    def resize(self, image, *args, **kwargs):
        image = super().resize(image, *args, **kwargs).astype(float)
        lowest, highest = image.min(), image.max()
        return ((image - lowest) / max(highest - lowest, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("module", ["transformers.models.spreading", "somewhere"])
def test_a_processor_that_looks_at_the_picture_does_its_own_work(monkeypatch, module):
    monkeypatch.setattr(SpreadingProcessor, "__module__", module)
    processor = SpreadingProcessor(size={"height": 24, "width": 24})
    replay = ProcessorReplay(processor, 3)
    picture = smooth(60, 40).point(lambda value: 90 + value // 4)
    assert replay._parts is None
    assert torch.equal(replay.pixel_values([picture]), own(processor, picture))


def test_pictures_are_left_alone(processor):
    replay = ProcessorReplay(processor, 3)
    picture = smooth(50, 40)
    before = picture.tobytes()
    replay.pixel_values([picture], Change(True, (0.5, 0.5, 0.5))).zero_()
    assert picture.tobytes() == before


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jitter_is_pils(mode):
    """`ImageEnhance` is the reference."""
    generator = np.random.default_rng(0)
    for seed in range(60):
        picture = smooth(*generator.integers(1, 40, 2).tolist(), seed=seed, mode=mode)
        factors = generator.uniform(0.05, 1.95, 3).tolist()
        expected = picture
        for enhance, factor in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
        ):
            expected = enhance(expected).enhance(factor)
        assert jittered(picture, factors).tobytes() == expected.tobytes()
