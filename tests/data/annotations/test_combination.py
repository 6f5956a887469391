import pickle

import numpy as np
import pytest

from sage_hf import DataError
from sage_hf.data.annotations import Boxes, Combined, Fixations, MapFile, combine_saliency


def maps_of_three():
    generator = np.random.default_rng(0)
    return [generator.random((4, 5)).astype(np.float32) for _ in range(3)]


@pytest.mark.parametrize("how", ["mean", "union", "intersection"])
def test_against_loops(how):
    maps = maps_of_three()
    expected = np.zeros((4, 5))
    for y in range(4):
        for x in range(5):
            values = [one[y, x] for one in maps]
            expected[y, x] = {"mean": sum(values) / 3, "union": max(values), "intersection": min(values)}[how]
    expected /= expected.max()
    for given in (maps, [None, *maps], [*maps, np.zeros((4, 5))]):
        found = combine_saliency(given, how)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_nothing_marked():
    for how in ("mean", "union", "intersection"):
        assert combine_saliency([], how) is None
        assert combine_saliency([None, np.zeros((2, 2))], how) is None
    apart = [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])]
    assert combine_saliency(apart, "intersection") is None
    assert combine_saliency(apart, "union").tolist() == [[1, 1]]


def test_shapes_must_agree():
    with pytest.raises(DataError, match=r"different shapes: \[\(1, 2\), \(2, 2\)\]"):
        combine_saliency([np.ones((2, 2)), np.ones((1, 2))], "mean")


def npy(values):
    import io

    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def test_annotators_of_different_kinds():
    # A map file of half the resolution, a box that covers the right half, and someone who marked nothing.
    annotations = (MapFile(npy(np.array([[1.0, 1.0]]))), Boxes(((2, 0, 4, 2),)), Boxes(()))
    combined = Combined(annotations, "mean")
    assert combined.saliency((4, 2)).tolist() == [[0.5, 0.5, 1, 1], [0.5, 0.5, 1, 1]]
    assert Combined(annotations, "intersection").saliency((4, 2)).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
    assert pickle.loads(pickle.dumps(combined)).saliency((4, 2)).tolist() == combined.saliency((4, 2)).tolist()


def test_the_annotator_is_named():
    combined = Combined((Boxes(()), Fixations(((9, 9),), 1)), "union")
    with pytest.raises(DataError, match="annotator 1: all 1 points are outside"):
        combined.saliency((4, 2))


def test_unknown_combination():
    for make in (lambda: combine_saliency([], "median"), lambda: Combined((), "median")):
        with pytest.raises(ValueError, match=r"Unknown combination 'median'. Choose one of mean, union, intersection"):
            make()
