"""Whatever numbers an annotation holds, it becomes a map that can be used, or an error that says what is wrong."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sage_hf import DataError
from sage_hf.data.annotations import Boxes, Coarsened, CocoRegions, Combined, Fixations, MapFile
from tests.data.annotations.test_map_file import FILES

SIZE = (23, 17)
anything = st.floats(width=64)
near = st.floats(-40, 60)
inside = st.floats(0.5, 16)
numbers = st.one_of(anything, near)


def annotations_of(number):
    boxes = st.builds(
        Boxes,
        st.lists(st.tuples(number, number, number, number), max_size=3).map(tuple),
        st.sampled_from(["xyxy", "xywh", "cxcywh"]),
        st.booleans(),
        st.sampled_from([None, SIZE, (230, 170), (17, 23)]),
    )
    points = st.lists(st.tuples(number, number), min_size=1, max_size=4).map(tuple)
    fixations = st.one_of(
        st.builds(Fixations, points, number, st.none(), st.sampled_from([None, (46, 34)]), st.booleans()),
        points.flatmap(
            lambda given: st.builds(
                Fixations,
                st.just(given),
                number,
                st.lists(number, min_size=len(given), max_size=len(given)).map(tuple),
            )
        ),
    )
    polygons = st.lists(number, min_size=4, max_size=12)
    regions = st.builds(
        CocoRegions,
        st.lists(st.lists(polygons, max_size=2), max_size=2).map(tuple),
        st.sampled_from([SIZE, (230, 170)]),
    )
    single = st.one_of(boxes, fixations, regions)
    return st.one_of(
        single,
        st.builds(Coarsened, single, st.sampled_from(["box", "area", "feature"])),
        st.builds(
            Combined,
            st.lists(single, min_size=1, max_size=3).map(tuple),
            st.sampled_from(["mean", "union", "intersection"]),
        ),
    )


@settings(max_examples=300, deadline=None)
@given(st.one_of(annotations_of(numbers), annotations_of(near), annotations_of(inside)))
def test_a_map_or_an_error(annotation):
    try:
        values = annotation.saliency(SIZE)
    except DataError:
        return
    if values is not None:
        assert values.shape == SIZE[::-1]
        assert values.dtype == np.float32
        assert values.min() >= 0
        assert values.max() == 1


def boxes_from(places):
    side = st.floats(0.01, 40)
    return st.tuples(places, places, side, side).map(lambda box: (*box[:2], box[0] + box[2], box[1] + box[3]))


@settings(max_examples=100, deadline=None)
@given(st.lists(boxes_from(inside), min_size=1, max_size=3), st.integers(1, 9), st.integers(2, 9))
def test_boxes_know_no_resolution(boxes, factor, larger):
    """Numbers of a picture `factor` times as large mean the same, and so do shares."""
    width, height = SIZE
    scaled = tuple(tuple(side * factor for side in box) for box in boxes)
    shares = tuple((left / width, top / height, right / width, low / height) for left, top, right, low in boxes)
    expected = Boxes(tuple(boxes)).saliency(SIZE)
    found = Boxes(scaled, annotated_size=(width * factor, height * factor)).saliency(SIZE)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(Boxes(shares, normalised=True).saliency(SIZE), expected, atol=1e-5)
    # Averaged over blocks, the map of one box at a higher resolution is that at the lower one.
    box = Boxes((boxes[0],), annotated_size=SIZE)
    fine = box.saliency((width * larger, height * larger))
    means = fine.reshape(height, larger, width, larger).mean(axis=(1, 3))
    np.testing.assert_allclose(means / means.max(), box.saliency(SIZE), atol=1e-4)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 22.9), st.floats(0, 16.9)), min_size=1, max_size=4),
    st.floats(0.1, 20),
    st.integers(1, 9),
)
def test_fixations_know_no_resolution(points, sigma, factor):
    width, height = SIZE
    # Where a number is so close to a pixel's edge that rounding may move it over, there is nothing to compare.
    assume(all(abs(value - round(value)) > 1e-6 for point in points for value in point))
    scaled = tuple((x * factor, y * factor) for x, y in points)
    shown = Fixations(scaled, sigma * factor, annotated_size=(width * factor, height * factor))
    np.testing.assert_allclose(shown.saliency(SIZE), Fixations(tuple(points), sigma).saliency(SIZE), atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(boxes_from(near))
def test_clipping_a_box_beforehand_changes_nothing(box):
    left, top, right, bottom = box
    clipped = (max(left, 0), max(top, 0), min(right, SIZE[0]), min(bottom, SIZE[1]))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        with pytest.raises(DataError, match="outside the picture"):
            Boxes((box,)).saliency(SIZE)
        return
    assume(math.prod((clipped[2] - clipped[0], clipped[3] - clipped[1])) > 1e-9)
    np.testing.assert_array_equal(Boxes((box,)).saliency(SIZE), Boxes((clipped,)).saliency(SIZE))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_damaged_files_are_maps_or_errors(kind, data):
    content = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        values = MapFile(content).saliency((3, 2))
    except DataError:
        return
    assert values is None or (values.min() >= 0 and values.max() == 1)
