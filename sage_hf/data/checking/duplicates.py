"""Pictures that occur more than once: exactly, or nearly by their perceptual hash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

BITS = 64
SAME_THUMBNAIL = 0.975
"""Least correlation of the thumbnails of pictures that look alike."""
_BITS_SET = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)


def near_pairs(hashes: np.ndarray, distance: int) -> Iterator[tuple[int, np.ndarray]]:
    """
    All pairs of hashes that differ in at most so many bits, each once.

    Hashes are cut into `distance + 1` bands. Two that differ in at most `distance` bits agree in one band at least
    (the pigeonhole principle), so only those are compared that share a band: that finds every pair without comparing
    all with all.

    Args:
        hashes (`numpy.ndarray`): uint64, (hashes,).
        distance (`int`): in bits, 0 to 31.

    Yields:
        `tuple[int, numpy.ndarray]`: the place of a hash, and places, all larger, of some that are near to it.

    Example:

    ```python
    >>> import numpy as np
    >>> from sage_hf.data.checking.duplicates import near_pairs
    >>> hashes = np.array([0b0000, 0b0111, 0b0001], dtype=np.uint64)
    >>> [(place, near.tolist()) for place, near in near_pairs(hashes, 2)]
    [(0, [2]), (1, [2])]

    ```
    """
    edges = np.linspace(0, BITS, distance + 2).astype(int)
    masks = [np.uint64((1 << int(high)) - (1 << int(low))) for low, high in pairwise(edges)]
    for number, mask in enumerate(masks):
        band = hashes & mask
        order = np.argsort(band, kind="stable")
        ordered = band[order]
        for members in np.split(order, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1):
            for place, member in enumerate(members[:-1]):
                others = members[place + 1 :]
                differing = hashes[others] ^ hashes[member]
                near = np.flatnonzero(_bits_set(differing) <= distance)
                for earlier in masks[:number]:  # pairs that agree there were yielded already
                    near = near[(differing[near] & earlier) != 0]
                if len(near):
                    yield int(member), others[near]


def _bits_set(values: np.ndarray) -> np.ndarray:
    return _BITS_SET[values.view(np.uint16).reshape(-1, 4)].sum(axis=1)


@dataclass
class Duplicates:
    """
    Pairs of rows whose pictures are alike.

    Attributes:
        across (`int`): pairs of rows of two splits.
        within (`int`): pairs of rows of one split.
        across_examples (`list[tuple[int, int]]`): places of some pairs across splits, the smaller one first.
        within_examples (`list[tuple[int, int]]`): likewise, within a split.
    """

    across: int = 0
    within: int = 0
    across_examples: list[tuple[int, int]] = field(default_factory=list)
    within_examples: list[tuple[int, int]] = field(default_factory=list)


class Pictures:
    """
    Distinct pictures, and the rows that each occurs in.

    Args:
        digests (`numpy.ndarray`): uint64, (rows,): alike for the same picture.
        splits (`numpy.ndarray`): the number of each row's split, (rows,).
        most (`int`, *optional*, defaults to 5): examples of each kind.
    """

    def __init__(self, digests: np.ndarray, splits: np.ndarray, most: int = 5):
        self.splits, self.most = splits, most
        _, self.first, group = np.unique(digests, return_index=True, return_inverse=True)
        self.counts = np.zeros((len(self.first), int(splits.max(initial=0)) + 1), dtype=np.int64)
        """Rows of each picture in each split."""
        np.add.at(self.counts, (group, splits), 1)
        self._order = np.argsort(group, kind="stable")
        self._starts = np.searchsorted(group[self._order], np.arange(len(self.first) + 1))

    def rows(self, picture: int) -> np.ndarray:
        """The rows that a picture occurs in, ascending."""
        return self._order[self._starts[picture] : self._starts[picture + 1]]

    def exact(self) -> Duplicates:
        """Pairs of rows with the same picture."""
        totals = self.counts.sum(axis=1)
        within = int((self.counts * (self.counts - 1) // 2).sum())
        found = Duplicates(int((totals * (totals - 1) // 2).sum()) - within, within)
        repeated = np.flatnonzero(totals > 1)
        for picture in repeated[np.argsort(self.first[repeated])]:
            self._exemplify(found, picture, picture)
            if self._enough(found):
                break
        return found

    def near(self, phashes: np.ndarray, thumbnails: np.ndarray, distance: int) -> Duplicates:
        """
        Pairs of rows whose pictures look alike but are not the same.

        Their hashes differ in at most `distance` bits, and their thumbnails correlate by 0.975 or more. Hashes alone
        take different things on the same ground for one: of 490 photographs of single leaves, five pairs of different
        ones were within 6 bits, with correlations up to 0.95, while copies that were compressed, halved in size,
        brighter or noisier had 0.98 or more.

        Args:
            phashes (`numpy.ndarray`): uint64, (rows,).
            thumbnails (`numpy.ndarray`): uint8, (rows, pixels), grey.
            distance (`int`): in bits.
        """
        found = Duplicates()
        totals = self.counts.sum(axis=1)
        for picture, candidates in near_pairs(phashes[self.first], distance):
            correlations = _correlations(thumbnails[self.first[picture]], thumbnails[self.first[candidates]])
            others = candidates[correlations >= SAME_THUMBNAIL]
            within = int((self.counts[others] @ self.counts[picture]).sum())
            found.within += within
            found.across += int((totals[others] * totals[picture]).sum()) - within
            for other in () if self._enough(found) else others:
                self._exemplify(found, picture, other)
                self._exemplify(found, other, picture)
        return found

    def _exemplify(self, found: Duplicates, picture: int, other: int) -> None:
        """Pairs of the first row of each split that a picture occurs in, with rows of another or the same picture."""
        rows, partners = self.rows(picture), self.rows(other)
        _, places = np.unique(self.splits[rows], return_index=True)
        for row in np.sort(rows[places]).tolist():
            own = self.splits[partners] == self.splits[row]
            for examples, kind in ((found.within_examples, own), (found.across_examples, ~own)):
                for partner in partners[kind & (partners != row)][: self.most].tolist():
                    pair = (min(row, partner), max(row, partner))
                    if len(examples) < self.most and pair not in examples:
                        examples.append(pair)

    def _enough(self, found: Duplicates) -> bool:
        return min(len(found.within_examples), len(found.across_examples)) >= self.most


def _correlations(thumbnail: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pearson's correlation of a thumbnail, (pixels,), with others, (others, pixels); 0 where one is constant."""
    one, many = thumbnail - thumbnail.mean(), others - others.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(one) * np.linalg.norm(many, axis=1)
    return np.divide(many @ one, norms, out=np.zeros(len(many)), where=norms > 0)
