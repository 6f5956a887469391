import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sage_hf import DataError
from sage_hf.data.annotations import CocoRegions
from sage_hf.data.annotations.coco import run_lengths


def even_odd(polygon, size):
    """Pixels whose centre a ray to the right leaves an odd number of times."""
    width, height = size
    corners = list(zip(polygon[::2], polygon[1::2], strict=True))
    values = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            inside = False
            for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
                if (y1 > y + 0.5) != (y2 > y + 0.5) and x + 0.5 < x1 + (y + 0.5 - y1) / (y2 - y1) * (x2 - x1):
                    inside = not inside
            values[y, x] = inside
    return values


# Corners that keep every edge away from the centres of pixels, where implementations differ in rounding.
CONCAVE = [2, 1, 17, 3, 11, 8, 18, 14, 3, 13, 7, 7]
LARGE = [-30.0, -20.0, 25.0, 4.0, 9.0, 40.0]


@pytest.mark.parametrize("polygon", [[3, 2, 9, 2, 9, 7, 3, 7], CONCAVE, LARGE], ids=["square", "concave", "clipped"])
def test_polygons_are_filled_where_a_loop_says(polygon):
    found = CocoRegions(([polygon],), (20, 16)).saliency((20, 16))
    expected = even_odd(polygon, (20, 16))
    assert expected.sum() > 25
    # Edges cut some pixels close to their centre; pycocotools works on a grid of a fifth of a pixel.
    assert (found != expected).sum() <= (0 if polygon[1] == polygon[3] else 0.06 * expected.sum())


def test_clipping_far_away_changes_nothing():
    # Whatever pycocotools makes of the whole polygon, which it can still step along.
    whole = coco_mask.frPyObjects([LARGE], 16, 20)
    expected = even_odd(LARGE, (20, 16))
    found = CocoRegions(([LARGE],), (20, 16)).saliency((20, 16))
    assert coco_mask.area(whole)[0] == pytest.approx(found.sum(), abs=2)
    far = [coordinate * 1e6 if abs(coordinate) > 20 else coordinate for coordinate in LARGE]
    np.testing.assert_array_equal(
        CocoRegions(([far],), (20, 16)).saliency((20, 16)), np.ones_like(expected) * even_odd(far, (20, 16))
    )


def test_two_polygons_of_a_region_and_two_regions():
    squares = [[1, 1, 3, 1, 3, 3, 1, 3], [5, 1, 7, 1, 7, 3, 5, 3]]
    expected = np.zeros((4, 8))
    expected[1:3, 1:3] = expected[1:3, 5:7] = 1
    assert np.array_equal(CocoRegions((squares,), (8, 4)).saliency((8, 4)), expected)
    assert np.array_equal(CocoRegions(tuple([square] for square in squares), (8, 4)).saliency((8, 4)), expected)


def test_polygons_are_scaled_before_they_are_drawn():
    found = CocoRegions(([[2, 2, 6, 2, 6, 6, 2, 6]],), (16, 8)).saliency((8, 4))
    expected = np.zeros((4, 8))
    expected[1:3, 1:3] = 1
    assert np.array_equal(found, expected)


# Down the columns of a picture of 3x2 (width x height): 1 blank, 2 marked, 2 blank, 1 marked.
RUNS, MARKED = [1, 2, 2, 1], [[0, 1, 0], [1, 0, 1]]


def test_run_lengths_by_hand():
    assert CocoRegions(({"size": [2, 3], "counts": RUNS},), (3, 2)).saliency((3, 2)).tolist() == MARKED


@pytest.mark.parametrize("kind", [bytes, str])
def test_compressed_run_lengths_are_those_of_pycocotools(kind):
    generator = np.random.default_rng(0)
    for width, height in ((3, 2), (40, 30), (400, 300)):
        marked = (generator.random((height, width)) > 0.5) if width < 100 else np.zeros((height, width), dtype=bool)
        marked[height // 3 : -1, width // 4 :] |= True
        encoded = coco_mask.encode(np.asfortranarray(marked.astype(np.uint8)))
        counts = encoded["counts"] if kind is bytes else encoded["counts"].decode()
        found = CocoRegions(({"size": [height, width], "counts": counts},), (width, height))
        assert np.array_equal(found.saliency((width, height)), marked)
        column = marked.T.ravel()
        changes = np.flatnonzero(np.diff(column)) + 1
        expected = np.diff([0, *([0] if column[0] else []), *changes, len(column)])
        assert run_lengths(counts) == expected.tolist()


def test_masks_are_resized():
    marked = np.zeros((12, 16), dtype=np.uint8)
    marked[4:8, 4:12] = 1
    encoded = coco_mask.encode(np.asfortranarray(marked))
    found = CocoRegions((encoded,), (16, 12)).saliency((8, 6))
    expected = np.asarray(Image.fromarray(marked.astype(np.float32)).resize((8, 6), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(found, expected / expected.max(), atol=1e-6)
    assert found.shape == (6, 8)


def test_no_region_is_no_map():
    assert CocoRegions((), (8, 4)).saliency((8, 4)) is None


SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (([SQUARE], []), "region 1: it has no polygon. If it has a box"),
        (([SQUARE[:4]],), "region 0: polygon 0 has 4 numbers"),  # which pycocotools takes for a box
        (([SQUARE[:7]],), "polygon 0 has 7 numbers"),
        (([[1, 1, float("nan"), 1, 3, 3]],), "NaN or infinite"),
        (([[1, 1, 1e12, 1, 3, 3]],), "coordinates beyond 1e"),
        (([SQUARE, [9, 1, 12, 1, 12, 3]],), "polygon 1 is outside the picture of 8x4"),
        (([[-9, -9, -1, -9, -1, -1]],), "outside the picture"),
        (([[7, -6, 16, 3, 16, -6]],), "outside the picture"),  # though the box around it is not
        (([[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]],), "too small to mark a pixel"),
        ((SQUARE,), "polygon 0 is 1, not a list of numbers"),
        (("abc",), "str is neither a list of polygons nor run lengths"),
        ((7,), "int is neither"),
        (({"size": [8, 4], "counts": [32]},), r"its size is \[8, 4\], not \[4, 8\]"),
        (({"size": None, "counts": [32]},), "its size is None"),
        (({"size": [4, 8]},), "its counts are neither"),
        (({"size": [4, 8], "counts": [40, -8]},), "its counts are neither"),
        (({"size": [4, 8], "counts": [16.0, 16.0]},), "its counts are neither"),
        (({"size": [4, 8], "counts": [16, 15]},), "its run lengths cover 31 pixels, its size has 32"),
        (({"size": [4, 8], "counts": [2**40]},), "its run lengths cover 1099511627776 pixels"),
        (({"size": [4, 8], "counts": ""},), "its run lengths cover 0 pixels"),
        (({"size": [4, 8], "counts": "P"},), "end inside a number"),
        (({"size": [4, 8], "counts": "é"},), "hold other characters"),
        (({"size": [4, 8], "counts": b"1\x00"},), "hold other characters"),
        (({"size": [4, 8], "counts": [32]},), "empty, or too small"),
    ],
)
def test_regions_that_cannot_be_right(regions, message):
    with pytest.raises(DataError, match=message):
        CocoRegions(regions, (8, 4)).saliency((8, 4))


def test_a_declared_size_is_never_made():
    runs = {"size": [10**6, 10**6], "counts": [10**12]}
    with pytest.raises(DataError, match="region 0: the mask has 1000000x1000000 pixels"):
        CocoRegions((runs,), (10**6, 10**6)).saliency((10, 10))
