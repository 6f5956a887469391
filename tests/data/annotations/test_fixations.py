import math

import numpy as np
import pytest
from scipy import ndimage

from sage_hf import DataError
from sage_hf.data.annotations import Fixations, sigma_of_visual_angle

POINTS = ((4.2, 3.9), (20.5, 11.0), (20.9, 11.3), (29.999, 0.0))
DURATIONS = (0.2, 0.35, 0.1, 1.5)


def gaussians_one_by_one(points, weights, sigma, size):
    width, height = size
    values = np.zeros((height, width))
    for (x, y), weight in zip(points, weights, strict=True):
        for row in range(height):
            for column in range(width):
                square = (column - math.floor(x)) ** 2 + (row - math.floor(y)) ** 2
                values[row, column] += weight * math.exp(-square / (2 * sigma**2))
    return values / values.max()


@pytest.mark.parametrize("durations", [None, DURATIONS])
def test_against_a_loop_and_a_filter(durations):
    found = Fixations(POINTS, 2.5, durations).saliency((30, 20))
    weights = durations or (1, 1, 1, 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, gaussians_one_by_one(POINTS, weights, 2.5, (30, 20)), atol=1e-6)
    impulses = np.zeros((20, 30))
    for (x, y), weight in zip(POINTS, weights, strict=True):
        impulses[int(y), int(x)] += weight
    filtered = ndimage.gaussian_filter(impulses, 2.5, mode="constant", truncate=20)
    np.testing.assert_allclose(found, filtered / filtered.max(), atol=1e-6)


def test_shares_of_the_picture():
    shares = tuple((x / 30, y / 20) for x, y in POINTS)
    whole = Fixations(POINTS, 2.5).saliency((30, 20))
    np.testing.assert_array_equal(Fixations(shares, 2.5, normalised=True).saliency((30, 20)), whole)
    # Sigma is of the picture that was looked at.
    shown = Fixations(shares, 5, normalised=True, annotated_size=(60, 40))
    np.testing.assert_array_equal(shown.saliency((30, 20)), whole)


def test_shown_larger():
    shown = tuple((x * 4, y * 4) for x, y in POINTS)
    np.testing.assert_array_equal(
        Fixations(shown, 10, DURATIONS, annotated_size=(120, 80)).saliency((30, 20)),
        Fixations(POINTS, 2.5, DURATIONS).saliency((30, 20)),
    )


def test_points_outside_count_nothing_and_edges_count_inside():
    found = Fixations(((2, 1), (-3, 1), (9, 9)), 1).saliency((6, 4))
    np.testing.assert_array_equal(found, Fixations(((2, 1),), 1).saliency((6, 4)))
    assert np.unravel_index(Fixations(((6, 4),), 1).saliency((6, 4)).argmax(), (4, 6)) == (3, 5)


def test_extreme_sigmas():
    assert Fixations(((2, 1),), 1e-300).saliency((6, 4)).tolist() == [[0] * 6, [0, 0, 1, 0, 0, 0], [0] * 6, [0] * 6]
    assert Fixations(((2, 1),), 1e300).saliency((6, 4)).min() == 1


def test_no_point_is_no_map():
    assert Fixations((), 2).saliency((6, 4)) is None


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Fixations(((1, float("nan")),), 1), r"point 0 has NaN or infinite coordinates"),
        (Fixations(((1, 1), (1,)), 1), "point 1 has 1 numbers, not 2"),
        (Fixations(((7, 1), (1, -1)), 1), "all 2 points are outside the picture of 6x4.*normalised"),
        (Fixations(((1, 1), (9, 9)), 1, (0, 1)), "outside the picture of 6x4, or last no time"),
        (Fixations(((1, 1),), 0), "sigma is 0; it must be a number above 0"),
        (Fixations(((1, 1),), float("inf")), "sigma is inf"),
        (Fixations(((1, 1),), float("nan")), "sigma is nan"),
        (Fixations(((1, 1),), "wide"), "sigma is 'wide'"),
        (Fixations(((1, 1),), 1, (1, 2)), "1 points, but 2 durations"),
        (Fixations(((1, 1),), 1, (-1,)), "durations can't be negative; the lowest is -1"),
        (Fixations(((1, 1),), 1, (float("nan"),)), "duration 0 has NaN"),
        (Fixations(((1, 1),), 1, annotated_size=(4, 6)), "their aspects differ"),
    ],
)
def test_fixations_that_cannot_be_right(annotation, message):
    with pytest.raises(DataError, match=message):
        annotation.saliency((6, 4))


def test_visual_angle_by_hand():
    # tan(45 degrees) is 1: from 500 mm, a right angle spans 1000 mm, and a pixel is 0.25 mm.
    assert sigma_of_visual_angle(90, 500, 0.25) == pytest.approx(4000)
    # 57.3 cm is where 1 cm spans very nearly one degree.
    assert sigma_of_visual_angle(1, 57.3, 1) == pytest.approx(1, abs=1e-3)
    for arguments in ((0, 1, 1), (180, 1, 1), (1, 0, 1), (1, 1, -1), (float("nan"), 1, 1), (1, float("inf"), 1)):
        with pytest.raises(ValueError, match="between 0 and 180"):
            sigma_of_visual_angle(*arguments)
