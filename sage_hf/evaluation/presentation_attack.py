"""Presentation attack detection, with the error rates of ISO/IEC 30107-3, as an `evaluate` module."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve


class PresentationAttack(evaluate.Metric):
    """
    Error rates of a presentation attack detector: APCER and BPCER (terms of ISO/IEC 30107-3) with their mean ACER at a
    threshold; BPCER at fixed APCER; equal error rate, AUROC, d-prime and true positive rates at fixed false positive
    rates over all thresholds.

    A score says how much a picture looks like an attack, and a picture is called an attack if its score is at least
    the threshold. 0 is bona fide, 1 an attack: the attack is the positive class. APCER is the share of attacks called
    bona fide, for the type of attack where it is largest; BPCER the share of bona fide presentations called attacks.
    BPCER10, BPCER20 and BPCER100 are what papers call the BPCER at an APCER of 10, 5 and 1 %. These names and ACER are
    given as the literature uses them, without a claim that the standard, which is not free to read, has them.

    Limitations:
        A threshold chosen on the scored rows makes the rates at it too good: choose it on validation data, with
        `eer_threshold` for instance. BPCER at fixed APCER is such a rate; below `n` rows of a type, BPCER`n` allows
        no miss of that type. The equal error rate, AUROC, d-prime and true positive rates pool the types of
        attack, so a frequent type hides a rare one. A false positive rate of 0.001 says nothing new below 1,000 bona
        fide rows. d-prime describes scores near to normal, not those of a sigmoid piled up at 0 and 1.

    Example:

    ```python
    >>> from sage_hf.evaluation import PresentationAttack
    >>> scores = PresentationAttack(keep_in_memory=True).compute(
    ...     predictions=[0.1, 0.2, 0.6, 0.9, 0.8, 0.3],
    ...     references=[0, 0, 0, 1, 1, 1],
    ...     attack_types=["", "", "", "print", "contact lens", "contact lens"],
    ... )
    >>> scores["apcer"], scores["apcer_by_type"]
    (0.5, {'contact lens': 0.5, 'print': 0.0})
    >>> round(scores["bpcer"], 3), round(scores["acer"], 3), round(scores["eer"], 3)
    (0.333, 0.417, 0.333)
    >>> round(scores["bpcer10"], 3)
    0.333

    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Presentation attack detection: APCER, BPCER, ACER, BPCER at fixed APCER, EER, AUROC, d-prime "
            "and TPR at fixed FPR.",
            citation=CITATION,
            inputs_description=inspect.getdoc(self._compute),
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
            reference_urls=["https://www.iso.org/standard/79520.html"],
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        attack_types: Sequence[str | None] | None = None,
        threshold: float | None = None,
        false_positive_rates: Sequence[float] = (0.001, 0.01, 0.1),
        bpcer_at: Sequence[int] = (10, 20, 100),
    ) -> dict[str, Any]:
        """
        Args:
            predictions (`list[float]`): score of being an attack for each row, finite; in [0, 1] without `threshold`.
            references (`list[int]`): 0 bona fide, 1 attack.
            attack_types (`list[str]`, *optional*): the type (presentation attack instrument species) of each row, in
                the order of the references; what stands at bona fide rows is not read. All attacks are one type
                without it.
            threshold (`float`, *optional*): a row is called an attack from this score on; chosen on validation data.
                0.5 if not given.
            false_positive_rates (`list[float]`, *optional*, defaults to `(0.001, 0.01, 0.1)`): each in (0, 1).
            bpcer_at (`list[int]`, *optional*, defaults to `(10, 20, 100)`): the `n` of each BPCER`n`, 2 or more.

        Returns:
            `dict`: rates are in [0, 1].
            - `apcer`: of the worst type, lower is better.
            - `apcer_by_type`: of each type, only with `attack_types`.
            - `bpcer`: lower is better.
            - `acer`: mean of `apcer` and `bpcer`, lower is better.
            - `threshold`: what the three were taken at.
            - `bpcer{n}`: the smallest BPCER at a threshold where APCER, of the worst type, is at most 1/n, lower is
              better.
            - `eer`: where the share of all attacks missed equals that of bona fide rejected, on straight lines between
              the points of the ROC curve; lower is better.
            - `eer_threshold`: the middle of the scores that give the point of the curve nearest to that: between the
              lowest score that is called an attack and the highest one below it, on the scale of the scores. Any
              score in that gap would do on these rows; either end of it would give other rows' scores no room.
            - `auroc`: all attacks against bona fide, 0.5 is chance, higher is better.
            - `d_prime`: difference of the mean scores, attack minus bona fide, over the root of their mean variance
              (population variances; Daugman 2004 takes its magnitude). Any number, higher is better; infinite if
              both variances are zero and the means differ, 0 if these don't.
            - `tpr_at_fpr_{rate}`: largest share of all attacks found at a threshold that rejects at most that share of
              bona fide rows, higher is better.

        Raises:
            `ValueError`: scores that are not finite, or outside [0, 1] without a threshold; references other than 0
                and 1, or only one of them; attack types of another length, or missing for an attack; a threshold or
                false positive rate out of range, or an `n` that is no whole number of 2 or more.
        """
        scores, attack = _checked(predictions, references, threshold)
        threshold = 0.5 if threshold is None else float(threshold)
        types = np.zeros(len(attack), dtype=int) if attack_types is None else _checked_types(attack_types, attack)
        missed = {
            str(kind): float((scores[attack & (types == kind)] < threshold).mean()) for kind in set(types[attack])
        }
        bpcer = float((scores[~attack] >= threshold).mean())
        false_positives, true_positives, thresholds = roc_curve(attack, scores, drop_intermediate=False)
        rate, at = _equal_error(false_positives, 1 - true_positives)
        results: dict[str, Any] = {
            "apcer": max(missed.values()),
            "bpcer": bpcer,
            "acer": (max(missed.values()) + bpcer) / 2,
            "threshold": threshold,
            "eer": rate,
            "eer_threshold": _middle(thresholds, at),
            "auroc": float(roc_auc_score(attack, scores)),
            "d_prime": _d_prime(scores[attack], scores[~attack]),
        }
        if attack_types is not None:
            results["apcer_by_type"] = dict(sorted(missed.items()))
        for limit in false_positive_rates:
            if not 0 < limit < 1:
                raise ValueError(f"A false positive rate is {limit}, expected shares in (0, 1) such as 0.01 for 1 %.")
            results[f"tpr_at_fpr_{limit:g}"] = float(true_positives[false_positives <= limit].max())
        for share in bpcer_at:
            if int(share) != share or share < 2:
                raise ValueError(f"bpcer_at holds {share}, expected whole numbers from 2 on: 20 for an APCER of 1/20.")
            results[f"bpcer{int(share)}"] = _bpcer_at(scores, attack, types, int(share))
        return results


def _bpcer_at(scores: np.ndarray, attack: np.ndarray, types: np.ndarray, share: int) -> float:
    """The smallest BPCER where no type of attack is missed more often than once in `share`."""
    # Of n attacks n // share may lie below the threshold, so the next one is the highest threshold of its type.
    allowed = (np.sort(scores[attack & (types == kind)]) for kind in np.unique(types[attack]))
    threshold = min(ordered[len(ordered) // share] for ordered in allowed)
    return float((scores[~attack] >= threshold).mean())


def _equal_error(false_positives: np.ndarray, false_negatives: np.ndarray) -> tuple[float, int]:
    """The rate at which the two are equal, and the index of the nearest point, which never is the first (infinity)."""
    gap = false_negatives - false_positives  # from 1 down to -1
    after = int(np.argmax(gap <= 0))
    step = gap[after - 1] / (gap[after - 1] - gap[after])
    rate = false_positives[after - 1] + step * (false_positives[after] - false_positives[after - 1])
    return float(rate), after if -gap[after] <= gap[after - 1] else after - 1


def _middle(thresholds: np.ndarray, at: int) -> float:
    """The middle of the scores that give a point of the curve; the lowest score of all has none below it."""
    upper = float(thresholds[at])
    if at + 1 == len(thresholds):
        return upper
    middle = upper + (float(thresholds[at + 1]) - upper) / 2
    return middle if middle > thresholds[at + 1] else upper  # it is rounded between neighbouring numbers


def _d_prime(attack: np.ndarray, bona_fide: np.ndarray) -> float:
    # The computed variance of equal numbers may not be quite zero.
    variance = np.mean([values.var() if np.ptp(values) > 0 else 0.0 for values in (attack, bona_fide)])
    if variance == 0:
        return 0.0 if attack[0] == bona_fide[0] else float(np.copysign(np.inf, attack[0] - bona_fide[0]))
    return float((attack.mean() - bona_fide.mean()) / np.sqrt(variance))


def _checked(predictions: Any, references: Any, threshold: float | None) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.int64)
    found = np.unique(labels).tolist()
    if found != [0, 1]:
        raise ValueError(
            f"References hold {found}, expected both 0 (bona fide) and 1 (attack). The type of an attack goes into "
            "attack_types; error rates of one class alone are not defined."
        )
    if not np.isfinite(scores).all():
        row = int((~np.isfinite(scores)).argmax())
        raise ValueError(f"The score of row {row} is {scores[row]}, expected a finite number. Look at the model.")
    if threshold is None and (scores.min() < 0 or scores.max() > 1):
        raise ValueError(
            f"Scores are in [{scores.min():.4g}, {scores.max():.4g}], expected [0, 1] for the threshold 0.5. Give the "
            "probability of an attack, or the threshold that was chosen on validation data."
        )
    if threshold is not None and not np.isfinite(threshold):
        raise ValueError(f"threshold is {threshold}, expected a finite number on the scale of the scores.")
    return scores, labels == 1


def _checked_types(attack_types: Sequence[str | None], attack: np.ndarray) -> np.ndarray:
    if len(attack_types) != len(attack):
        raise ValueError(
            f"There are {len(attack_types)} attack types and {len(attack)} references, expected as many: one for each "
            "row, any for the bona fide ones."
        )
    missing = [row for row, kind in enumerate(attack_types) if attack[row] and kind in (None, "")]
    if missing:
        raise ValueError(f"Row {missing[0]} is an attack without a type, {len(missing)} such rows. Name its type.")
    return np.array([str(kind) for kind in attack_types])


CITATION = """\
@techreport{iso30107,
  title = {Information technology -- Biometric presentation attack detection -- Part 3: Testing and reporting},
  institution = {International Organization for Standardization},
  number = {ISO/IEC 30107-3},
  year = {2023}
}

@article{daugman2004iris,
  title = {How Iris Recognition Works},
  author = {Daugman, John},
  journal = {IEEE Transactions on Circuits and Systems for Video Technology},
  volume = {14},
  number = {1},
  pages = {21--30},
  year = {2004}
}"""
