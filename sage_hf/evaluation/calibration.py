"""How far a classifier's probabilities can be believed, as an `evaluate` module."""

from __future__ import annotations

import inspect
from typing import Any

import datasets
import evaluate
import numpy as np


class Calibration(evaluate.Metric):
    """
    Expected and maximum calibration error of the chosen class (in bins, as in Guo et al. 2017), Brier score and
    negative log-likelihood.

    The confidence of a row is its largest probability. Confidences are sorted into bins of equal width, the m-th of M
    holding those in ((m - 1) / M, m / M]; the error of a bin is |accuracy - mean confidence|. The expected error is
    the mean of these weighted by the rows of each bin, the maximum error the largest of a bin that holds any row.

    Limitations:
        Both errors depend on the number of bins, look at the chosen class alone, and are biased upwards when rows are
        few. Zero is also reached by a model that gives every row the frequencies of the classes: read them beside
        accuracy. Brier score and negative log-likelihood are proper scores, and mix calibration with accuracy.

    Example:

    ```python
    >>> from sage_hf.evaluation import Calibration
    >>> scores = Calibration(keep_in_memory=True).compute(
    ...     predictions=[[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]], references=[0, 1, 1]
    ... )
    >>> {name: round(value, 3) for name, value in scores.items()}  # |1/2 - 0.9| for two rows, |1 - 0.7| for one
    {'ece': 0.367, 'mce': 0.4, 'brier_score': 0.607, 'negative_log_likelihood': 0.922}

    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Expected and maximum calibration error, Brier score and negative log-likelihood.",
            citation=CITATION,
            inputs_description=inspect.getdoc(self._compute),
            features=datasets.Features(
                {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
            reference_urls=["https://arxiv.org/abs/1706.04599"],
        )

    def _compute(self, predictions: Any, references: Any, bins: int = 15) -> dict[str, float]:
        """
        Args:
            predictions (`list[list[float]]`): probabilities, shape (rows, classes), in [0, 1]; each row adds up to 1.
            references (`list[int]`): the right class of each row, in [0, classes - 1].
            bins (`int`, *optional*, defaults to 15): number of bins, at least 1.

        Returns:
            `dict[str, float]`:
            - `ece`: expected calibration error, in [0, 1], lower is better.
            - `mce`: maximum calibration error, in [0, 1], lower is better.
            - `brier_score`: mean over rows of the squared distance to the one-hot reference, summed over the classes
              (Brier 1950), in [0, 2], lower is better. Half of it is what some libraries report for two classes.
            - `negative_log_likelihood`: mean over rows, in nats, in [0, 36.05], lower is better. A probability below
              2.2e-16 counts as that.

        Raises:
            `ValueError`: no rows; rows of different lengths; probabilities that are not finite, negative or don't add
                up to 1; a reference without a column; less than one bin.
        """
        probabilities, labels = _checked(predictions, references)
        if int(bins) != bins or bins < 1:
            raise ValueError(f"bins is {bins}, expected a whole number of at least 1.")
        rows = np.arange(len(labels))
        confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        edges = np.linspace(0, 1, int(bins) + 1)[1:-1]
        held = np.searchsorted(edges, confidence, side="left")
        counts = np.bincount(held, minlength=int(bins))
        # Rows in a bin times its error is the difference of the sums.
        gaps = np.abs(np.bincount(held, correct, int(bins)) - np.bincount(held, confidence, int(bins)))
        likelihood = np.maximum(probabilities[rows, labels], np.finfo(np.float64).eps)
        errors = probabilities.copy()
        errors[rows, labels] -= 1
        scores = {
            "ece": gaps.sum() / len(labels),
            "mce": (gaps[counts > 0] / counts[counts > 0]).max(),
            "brier_score": (errors**2).sum(axis=1).mean(),
            "negative_log_likelihood": -np.log(likelihood).mean(),
        }
        return {name: float(value) for name, value in scores.items()}


def _checked(predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(references, dtype=np.int64)
    if not len(labels):
        raise ValueError("There are no rows. Give predictions and references of at least one.")
    widths = sorted({len(row) for row in predictions})
    if len(widths) > 1 or widths[0] < 2:
        raise ValueError(
            f"Rows of the predictions have {widths} numbers, expected one for each class, two classes or more. "
            "Give a two-class model's probabilities as [1 - p, p]."
        )
    probabilities = np.asarray(predictions, dtype=np.float64)
    if not np.isfinite(probabilities).all() or (probabilities < 0).any():
        row = int((~np.isfinite(probabilities) | (probabilities < 0)).any(axis=1).argmax())
        raise ValueError(
            f"Row {row} of the predictions holds NaN, infinity or a negative number: {probabilities[row].tolist()}. "
            "Probabilities are expected: apply softmax to finite logits."
        )
    sums = probabilities.sum(axis=1, keepdims=True)
    # One hundredth is what a sum of half-precision probabilities can be off.
    if np.abs(sums - 1).max() > 1e-2:
        row = int(np.abs(sums - 1).argmax())
        raise ValueError(f"Row {row} of the predictions adds up to {sums[row, 0]:.4g}, expected 1. Apply softmax.")
    if labels.min() < 0 or labels.max() >= widths[0]:
        raise ValueError(
            f"References are in [{labels.min()}, {labels.max()}], expected [0, {widths[0] - 1}]: "
            f"there are {widths[0]} columns of probabilities."
        )
    return probabilities / sums, labels


CITATION = """\
@inproceedings{guo2017calibration,
  title = {On Calibration of Modern Neural Networks},
  author = {Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle = {International Conference on Machine Learning},
  year = {2017}
}

@article{brier1950verification,
  title = {Verification of Forecasts Expressed in Terms of Probability},
  author = {Brier, Glenn W.},
  journal = {Monthly Weather Review},
  volume = {78},
  number = {1},
  pages = {1--3},
  year = {1950}
}"""
