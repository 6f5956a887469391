"""Pictures that occur more than once: exactly, or nearly by their perceptual hash."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

BITS = 64
_BITS_SET = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)


def near_pairs(hashes: np.ndarray, distance: int) -> np.ndarray:
    """
    All pairs of hashes that differ in at most so many bits.

    Hashes are cut into `distance + 1` bands. Two that differ in at most `distance` bits agree in one band at least
    (the pigeonhole principle), so only those are compared that share a band: that finds every pair, without comparing
    all with all.

    Args:
        hashes (`numpy.ndarray`): uint64, (hashes,), each once.
        distance (`int`): in bits, 0 to 31.

    Returns:
        `numpy.ndarray`: (pairs, 2), places of the hashes, the smaller one first, sorted.

    Example:

    ```python
    >>> import numpy as np
    >>> from sage_hf.data.checking.duplicates import near_pairs
    >>> near_pairs(np.array([0b0000, 0b0111, 0b0001], dtype=np.uint64), 2).tolist()
    [[0, 2], [1, 2]]

    ```
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    edges = np.linspace(0, BITS, distance + 2).astype(int)
    for low, high in pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        ordered = band[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, int)
        for start, end in zip(starts, np.r_[starts[1:], len(ordered)], strict=True):
            members = np.sort(order[start:end])
            for place, member in enumerate(members[:-1]):
                others = members[place + 1 :]
                near = others[_bits_set(hashes[others] ^ hashes[member]) <= distance]
                if len(near):
                    found.append(np.column_stack([np.full(len(near), member), near]))
    return np.unique(np.concatenate(found), axis=0)


def _bits_set(values: np.ndarray) -> np.ndarray:
    return _BITS_SET[values.view(np.uint16).reshape(-1, 4)].sum(axis=1)


@dataclass(frozen=True)
class Duplicates:
    """
    Counts of pairs of rows whose pictures are alike.

    Attributes:
        across (`int`): pairs of rows of two splits.
        within (`int`): pairs of rows of one split.
        examples (`list[tuple[int, int]]`): places of the first pairs across splits.
        examples_within (`list[tuple[int, int]]`): likewise, within a split.
    """

    across: int
    within: int
    examples: list[tuple[int, int]]
    examples_within: list[tuple[int, int]]


def exact_duplicates(digests: np.ndarray, splits: np.ndarray, most: int = 5) -> Duplicates:
    """
    Pairs of rows with the same digest.

    Args:
        digests (`numpy.ndarray`): uint64, (rows,).
        splits (`numpy.ndarray`): the number of each row's split, (rows,).
        most (`int`, *optional*, defaults to 5): examples of each kind.
    """
    _, group = np.unique(digests, return_inverse=True)
    counts = _counts(group, splits)
    same = np.column_stack([np.arange(len(counts))] * 2)[counts.sum(axis=1) > 1]
    across, within = _pairs_of_rows(counts, same)
    return Duplicates(across, within, *_examples(same, group, splits, None, most))


def near_duplicates(
    phashes: np.ndarray, digests: np.ndarray, splits: np.ndarray, distance: int, most: int = 5
) -> Duplicates:
    """
    Pairs of rows whose perceptual hashes differ in at most `distance` bits, those with the same digest left out.

    Args:
        phashes, digests (`numpy.ndarray`): uint64, (rows,).
        splits (`numpy.ndarray`): the number of each row's split, (rows,).
        distance (`int`): in bits.
        most (`int`, *optional*, defaults to 5): examples of each kind.
    """
    hashes, group = np.unique(phashes, return_inverse=True)
    counts = _counts(group, splits)
    same = np.column_stack([np.arange(len(hashes))] * 2)[counts.sum(axis=1) > 1]
    pairs = np.concatenate([same, near_pairs(hashes, distance)])
    across, within = _pairs_of_rows(counts, pairs)
    exact = exact_duplicates(digests, splits, most=0)
    examples = _examples(pairs, group, splits, digests, most)
    return Duplicates(across - exact.across, within - exact.within, *examples)


def _counts(group: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Rows of each group in each split, (groups, splits)."""
    counts = np.zeros((int(group.max(initial=-1)) + 1, int(splits.max(initial=-1)) + 1), dtype=np.int64)
    np.add.at(counts, (group, splits), 1)
    return counts


def _pairs_of_rows(counts: np.ndarray, pairs: np.ndarray) -> tuple[int, int]:
    """How many pairs of rows, across splits and within one, some pairs of groups stand for."""
    first, second = counts[pairs[:, 0]], counts[pairs[:, 1]]
    own = pairs[:, 0] == pairs[:, 1]
    within = np.where(own, (first * (first - 1) // 2).sum(axis=1), (first * second).sum(axis=1))
    totals, others = first.sum(axis=1), second.sum(axis=1)
    every = np.where(own, totals * (totals - 1) // 2, totals * others)
    return int((every - within).sum()), int(within.sum())


def _examples(
    pairs: np.ndarray, group: np.ndarray, splits: np.ndarray, digests: np.ndarray | None, most: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The first pairs of rows across splits and within one; with `digests`, of rows that differ in them."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(int(group.max(initial=-1)) + 2))
    across: list[tuple[int, int]] = []
    within: list[tuple[int, int]] = []
    for one, other in pairs:
        for row in order[starts[one] : starts[one + 1]]:
            partners = order[starts[other] : starts[other + 1]]
            partners = partners[partners > row] if one == other else partners
            if digests is not None:
                partners = partners[digests[partners] != digests[row]]
            own = splits[partners] == splits[row]
            for kind, found in ((within, partners[own]), (across, partners[~own])):
                kind += [(min(int(row), int(it)), max(int(row), int(it))) for it in found[: most - len(kind)]]
        if len(across) >= most and len(within) >= most:
            break
    return sorted(across), sorted(within)
