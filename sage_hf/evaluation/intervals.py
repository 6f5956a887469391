"""How sure a mean over runs is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy.stats import t as student_t


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """
    Mean of independent runs, and half the width of its confidence interval by Student's t.

    Args:
        values (`Sequence[float]`): one figure a run.
        level (`float`, *optional*, defaults to 0.95): confidence, in (0, 1).

    Returns:
        `tuple[float, float]`: mean and half width; the latter is infinite for a single run.

    Example:

    ```python
    >>> from sage_hf.evaluation import mean_interval
    >>> mean, half_width = mean_interval([0.8, 0.9, 1.0])  # t(2) = 4.303, times 0.1 / sqrt(3)
    >>> round(mean, 3), round(half_width, 3)
    (0.9, 0.248)

    ```
    """
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, math.inf
    quantile = float(student_t.ppf((1 + level) / 2, len(values) - 1))
    return mean, quantile * statistics.stdev(values) / math.sqrt(len(values))
