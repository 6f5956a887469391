"""A marker drawn into the picture and into its map coincides after every transform."""

import io

import datasets
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
from transformers.models.levit.image_processing_pil_levit import LevitImageProcessorPil
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from transformers.utils import is_torchvision_available

from sage_hf import AlignedTransform, DataError, SaliencyCollator
from sage_hf.data.dataset import TransformedDataset
from sage_hf.data.transforms import random_box
from tests.conftest import make_dataset

PROCESSORS = {
    "resize": ViTImageProcessorPil(size={"height": 48, "width": 64}),
    "resize and centre crop": CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 48, "width": 48}),
    "crop percentage": ConvNextImageProcessorPil(size={"shortest_edge": 48}, crop_pct=0.875),
    "second normalisation": EfficientNetImageProcessorPil(size={"height": 48, "width": 48}, include_top=True),
    "rescaling with an offset": EfficientNetImageProcessorPil(size={"height": 48, "width": 48}, rescale_offset=True),
    "flipped channels": MobileViTImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 48, "width": 48}),
    "size ratio": LevitImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}),
    "crop larger than the picture": BitImageProcessorPil(
        size={"shortest_edge": 40}, crop_size={"height": 64, "width": 64}
    ),
}

if is_torchvision_available():
    PROCESSORS |= {
        f"{name}, by torchvision": getattr(transformers, type(processor).__name__.removesuffix("Pil")).from_dict(
            processor.to_dict()
        )
        for name, processor in PROCESSORS.items()
    }


def marked(width, height, box):
    """A black picture with a white box, and a map of the box."""
    values = np.zeros((height, width), dtype=np.uint8)
    left, upper, right, lower = box
    values[upper:lower, left:right] = 255
    saliency = Image.fromarray(values)
    return saliency.convert("RGB"), saliency


def assert_aligned(inputs, edge=0.5):
    """
    The picture is bright where the map is, up to a share of the pixels along the marker's edge.

    Bicubic and bilinear sampling differ there, and jitter and normalisation change what bright means: half-way between
    the brightest and the darkest. Jitter cuts bright or dark greys off, and so moves what is half-way along an edge.
    """
    picture, saliency = inputs["pixel_values"].mean(dim=0), inputs["saliency"][0]
    assert picture.shape == saliency.shape
    inside, outside = saliency > 0.99, saliency < 0.01
    level = (picture[inside].median() + picture[outside].median()) / 2
    differs = (picture > level) != (saliency > 0.5)
    perimeter = 2 * sum((saliency.amax(dim=axis) > 0).sum() for axis in (0, 1))
    assert picture[inside].median() > picture[outside].median()
    assert differs.sum() <= edge * perimeter
    assert not (differs & (inside | outside)).any()


