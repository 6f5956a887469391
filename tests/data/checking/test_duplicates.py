"""Banding and counting against loops over all pairs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_hf.data.checking.duplicates import Pictures, near_pairs


def hashes_with_neighbours(count, generator):
    """Random hashes, most of them some flipped bits away from another."""
    hashes = list(generator.integers(0, 2**64, max(count // 4, 1), dtype=np.uint64))
    while len(hashes) < count:
        near = hashes[generator.integers(len(hashes))]
        for bit in generator.integers(0, 64, generator.integers(0, 7)):
            near ^= np.uint64(1) << np.uint64(bit)
        hashes.append(near)
    return np.array(hashes, dtype=np.uint64)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 60), distance=st.integers(0, 16))
def test_banding_finds_what_all_pairs_find_once(seed, count, distance):
    hashes = hashes_with_neighbours(count, np.random.default_rng(seed))[:count]
    found = [(place, other) for place, near in near_pairs(hashes, distance) for other in near.tolist()]
    naive = [
        (one, other)
        for one, other in itertools.combinations(range(count), 2)
        if (int(hashes[one]) ^ int(hashes[other])).bit_count() <= distance
    ]
    assert sorted(found) == naive


@pytest.mark.parametrize("seed", range(4))
def test_counts_of_rows_against_all_pairs(seed):
    generator = np.random.default_rng(seed)
    digests = generator.integers(0, 25, 60).astype(np.uint64)
    hashes = hashes_with_neighbours(25, generator)[digests]
    thumbnails = generator.integers(0, 256, (3, 64), dtype=np.uint8)[digests % 3]
    thumbnails[digests == 7] = 80  # of a single colour: correlates with nothing
    splits = generator.integers(0, 3, 60)
    counts = dict.fromkeys(itertools.product(("exact", "near"), ("within", "across")), 0)
    for one, other in itertools.combinations(range(60), 2):
        where = "within" if splits[one] == splits[other] else "across"
        if digests[one] == digests[other]:
            counts["exact", where] += 1
        elif (int(hashes[one]) ^ int(hashes[other])).bit_count() <= 6 and 7 not in (digests[one], digests[other]):
            alike = np.corrcoef(thumbnails[one], thumbnails[other])[0, 1] >= 0.975
            counts["near", where] += bool(alike)
    pictures = Pictures(digests, splits)
    for kind, found in (("exact", pictures.exact()), ("near", pictures.near(hashes, thumbnails, 6))):
        assert (found.within, found.across) == (counts[kind, "within"], counts[kind, "across"])
        assert counts[kind, "within"] > 0
        assert counts[kind, "across"] > 0
        for examples, own in ((found.within_examples, True), (found.across_examples, False)):
            assert 0 < len(examples) <= 5
            for one, other in examples:
                assert one < other
                assert (splits[one] == splits[other]) == own
                assert (digests[one] == digests[other]) == (kind == "exact")
