"""Known classes against what the model never saw, from its logits, as an `evaluate` module."""

from __future__ import annotations

import inspect
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.special import log_softmax, logsumexp
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve


class OpenSet(evaluate.Metric):
    """
    Detection of unknown classes by two scores of the logits, and open-set classification of the known ones.

    - `msp`: maximum softmax probability (Hendrycks and Gimpel 2017).
    - `energy`: the negative free energy T log sum exp(logits / T) (Liu et al. 2020).

    Either is higher for what the model knows. A row counts as known from a threshold on (score >= threshold); "true
    positive" means known and accepted, "false positive" unknown and accepted.

    Limitations:
        The figures hold for the unknown classes that were tried, and AUPR also for their share of the rows. OSCR and
        accuracy need the index of the right class: if every known row is given any index, read the other figures only.
        The threshold at 95 % is taken from the rows that are scored.

    Example:

    ```python
    >>> from sage_hf.evaluation import OpenSet
    >>> logits = [[4.0, 0.0], [0.0, 3.0], [2.0, 0.0], [1.0, 0.5], [0.0, 2.5]]
    >>> scores = OpenSet(keep_in_memory=True).compute(predictions=logits, references=[0, 1, 1, -1, -1])
    >>> round(scores["msp_auroc"], 3), round(scores["msp_oscr"], 3), round(scores["accuracy"], 3)
    (0.833, 0.667, 0.667)

    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Open-set recognition by maximum softmax probability and by energy: AUROC, FPR at 95 % TPR, "
            "AUPR, OSCR.",
            citation=CITATION,
            inputs_description=inspect.getdoc(self._compute),
            features=datasets.Features(
                {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
            reference_urls=[
                "https://arxiv.org/abs/1610.02136",
                "https://arxiv.org/abs/2010.03759",
                "https://arxiv.org/abs/1811.04110",
            ],
        )

    def _compute(self, predictions: Any, references: Any, temperature: float = 1.0) -> dict[str, float]:
        """
        Args:
            predictions (`list[list[float]]`): logits, shape (rows, known classes), finite; two classes or more.
            references (`list[int]`): the right class of each row, in [0, known classes - 1], or -1 for an unknown one.
            temperature (`float`, *optional*, defaults to 1.0): T of the energy, above zero.

        Returns:
            `dict[str, float]`: one of each for `msp` and `energy`, and `accuracy`:
            - `{score}_auroc`: known against unknown, in [0, 1], 0.5 is chance, higher is better.
            - `{score}_fpr_at_95_tpr`: share of unknown rows accepted at the highest threshold that accepts at least
              95 % of the known ones, in [0, 1], lower is better.
            - `{score}_aupr_known`: average precision with known rows as positives, in [0, 1], chance is their share,
              higher is better.
            - `{score}_aupr_unknown`: average precision with unknown rows as positives and the score negated, as above.
            - `{score}_oscr`: area under the share of known rows both accepted and rightly classified over the share
              of unknown rows accepted (Dhamija et al. 2018), in [0, `accuracy`], higher is better.
            - `accuracy`: share of known rows whose largest logit is the right class, in [0, 1], higher is better.

        Raises:
            `ValueError`: rows of different lengths or fewer than two logits; logits that are not finite; a reference
                without a column and not -1; no known or no unknown row; a temperature that is not above zero.
        """
        logits, labels = _checked(predictions, references)
        if not (np.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature is {temperature}, expected a finite number above zero.")
        known = labels >= 0
        correct = logits.argmax(axis=1) == labels
        scores: dict[str, Any] = {}
        # Ranks are all that counts: the logarithm keeps apart probabilities that would round to 1.
        for name, score in (
            ("msp", log_softmax(logits, axis=1).max(axis=1)),
            ("energy", temperature * logsumexp(logits / temperature, axis=1)),
        ):
            false_positives, true_positives, _ = roc_curve(known, score, drop_intermediate=False)
            scores[f"{name}_auroc"] = roc_auc_score(known, score)
            scores[f"{name}_fpr_at_95_tpr"] = false_positives[np.argmax(true_positives >= 0.95)]
            scores[f"{name}_aupr_known"] = average_precision_score(known, score)
            scores[f"{name}_aupr_unknown"] = average_precision_score(~known, -score)
            # Known rows that are wrong never enter the curve: what is left is an AUROC, scaled by where it ends.
            counted = correct | ~known
            scores[f"{name}_oscr"] = (
                correct[known].mean() * roc_auc_score(known[counted], score[counted]) if correct.any() else 0.0
            )
        scores["accuracy"] = correct[known].mean()
        return {name: float(value) for name, value in scores.items()}


def _checked(predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(references, dtype=np.int64)
    known = int((labels >= 0).sum())
    if known in (0, len(labels)):
        raise ValueError(
            f"There are {known} known and {len(labels) - known} unknown rows: at least one of each is needed. "
            "References are class indices, and -1 for rows of unknown classes."
        )
    widths = sorted({len(row) for row in predictions})
    if len(widths) > 1 or widths[0] < 2:
        raise ValueError(
            f"Rows of the predictions have {widths} numbers, expected a logit for each known class, two or more. "
            "Give a sigmoid's logit z as [0, z]."
        )
    logits = np.asarray(predictions, dtype=np.float64)
    if not np.isfinite(logits).all():
        row = int((~np.isfinite(logits)).any(axis=1).argmax())
        raise ValueError(
            f"Row {row} of the predictions is {logits[row].tolist()}, expected finite logits. NaN comes from the "
            "model: look at its inputs and at half precision."
        )
    if labels.min() < -1 or labels.max() >= widths[0]:
        raise ValueError(
            f"References are in [{labels.min()}, {labels.max()}], expected [-1, {widths[0] - 1}]: there are "
            f"{widths[0]} logits a row. Give every unknown class as -1."
        )
    return logits, labels


CITATION = """\
@inproceedings{hendrycks2017baseline,
  title = {A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks},
  author = {Hendrycks, Dan and Gimpel, Kevin},
  booktitle = {International Conference on Learning Representations},
  year = {2017}
}

@inproceedings{liu2020energy,
  title = {Energy-based Out-of-distribution Detection},
  author = {Liu, Weitang and Wang, Xiaoyun and Owens, John D. and Li, Yixuan},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}

@inproceedings{dhamija2018reducing,
  title = {Reducing Network Agnostophobia},
  author = {Dhamija, Akshay Raj and G{\\"u}nther, Manuel and Boult, Terrance E.},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2018}
}"""
