"""
With torchvision installed transformers' processors use it, and without it PIL: the same pixels, up to resampling.

The two round otherwise when they resize: a pixel differs by two grey values at most, a picture by a fifth of one on
average (measured with torchvision 0.28; smooth pictures and maps).
"""

import importlib

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.utils import is_torchvision_available

from sage_hf import AlignedTransform

pytestmark = pytest.mark.skipif(not is_torchvision_available(), reason="torchvision is not installed")

LARGEST = 2.01 / 255
"""Largest difference of a pixel, of the range from black to white."""
MEAN = 0.2 / 255
"""Largest mean difference."""

PROCESSORS = {
    "resize": ("vit", "ViT", {"size": {"height": 48, "width": 64}}),
    "resize and centre crop": (
        "clip",
        "CLIP",
        {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 48}},
    ),
    "crop percentage": ("convnext", "ConvNext", {"size": {"shortest_edge": 48}, "crop_pct": 0.875}),
    "second normalisation": (
        "efficientnet",
        "EfficientNet",
        {"size": {"height": 48, "width": 48}, "include_top": True},
    ),
    "rescaling with an offset": (
        "efficientnet",
        "EfficientNet",
        {"size": {"height": 48, "width": 48}, "rescale_offset": True},
    ),
    "flipped channels": (
        "mobilevit",
        "MobileViT",
        {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 48}},
    ),
    "size ratio": ("levit", "Levit", {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}),
    "crop larger than the picture": (
        "bit",
        "Bit",
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 64, "width": 64}},
    ),
}


def both_backends(name):
    family, prefix, settings = PROCESSORS[name]
    torchvision = importlib.import_module(f"transformers.models.{family}.image_processing_{family}")
    pil = importlib.import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    return [
        AlignedTransform(getattr(module, f"{prefix}ImageProcessor{suffix}")(**settings))
        for module, suffix in ((torchvision, ""), (pil, "Pil"))
    ]


def smooth(generator, shape):
    """Noise without the finest detail, as pictures are: samplings differ most where neighbours are unlike."""
    coarse = Image.fromarray(generator.integers(0, 256, (12, 12, *shape[2:]), dtype=np.uint8))
    return coarse.resize(shape[1::-1], Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(96, 80), (131, 67), (40, 33)])
@pytest.mark.parametrize("name", PROCESSORS)
def test_both_backends_give_the_same_picture_and_map(name, size):
    generator = np.random.default_rng(0)
    row = {"image": smooth(generator, (*size, 3)), "saliency": smooth(generator, size), "label": 0}
    with_torchvision, with_pil = (transform(row) for transform in both_backends(name))
    assert with_torchvision["pixel_values"].shape == with_pil["pixel_values"].shape
    scale = (with_pil["pixel_values"].amax() - with_pil["pixel_values"].amin()).item()
    for key, span in (("pixel_values", scale), ("saliency", 1.0)):
        difference = (with_torchvision[key] - with_pil[key]).abs() / span
        assert difference.max() <= LARGEST, key
        assert difference.mean() <= MEAN, key


# Around a picture that is smaller than the crop by an odd number, the two backends pad the other side more.
@pytest.mark.parametrize("name", [name for name in PROCESSORS if name != "crop larger than the picture"])
def test_augmentation_is_the_same_with_either(name):
    generator = np.random.default_rng(0)
    row = {"image": smooth(generator, (96, 80, 3)), "saliency": smooth(generator, (96, 80)), "label": 0}
    results = []
    for transform in both_backends(name):
        transform.random_crop_scale, transform.horizontal_flip = 0.5, 0.5
        results.append(transform(row, np.random.default_rng(7))["saliency"])
    assert (results[0] - results[1]).abs().mean() <= MEAN


def test_the_transform_takes_other_channels_with_either():
    for transform_kind in both_backends("resize"):
        processor = transform_kind.processor
        processor.image_mean, processor.image_std = [0.1, 0.2, 0.3, 0.4, 0.5], [0.5] * 5
        picture = np.random.default_rng(0).integers(0, 256, (5, 40, 30), dtype=np.uint8)
        values = AlignedTransform(processor, num_channels=5)({"image": picture, "saliency": None})["pixel_values"]
        assert values.shape == (5, 48, 64)
        means = torch.tensor(picture / 255).mean(dim=(1, 2)).sub(torch.tensor(processor.image_mean)) / 0.5
        torch.testing.assert_close(values.mean(dim=(1, 2)), means.float(), rtol=0, atol=0.02)
