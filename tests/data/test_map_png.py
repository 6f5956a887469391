"""Maps as PNG files: the same values in any reader, small, and quick to read."""

import io
import zlib

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from sage_hf.data.map_png import grey_png
from sage_hf.data.pictures import encoded_map


def heat(height, width):
    points = np.zeros((height, width))
    points[height // 3, width // 2] = points[height // 2, width // 5] = 1
    values = ndimage.gaussian_filter(points, width / 16)
    return np.round(values / values.max() * 255).astype(np.uint8)


def pils(values):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_values_come_back(values):
    image = Image.open(io.BytesIO(grey_png(values)), formats=["PNG"])
    image.verify()  # every chunk's checksum
    image = Image.open(io.BytesIO(grey_png(values)), formats=["PNG"])
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), values)


def test_datasets_reads_it():
    values = heat(40, 60)
    stored = {"bytes": grey_png(values), "path": None}
    assert np.array_equal(np.asarray(datasets.Image(mode="L").decode_example(stored)), values)


@pytest.mark.parametrize("values", [heat(120, 160), np.where(heat(120, 160) > 100, 255, 0).astype(np.uint8)])
def test_no_larger_than_pils(values):
    assert len(grey_png(values)) <= len(pils(values))


def test_one_cheap_filter_for_all_rows():
    """A smooth map is stored by differences to the row above, black and white regions as they are."""
    smooth = heat(120, 160)
    for values, expected in ((smooth, 2), (np.where(smooth > 100, 255, 0).astype(np.uint8), 0)):
        file = grey_png(values)
        start = file.index(b"IDAT")
        rows = zlib.decompress(file[start + 4 : start + 4 + int.from_bytes(file[start - 4 : start], "big")])
        assert set(rows[:: values.shape[1] + 1]) == {expected}


def test_notes_are_kept():
    file = encoded_map(np.array([[0.0, 1.0]]), {"Source": "drawn by hand", "Title": "Läsion"})
    with Image.open(io.BytesIO(file)) as image:
        assert image.info == {"Source": "drawn by hand", "Title": "Läsion"}
        assert np.asarray(image).tolist() == [[0, 255]]
