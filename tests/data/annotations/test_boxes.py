import numpy as np
import pytest

from sage_hf import DataError
from sage_hf.data.annotations import Boxes


def share_of_each_pixel(corners, size):
    """The share of each pixel that a box covers, pixel by pixel."""
    width, height = size
    values = np.zeros((height, width))
    for left, top, right, bottom in corners:
        for y in range(height):
            for x in range(width):
                across = max(0.0, min(right, x + 1) - max(left, x))
                down = max(0.0, min(bottom, y + 1) - max(top, y))
                values[y, x] = max(values[y, x], across * down)
    return values / values.max()


def test_fractional_edges_by_hand():
    # From 0.75 to 2.5 in x: a quarter of the first pixel, all of the second, half of the third; in y all and a half.
    found = Boxes(((0.75, 1, 2.5, 2.5),)).saliency((4, 3))
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 0, 0, 0], [0.25, 1, 0.5, 0], [0.125, 0.5, 0.25, 0]]


def test_a_box_within_a_pixel_marks_it():
    assert Boxes(((1.25, 0.25, 1.5, 0.5),)).saliency((3, 1)).tolist() == [[0, 1, 0]]


CORNERS = ((1.5, 2.25, 6.1, 4.0), (4, 3.5, 9.75, 7.2), (-3, 5, 2.5, 30))


def test_several_boxes_overlap_and_are_clipped():
    np.testing.assert_allclose(Boxes(CORNERS).saliency((10, 8)), share_of_each_pixel(CORNERS, (10, 8)), atol=1e-6)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("box_format", ["xyxy", "xywh", "cxcywh"])
def test_formats(box_format, normalised):
    boxes = []
    for left, top, right, bottom in CORNERS:
        width, height = right - left, bottom - top
        box = {
            "xyxy": (left, top, right, bottom),
            "xywh": (left, top, width, height),
            "cxcywh": (left + width / 2, top + height / 2, width, height),
        }[box_format]
        x, y = (10, 8) if normalised else (1, 1)
        boxes.append((box[0] / x, box[1] / y, box[2] / x, box[3] / y))
    found = Boxes(tuple(boxes), box_format, normalised).saliency((10, 8))
    np.testing.assert_allclose(found, share_of_each_pixel(CORNERS, (10, 8)), atol=1e-6)


def test_drawn_on_a_larger_picture():
    # (6, 3) to (15, 9) of 30x15 is (2, 1) to (5, 3) of 10x5.
    found = Boxes(((6, 3, 15, 9),), annotated_size=(30, 15)).saliency((10, 5))
    expected = np.zeros((5, 10))
    expected[1:3, 2:5] = 1
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_size_that_was_rounded_is_the_same_aspect():
    assert Boxes(((0, 0, 4000, 2667),), annotated_size=(4000, 2667)).saliency((400, 267)).min() == 1


def test_no_box_is_no_map():
    assert Boxes(()).saliency((4, 3)) is None


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Boxes(((0, 0, 1, 1), (0, 0, float("nan"), 1))), r"box 1 has NaN or infinite coordinates: \(0.0, 0.0, nan"),
        (Boxes(((0, 0, float("inf"), 1),)), "box 0 has NaN or infinite"),
        (Boxes(((0, 0, 1),)), "box 0 has 3 numbers, not 4"),
        (Boxes((("a", 0, 1, 1),)), "box 0 is .* not 4 numbers"),
        (Boxes((None,)), "box 0 is None, not 4 numbers"),
        (Boxes(((2, 0, 1, 1),)), r"box 0, \(2.0, 0.0, 1.0, 1.0\), has no area as xyxy. Is box_format right\?"),
        (Boxes(((2, 0, 2, 1),)), "has no area"),
        (Boxes(((2, 0, -1, 1),), "xywh"), "has no area as xywh"),
        (Boxes(((4, 0, 5, 1),)), "box 0, .* is outside the picture of 4x3"),
        (Boxes(((0, -5, 4, 0),)), "outside the picture"),
        (Boxes(((1, 1, 2, 2),), normalised=True), "outside the picture"),
        (Boxes(((0, 0, 1e-300, 1e-300),)), "too small to mark a pixel"),
        (Boxes(((0, 0, 1, 1),), annotated_size=(None, 4)), "the annotated picture can't be"),
        (Boxes(((0, 0, 1, 1),), annotated_size=(10**400, 10**400)), "the annotated picture can't be"),
        (Boxes(((0, 0, 1, 1),), annotated_size=(3, 4)), "annotation is of a picture of 3x4, its image has 4x3"),
        (Boxes(((0, 0, 1, 1),), annotated_size=(0, 0)), r"the annotated picture can't be \(0, 0\) pixels"),
    ],
)
def test_boxes_that_cannot_be_right(annotation, message):
    with pytest.raises(DataError, match=message):
        annotation.saliency((4, 3))


def test_a_picture_of_a_declared_size_is_never_made():
    with pytest.raises(DataError, match=r"more than the 89478485 of PIL.Image.MAX_IMAGE_PIXELS"):
        Boxes(((0, 0, 1, 1),)).saliency((10**9, 10**9))
    with pytest.raises(DataError, match="can't be"):
        Boxes(((0, 0, 1, 1),)).saliency((10, -1))


def test_unknown_format():
    with pytest.raises(ValueError, match=r"Unknown box_format 'yxyx'. Choose one of xyxy, xywh, cxcywh"):
        Boxes((), "yxyx")