@pytest.mark.parametrize("name", PROCESSORS)
@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(33, 131),
    height=st.integers(33, 131),
    flip=st.sampled_from([0.0, 1.0]),
    crop=st.sampled_from([None, 0.3, 1.0]),
    jitter=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_marker_coincides_after_every_transform(name, width, height, flip, crop, jitter, seed, data):
    # The box spans the middle, so that no crop can cut it away, and is no mirror image of itself.
    left = data.draw(st.integers(width // 3, width // 2 - 4), label="left")
    upper = data.draw(st.integers(height // 3, height // 2 - 4), label="upper")
    image, saliency = marked(width, height, (left, upper, left + width // 4 + 3, upper + height // 4 + 3))
    transform = AlignedTransform(PROCESSORS[name], random_crop_scale=crop, horizontal_flip=flip, color_jitter=jitter)
    inputs = transform({"image": image, "saliency": saliency, "label": 0}, np.random.default_rng(seed))
    if inputs["saliency"] is None:  # a crop without the box
        assert crop is not None
        pixels = inputs["pixel_values"]
        assert (pixels.amax(dim=(1, 2)) - pixels.amin(dim=(1, 2))).max() < 1e-3 or name.startswith("crop larger")
        return
    if (inputs["saliency"] < 0.01).sum() == 0 or (inputs["saliency"] > 0.99).sum() == 0:
        return  # a crop within the box, or with a sliver of it
    assert_aligned(inputs, edge=1.0 if jitter else 0.5)


@settings(max_examples=20, deadline=None)
@given(width=st.integers(60, 99), height=st.integers(60, 99), scale=st.sampled_from([0.25, 0.5, 2.0]))
def test_map_of_another_resolution_is_stretched(width, height, scale):
    image, saliency = marked(width, height, (width // 3, height // 4, width // 2 + 3, height // 2 + 3))
    smaller = saliency.resize((round(width * scale), round(height * scale)), Image.Resampling.BOX)
    transform = AlignedTransform(PROCESSORS["resize"])
    own = transform({"image": image, "saliency": saliency})["saliency"][0]
    stretched = transform({"image": image, "saliency": smaller})["saliency"][0]
    places = torch.cartesian_prod(torch.arange(48.0), torch.arange(64.0))
    middle = [(values.reshape(-1, 1) * places).sum(dim=0) / values.sum() for values in (own, stretched)]
    assert (middle[0] - middle[1]).abs().max() < 1.0  # a pixel; a quarter of the resolution rounds to four


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_before_alignment(orientation):
    upright, saliency = marked(90, 60, (20, 10, 50, 25))
    # What a camera stores so that a viewer who applies the tag sees the upright picture.
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, format="JPEG", quality=95, exif=exif)
    rows = make_dataset(rows=[{"image": {"bytes": buffer.getvalue(), "path": None}, "saliency": saliency, "label": 0}])
    inputs = TransformedDataset(rows, AlignedTransform(PROCESSORS["resize"]), "train split")[0]
    assert_aligned(inputs)

    # A map in the camera's own orientation no longer covers the picture.
    if orientation >= 5:
        sideways = saliency.transpose(undo[orientation])
        row = {"image": {"bytes": buffer.getvalue(), "path": None}, "saliency": sideways, "label": 0}
        wrong = TransformedDataset(make_dataset(rows=[row]), AlignedTransform(PROCESSORS["resize"]), "train split")
        with pytest.raises(DataError, match=r"row 0, column 'saliency': the map is 60x90, its image 90x60"):
            wrong[0]


@settings(max_examples=50, deadline=None)
@given(width=st.integers(1, 60), height=st.integers(1, 60), scale=st.floats(0.01, 1.0), seed=st.integers(0, 1000))
def test_random_crop_stays_inside_and_keeps_its_area(width, height, scale, seed):
    left, upper, right, lower = random_box((width, height), scale, np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height
    # Rounding moves either side by up to half a pixel.
    assert (right - left + 0.5) * (lower - upper + 0.5) >= scale * width * height * 0.999


def test_grey_models_get_one_channel():
    processor = ViTImageProcessorPil(size={"height": 20, "width": 30}, image_mean=[0.5], image_std=[0.5])
    image, saliency = marked(60, 40, (10, 5, 40, 20))
    inputs = AlignedTransform(processor, num_channels=1)({"image": image, "saliency": saliency, "label": 0})
    assert inputs["pixel_values"].shape == (1, 20, 30)
    assert_aligned(inputs)


def test_crop_without_the_marked_region_counts_as_unannotated():
    image, saliency = marked(100, 100, (0, 0, 3, 3))
    transform = AlignedTransform(PROCESSORS["resize"], random_crop_scale=0.2)
    torch.manual_seed(0)
    maps = [transform({"image": image, "saliency": saliency, "label": 0})["saliency"] for _ in range(20)]
    assert any(values is None for values in maps)
    assert any(values is not None for values in maps)


def test_no_augmentation_gives_the_processors_own_pixels():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8))
    for processor in PROCESSORS.values():
        expected = processor(images=image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(AlignedTransform(processor)({"image": image})["pixel_values"], expected.float())


def test_dataset_feature_is_what_the_contract_says():
    assert make_dataset(2).features["saliency"] == datasets.Image(mode="L")


@pytest.mark.parametrize(
    ("saliency", "known"),
    [
        (Image.new("L", (32, 32), 255), True),
        (Image.new("L", (32, 32)), True),  # somebody looked, and marked nothing
        (None, False),
        ([None, Image.new("L", (32, 32))], True),
        ([None], False),
        ([], False),
    ],
)
def test_a_blank_map_is_known(saliency, known):
    row = AlignedTransform(PROCESSORS["resize"])({"image": Image.new("RGB", (32, 32)), "saliency": saliency})
    assert row["saliency_known"] is known
    batch = SaliencyCollator()([row, {"pixel_values": row["pixel_values"], "saliency": None}])
    assert batch["saliency_known"].tolist() == [known, False]
    assert batch["saliency_mask"].tolist() == [row["saliency"] is not None, False]


def test_maps_that_are_cut_away_are_known():
    row = {"image": Image.new("RGB", (64, 64)), "saliency": Image.new("L", (64, 64))}
    row["saliency"].putpixel((0, 0), 255)
    transform = AlignedTransform(PROCESSORS["resize"], random_crop_scale=0.1)
    found = [transform(row, np.random.default_rng(seed)) for seed in range(20)]
    assert any(one["saliency"] is None for one in found)
    assert all(one["saliency_known"] for one in found)
