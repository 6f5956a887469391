"""What is kept of the rows' facts: as little as figures and checks of the whole dataset need."""

from __future__ import annotations

from array import array
from collections import Counter

import numpy as np

from .duplicates import Duplicates, Pictures
from .facts import GRID, THUMBNAIL, RowFacts


class Survey:
    """
    Sums and lists over the rows of a dataset. It takes about half a kilobyte a row.

    Args:
        class_names (`list[str]`, *optional*): all classes, those that never occur included.
    """

    def __init__(self, class_names: list[str] | None = None):
        self.classes = dict.fromkeys(class_names or [])
        self.splits: list[str] = []
        self.rows: Counter[str] = Counter()
        """Rows of each split."""
        self.annotated: Counter[str] = Counter()
        self.unlabelled: Counter[str] = Counter()
        self.unlabelled_examples: dict[str, list[str]] = {}
        self.class_rows: Counter[tuple[str, str]] = Counter()
        """Rows by class and split."""
        self.class_annotated: Counter[tuple[str, str]] = Counter()
        self.class_blank: Counter[tuple[str, str]] = Counter()
        """Rows that have maps of which none marks anything."""
        self.annotators: Counter[int] = Counter()
        self.maps = 0
        self.blank_maps = 0
        self.coverage = array("f")
        self.class_coverage: dict[str, array[float]] = {}
        self.widths, self.heights = array("q"), array("q")
        self.picture_bytes = 0
        self.map_bytes = 0
        self.mean_grid = np.zeros((GRID, GRID))
        """Sum of the maps' grids, each scaled to a sum of 1."""
        self.distance = 0.0
        """Sum of the maps' distances of their mass from the centre."""
        # Of each row whose picture could be decoded:
        self.digests, self.phashes, self.thumbnails = array("Q"), array("Q"), bytearray()
        self.split_of, self.index_of, self.label_of = array("q"), array("q"), array("q")
        self.files: list[str] = []
        self.labels: dict[tuple[str, ...] | None, int] = {}

    def add(self, row: RowFacts) -> None:
        """Take a row in."""
        if row.split not in self.rows:
            self.splits.append(row.split)
        self.rows[row.split] += 1
        annotators = row.annotators
        self.annotated[row.split] += annotators > 0
        self.annotators[annotators] += 1
        if row.labels is None:
            self.unlabelled[row.split] += 1
            examples = self.unlabelled_examples.setdefault(row.split, [])
            if len(examples) < 5:
                examples.append(row.where)
        for label in row.labels or ():
            self.classes.setdefault(label)
            self.class_rows[label, row.split] += 1
            self.class_annotated[label, row.split] += annotators > 0
            self.class_blank[label, row.split] += bool(row.maps) and annotators == 0
        for one in row.maps:
            self.map_bytes += one.bytes
            self.maps += 1
            self.blank_maps += not (one.marks or one.error or one.invalid)
            if one.grid is None:
                continue
            self.coverage.append(one.coverage)
            for label in row.labels or ():
                self.class_coverage.setdefault(label, array("f")).append(one.coverage)
            mass = one.grid / one.grid.sum(dtype=np.float64)
            self.mean_grid += mass
            self.distance += float((mass * distances_from_centre(one.size)).sum())
        picture = row.picture
        if picture is None:
            return
        self.picture_bytes += picture.bytes
        if picture.error is None:
            self.widths.append(picture.size[0])
            self.heights.append(picture.size[1])
            self.digests.append(picture.digest)
            self.phashes.append(picture.phash)
            self.thumbnails += picture.thumbnail
            self.split_of.append(self.splits.index(row.split))
            self.index_of.append(row.index)
            self.label_of.append(self.labels.setdefault(row.labels, len(self.labels)))
            self.files.append(row.file)

    def exact_duplicates(self) -> Duplicates:
        """Pairs of rows with the same picture."""
        return self._pictures().exact()

    def near_duplicates(self, distance: int) -> Duplicates:
        """Pairs of rows whose pictures look alike, their hashes differing in at most so many bits."""
        thumbnails = np.frombuffer(bytes(self.thumbnails), dtype=np.uint8).reshape(-1, THUMBNAIL**2)
        return self._pictures().near(np.asarray(self.phashes), thumbnails, distance)

    def _pictures(self) -> Pictures:
        return Pictures(np.asarray(self.digests), np.asarray(self.split_of))

    def where(self, place: int) -> str:
        """How findings name a row with a decoded picture."""
        split, file = self.splits[self.split_of[place]], self.files[place]
        return f"{split} row {self.index_of[place]}" + (f" ({file})" if file else "")


def distances_from_centre(size: tuple[int, int]) -> np.ndarray:
    """
    The distance of each cell of the grid from the centre of a picture of (width, height) pixels, relative to half the
    diagonal: float64 (32, 32), from 0 in the centre to 1 in the corners.
    """
    cells = (np.arange(GRID) + 0.5) / GRID - 0.5
    distances = np.hypot(cells[:, None] * size[1], cells[None, :] * size[0])
    return distances / (np.hypot(*size) / 2)
