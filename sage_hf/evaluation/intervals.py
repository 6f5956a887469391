"""How sure a mean over runs is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
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


def bootstrap_intervals(
    compute: Callable[[np.ndarray, np.ndarray], dict[str, float]],
    predictions: np.ndarray,
    references: np.ndarray,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """
    Figures on a set of rows, each with the interval that other rows of the same kind would move it in.

    The percentile bootstrap (Efron 1979): rows are drawn with replacement, and the figures computed again. A figure
    that a resample has none of (a class that no row is of) is left out of that resample.

    Args:
        compute (`Callable`): figures by name, given predictions and references.
        predictions (`numpy.ndarray`): (rows, ...).
        references (`numpy.ndarray`): (rows, ...).
        resamples (`int`, *optional*, defaults to 1000): how often rows are drawn; 0 for no intervals.
        level (`float`, *optional*, defaults to 0.95): confidence, in (0, 1).
        seed (`int`, *optional*, defaults to 0): of the draws.

    Returns:
        `dict[str, dict[str, float]]`: `value`, `low` and `high` of each figure; its value alone if no resample has it.

    Example:

    ```python
    >>> import numpy as np
    >>> from sage_hf.evaluation import bootstrap_intervals
    >>> right = np.array([1, 1, 1, 0])
    >>> bootstrap_intervals(lambda p, r: {"accuracy": float((p == r).mean())}, right, np.ones(4))["accuracy"]
    {'value': 0.75, 'low': 0.25, 'high': 1.0}

    ```
    """
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        rows = generator.integers(len(references), size=len(references))
        for name, value in compute(predictions[rows], references[rows]).items():
            drawn.setdefault(name, []).append(value)
    tails = [50 * (1 - level), 50 * (1 + level)]
    result = {}
    for name, value in compute(predictions, references).items():
        result[name] = {"value": value}
        if name in drawn:
            low, high = np.percentile(drawn[name], tails)
            result[name] |= {"low": float(low), "high": float(high)}
    return result
