import io

import numpy as np
import pytest
from PIL import Image

from sage_hf import DataError
from sage_hf.data.saliency import relative_saliency, saliency_array, saliency_map, same_aspect

VALUES = np.array([[0, 1, 2], [4, 8, 16]])
EXPECTED = VALUES / 16


def through(image, **kwargs):
    """As a reader of the file sees it."""
    buffer = io.BytesIO()
    image.save(buffer, **kwargs)
    return Image.open(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize(
    "image",
    [
        through(Image.fromarray(VALUES.astype(np.uint8)), format="PNG"),
        through(Image.fromarray((VALUES * 4000).astype(np.uint16)), format="PNG"),
        through(Image.fromarray((VALUES * 4000).astype(np.uint16)), format="TIFF"),
        through(Image.fromarray((VALUES / 16).astype(np.float32)), format="TIFF"),
        through(Image.fromarray((VALUES * 1e6).astype(np.int32)), format="TIFF"),
        through(Image.fromarray(VALUES.astype(np.uint8)).convert("RGB"), format="PNG"),
        through(Image.fromarray(VALUES.astype(np.uint8)).convert("RGBA"), format="PNG"),
        through(Image.fromarray(VALUES.astype(np.uint8)).convert("LA"), format="PNG"),
        through(Image.fromarray(VALUES.astype(np.uint8)).convert("P"), format="PNG"),
    ],
    ids=["8-bit", "16-bit", "16-bit TIFF", "float", "32-bit", "RGB", "RGBA", "LA", "palette"],
)
def test_every_format_gives_the_same_relative_values(image):
    np.testing.assert_allclose(saliency_array(image), EXPECTED, atol=1e-6)


def test_one_bit():
    assert saliency_array(Image.fromarray(VALUES > 3)).tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("factor", [1e300, 1, 1e-40, 1e-300])
def test_values_beyond_single_precision(factor):
    found = relative_saliency(VALUES * factor)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, EXPECTED, atol=1e-6)


def test_blank_map_is_no_map():
    assert saliency_array(Image.new("L", (3, 2))) is None
    assert saliency_map(Image.new("L", (3, 2)), (3, 2)) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0.0, np.nan]]), "NaN or infinite"),
        (np.array([[0.0, np.inf]]), "NaN or infinite"),
        (np.array([[-0.5, 1.0]]), r"negative values \(lowest -0.5\)"),
    ],
)
def test_values_that_mean_nothing_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        saliency_array(Image.fromarray(values.astype(np.float32)))


def test_colours_are_refused():
    with pytest.raises(DataError, match="the map has colours"):
        saliency_array(Image.new("RGB", (2, 2), (200, 10, 10)))


def test_ink_in_the_alpha_channel_is_refused():
    drawn = Image.new("RGBA", (4, 4), (255, 255, 255, 0))
    drawn.putpixel((1, 1), (255, 255, 255, 255))
    with pytest.raises(DataError, match="partly transparent"):
        saliency_array(drawn)


def test_aspect():
    assert same_aspect((256, 128), (512, 256))
    assert same_aspect((14, 7), (1000, 503))  # 7 * 1000 / 14 = 500, three pixels off: less than one map pixel
    assert same_aspect((4000, 2667), (400, 267))  # 267 / 400 * 4000 = 2670, three pixels off: less than one of these
    assert not same_aspect((128, 256), (256, 128))
    assert not same_aspect((100, 100), (110, 100))


def test_map_is_scaled_to_the_picture():
    grown = saliency_map(Image.fromarray(np.array([[0, 50], [0, 50]], dtype=np.uint8)), (8, 8))
    assert grown.size == (8, 8)
    assert (np.asarray(grown)[:, 0] == 0).all()
    assert (np.asarray(grown)[:, -1] == 255).all()
