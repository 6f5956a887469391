"""The figures of a saliency dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .facts import GRID
from .survey import Survey

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class CentreBias:
    """How far maps lie in the centre whatever the picture shows."""

    correlation: float
    """Pearson's correlation of the mean map, on a grid of 32x32 cells, with a Gaussian about the centre whose
    deviations across and down are the mean map's own about the centre; in [-1, 1], 0 for a constant mean map."""
    distance: float
    """Mean distance of the maps' mass from the centre, relative to half the diagonal: 0 in the centre, 1 in a corner.
    A map that marks everything has 0.54 on a square picture, less than 0.51 on one that is much longer than high."""


@dataclass(frozen=True)
class ClassStats:
    """Rows of a class by split, and what its maps mark."""

    rows: dict[str, int]
    annotated: dict[str, int]
    """Rows with a map that marks something."""
    blank: dict[str, int]
    """Rows that have maps, of which none marks anything."""
    coverage: dict[str, float] | None
    """Quantiles of the share of pixels that its maps mark, by percentage as in `"50%"`; `None` without maps."""


@dataclass(frozen=True)
class DatasetStats:
    """
    The figures of a dataset. A pixel counts as marked from half of its map's maximum on; a row as annotated if it has
    a map that marks anything.
    """

    rows: int
    """Rows read; with `sampled`, fewer than the dataset has."""
    sampled: bool
    splits: dict[str, dict[str, int]]
    """`rows` and `annotated` of each split."""
    classes: dict[str, ClassStats]
    annotators: dict[int, int]
    """How many rows have so many maps that mark something."""
    sizes: dict[str, dict[str, int]]
    """`min`, `median` and `max` of the pictures' `width` and `height` in pixels, after EXIF rotation."""
    coverage: dict[str, float] | None
    """Quantiles over all maps, as in [`ClassStats`]."""
    centre_bias: CentreBias | None
    picture_bytes: int
    map_bytes: int
    mean_map: list[list[float]] | None = field(repr=False)
    """Mean of the maps, each scaled to a sum of 1, on a grid of 32x32 cells, the top row first."""

    def to_dict(self) -> dict[str, Any]:
        """The figures, ready for JSON; without the mean map, which is 1,024 numbers."""
        figures = asdict(self)
        figures.pop("mean_map")
        figures["annotators"] = {str(count): rows for count, rows in self.annotators.items()}
        return figures


def stats_of(survey: Survey, sampled: bool) -> DatasetStats:
    """The figures of what was surveyed."""
    classes = {}
    for name in survey.classes:
        by_split = {
            kind: {split: counts[name, split] for split in survey.splits}
            for kind, counts in (
                ("rows", survey.class_rows),
                ("annotated", survey.class_annotated),
                ("blank", survey.class_blank),
            )
        }
        classes[name] = ClassStats(**by_split, coverage=quantiles(survey.class_coverage.get(name, ())))
    count = len(survey.coverage)
    mean_map = survey.mean_grid / count if count else None
    return DatasetStats(
        rows=sum(survey.rows.values()),
        sampled=sampled,
        splits={name: {"rows": survey.rows[name], "annotated": survey.annotated[name]} for name in survey.splits},
        classes=classes,
        annotators=dict(sorted(survey.annotators.items())),
        sizes={
            name: {"min": int(min(values)), "median": int(np.median(values)), "max": int(max(values))}
            for name, values in (("width", survey.widths), ("height", survey.heights))
            if len(values)
        },
        coverage=quantiles(survey.coverage),
        centre_bias=(
            None
            if mean_map is None
            else CentreBias(round(centre_correlation(mean_map), 4), round(survey.distance / count, 4))
        ),
        picture_bytes=survey.picture_bytes,
        map_bytes=survey.map_bytes,
        mean_map=None if mean_map is None else mean_map.tolist(),
    )


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """Quantiles by percentage, interpolated linearly; `None` of nothing."""
    if not len(values):
        return None
    found = np.quantile(np.asarray(values, dtype=np.float64), QUANTILES)
    return {f"{share:.0%}": round(float(value), 6) for share, value in zip(QUANTILES, found, strict=True)}


def centre_correlation(mean_map: np.ndarray) -> float:
    """
    Pearson's correlation of a mean map with the Gaussian about the centre that has its second moments.

    Args:
        mean_map (`numpy.ndarray`): (32, 32), not negative.

    Example:

    ```python
    >>> import numpy as np
    >>> from sage_hf.data.checking.stats import centre_correlation
    >>> corner = np.zeros((32, 32))
    >>> corner[:8, :8] = 1
    >>> round(centre_correlation(corner), 2), centre_correlation(np.ones((32, 32)))
    (-0.28, 0.0)

    ```
    """
    if np.ptp(mean_map) == 0:
        return 0.0
    cells = (np.arange(GRID) + 0.5) / GRID - 0.5
    weights = mean_map / mean_map.sum()
    down, across = (weights.sum(axis=1) * cells**2).sum(), (weights.sum(axis=0) * cells**2).sum()
    gaussian = np.exp(-(cells[:, None] ** 2) / (2 * down) - cells[None, :] ** 2 / (2 * across))
    return float(np.corrcoef(mean_map.ravel(), gaussian.ravel())[0, 1])
