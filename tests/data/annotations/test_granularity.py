import io

import numpy as np
import pytest

from sage_hf import DataError
from sage_hf.data.annotations import Boxes, Coarsened, Fixations, MapFile


def annotation_of(rows):
    file = io.BytesIO()
    np.save(file, np.array(rows, dtype=np.float32))
    return MapFile(file.getvalue())


RING = [
    [0, 0, 0, 0, 0, 0, 0],
    [0, 4, 4, 4, 0, 0, 0],
    [0, 4, 0, 4, 0, 0, 0],
    [0, 4, 4, 4, 1, 2, 0],
    [0, 0, 0, 0, 0, 0, 0],
]


def test_by_hand():
    ring = annotation_of(RING)
    assert Coarsened(ring, "feature").saliency((7, 5)).tolist() == (np.array(RING) / 4).tolist()
    # Half the maximum is 2: the 1 is out, the 2 is in, and the ring is filled.
    assert Coarsened(ring, "area").saliency((7, 5)).tolist() == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]
    assert Coarsened(ring, "box").saliency((7, 5)).tolist() == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 1, 0],
        [0, 1, 1, 1, 1, 1, 0],
        [0, 1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]


def test_threshold():
    ring = annotation_of(RING)
    assert Coarsened(ring, "box", threshold=0.75).saliency((7, 5)).sum() == 9
    assert Coarsened(ring, "box", threshold=1).saliency((7, 5)).sum() == 9
    assert Coarsened(ring, "area", threshold=0.01).saliency((7, 5)).sum() == 11


def test_half_the_height_of_a_gaussian():
    found = Coarsened(Fixations(((50.5, 30.5),), 8), "area").saliency((101, 61))
    # Its half width at half maximum is sigma * sqrt(2 ln 2) = 9.42, so nine pixels to each side of the middle one.
    assert found[30].sum() == found[:, 50].sum() == 19
    assert set(np.unique(found)) == {0, 1}


def test_nothing_stays_nothing_and_errors_stay_errors():
    for granularity in ("box", "area", "feature"):
        assert Coarsened(Boxes(()), granularity).saliency((4, 3)) is None
        with pytest.raises(DataError, match="outside the picture"):
            Coarsened(Boxes(((9, 9, 10, 10),)), granularity).saliency((4, 3))


def test_settings():
    with pytest.raises(ValueError, match=r"Unknown granularity 'fine'. Choose one of box, area, feature"):
        Coarsened(Boxes(()), "fine")
    for threshold in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            Coarsened(Boxes(()), "box", threshold)
