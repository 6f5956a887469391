"""Calibration, open-set and presentation-attack figures of logits, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit, logit, softmax
from scipy.stats import rankdata

from .calibration import Calibration
from .intervals import bootstrap_intervals
from .open_set import OpenSet
from .presentation_attack import PresentationAttack

Figures = dict[str, dict[str, float]]


def calibration_figures(logits: np.ndarray, labels: np.ndarray, resamples: int) -> Figures:
    """
    [`Calibration`] of a softmax classifier, each figure with its 95% interval over rows.

    Args:
        logits (`numpy.ndarray`): (rows, classes).
        labels (`numpy.ndarray`): (rows,).
        resamples (`int`): for the intervals; 0 for none.
    """
    metric = Calibration(keep_in_memory=True)

    def compute(probabilities: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return metric._compute(probabilities, references)

    return bootstrap_intervals(compute, softmax(logits.astype(np.float64), axis=1), labels, resamples=resamples)


def ranking_figures(logits: np.ndarray, labels: np.ndarray, resamples: int) -> Figures:
    """
    The macro AUROC of a softmax classifier, as [`Classification`] defines it, with its 95% interval over rows.

    Nothing if all rows are of one class, of which there is no AUROC.

    Args:
        logits (`numpy.ndarray`): (rows, classes).
        labels (`numpy.ndarray`): (rows,).
        resamples (`int`): for the interval; 0 for none.
    """

    def compute(probabilities: np.ndarray, references: np.ndarray) -> dict[str, float]:
        occurring, counts = np.unique(references, return_counts=True)
        if len(occurring) < 2:
            return {}
        # All classes at once by Mann and Whitney's ranks: a thousand resamples ask for it.
        ranks = rankdata(probabilities[:, occurring], axis=0)
        wins = (ranks * (references[:, None] == occurring)).sum(axis=0) - counts * (counts + 1) / 2
        return {"auroc": float((wins / (counts * (len(references) - counts))).mean())}

    return bootstrap_intervals(compute, softmax(logits.astype(np.float64), axis=1), labels, resamples=resamples)


def open_set_figures(logits: np.ndarray, labels: np.ndarray, unknown: np.ndarray, resamples: int) -> Figures:
    """
    [`OpenSet`] of known rows against unknown ones, each figure with its 95% interval over the rows of both.

    Args:
        logits (`numpy.ndarray`): (rows, classes), of rows whose class the model knows.
        labels (`numpy.ndarray`): (rows,).
        unknown (`numpy.ndarray`): (other rows, classes), logits of rows whose class it doesn't know.
        resamples (`int`): for the intervals; 0 for none.
    """
    metric = OpenSet(keep_in_memory=True)

    def compute(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        if len(set(references >= 0)) < 2 and predictions is not everything:
            return {}  # a resample without any row of one kind
        return metric._compute(predictions, references)

    everything = np.concatenate([logits, unknown])
    references = np.concatenate([labels, np.full(len(unknown), -1)])
    return bootstrap_intervals(compute, everything, references, resamples=resamples)


def attack_scores(logits: np.ndarray, bona_fide: int) -> np.ndarray:
    """The probability, (rows,), that a row is of any class but the bona fide one, whose index is given."""
    return 1 - softmax(logits.astype(np.float64), axis=1)[:, bona_fide]


def equal_error_threshold(scores: np.ndarray, attack: np.ndarray) -> float:
    """
    Where as many attacks are missed as bona fide rows are rejected, see [`PresentationAttack`].

    Of the probabilities that do so on these rows, the one in the middle of their log-odds: scores of a confident model
    pile up at 0 and 1, so that half-way between two of them may be next to one on the scale of its logits.

    Args:
        scores (`numpy.ndarray`): (rows,), probabilities, see [`attack_scores`].
        attack (`numpy.ndarray`): (rows,), whether each is an attack; some are, and some are not.
    """
    threshold = PresentationAttack(keep_in_memory=True)._compute(scores, attack)["eer_threshold"]
    below, above = scores[scores < threshold], scores[scores >= threshold]
    if not len(below):
        return threshold
    lower, upper = below.max(), above.min()
    smallest = np.finfo(np.float64).eps  # what 1 - p can tell from 1
    middle = expit(logit(np.clip([lower, upper], smallest, 1 - smallest)).mean())
    return float(np.clip(middle, np.nextafter(lower, upper), upper))


def attack_figures(
    scores: np.ndarray, types: Sequence[str | None], threshold: float | None, resamples: int
) -> dict[str, Any]:
    """
    [`PresentationAttack`], each figure with its 95% interval over rows. A figure that is infinite (a d-prime of scores
    that don't vary) is left out.

    Args:
        scores (`numpy.ndarray`): (rows,), see [`attack_scores`].
        types (`Sequence[str]`): the type of attack of each row, `None` for a bona fide one.
        threshold (`float`, *optional*): 0.5 if not given.
        resamples (`int`): for the intervals; 0 for none.

    Returns:
        `dict`: the figures; `threshold`, a number; `apcer_by_type`, figures by type, if there are several.
    """
    metric = PresentationAttack(keep_in_memory=True)
    names = sorted({kind for kind in types if kind is not None})
    codes = np.array([-1 if kind is None else names.index(kind) for kind in types])
    prefix = "type: "

    def compute(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        if len(set(references >= 0)) < 2 and predictions is not scores:
            return {}  # a resample without any row of one kind
        kinds = [names[code] if code >= 0 else None for code in references]
        found = metric._compute(predictions, references >= 0, kinds, threshold)
        by_type = {f"{prefix}{kind}": value for kind, value in found.pop("apcer_by_type").items()}
        found.pop("threshold")
        return {name: value for name, value in (found | by_type).items() if np.isfinite(value)}

    figures: dict[str, Any] = bootstrap_intervals(compute, scores, codes, resamples=resamples)
    by_type = {name.removeprefix(prefix): figures.pop(name) for name in list(figures) if name.startswith(prefix)}
    figures["threshold"] = 0.5 if threshold is None else threshold
    return figures | ({"apcer_by_type": by_type} if len(by_type) > 1 else {})
