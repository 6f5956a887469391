"""Closed-set classification: scikit-learn's figures under the names that the field uses, as an `evaluate` module."""

from __future__ import annotations

import inspect
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score


class Classification(evaluate.Metric):
    """
    Accuracy, balanced accuracy (mean recall of the classes that occur) and macro F1, each in [0, 1].

    From probabilities also AUROC: of each class that occurs against the rest, their unweighted mean (Fawcett 2006).

    Limitations:
        Accuracy follows the most frequent class. A class without references has no part in balanced accuracy and
        AUROC; in macro F1 it counts zero as soon as a prediction names it.

    Example:

    ```python
    >>> from sage_hf.evaluation import Classification
    >>> metric = Classification(keep_in_memory=True)
    >>> scores = metric.compute(predictions=[0, 1, 0], references=[0, 1, 1])
    >>> {name: round(value, 3) for name, value in scores.items()}
    {'accuracy': 0.667, 'balanced_accuracy': 0.75, 'macro_f1': 0.667}
    >>> probabilities = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    >>> metric.compute(predictions=[0, 1, 0], references=[0, 1, 1], probabilities=probabilities)["auroc"]
    1.0

    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, balanced accuracy, macro F1 and macro AUROC of single-label classification.",
            citation=CITATION,
            inputs_description=inspect.getdoc(self._compute),
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: Any, references: Any, probabilities: Any = None) -> dict[str, float]:
        """
        Args:
            predictions (`list[int]`): the class that the model chose for each row.
            references (`list[int]`): the right class of each row.
            probabilities (`list[list[float]]`, *optional*): shape (rows, classes), in [0, 1], each row adds up to 1,
                in the order of the references. AUROC is left out without them.

        Returns:
            `dict[str, float]`:
            - `accuracy`: share of right rows, in [0, 1], higher is better.
            - `balanced_accuracy`: mean recall of the classes that occur, in [0, 1], higher is better.
            - `macro_f1`: mean F1 of the classes that occur or are predicted, in [0, 1], higher is better.
            - `auroc`: with `probabilities`; in [0, 1], 0.5 is chance, higher is better.

        Raises:
            `ValueError`: no rows; probabilities of another shape, not finite or that don't add up to 1; with
                probabilities, a reference without a column, or one class alone.
        """
        if not len(references):
            raise ValueError("There are no rows. Give predictions and references of at least one.")
        occurring = np.unique(references)
        scores = {
            "accuracy": accuracy_score(references, predictions),
            # scikit-learn's balanced_accuracy_score warns when a prediction names a class that does not occur.
            "balanced_accuracy": recall_score(
                references, predictions, labels=occurring, average="macro", zero_division=0.0
            ),
            "macro_f1": f1_score(references, predictions, average="macro", zero_division=0.0),
        }
        if probabilities is not None:
            scores["auroc"] = _macro_auroc(np.asarray(probabilities, dtype=np.float64), np.asarray(references))
        return {name: float(value) for name, value in scores.items()}


def _macro_auroc(probabilities: np.ndarray, references: np.ndarray) -> float:
    rows, occurring = len(references), np.unique(references)
    if probabilities.ndim != 2 or len(probabilities) != rows:
        raise ValueError(
            f"Probabilities have shape {probabilities.shape}, expected ({rows}, classes): a row for each reference."
        )
    if not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ValueError("Probabilities hold NaN, infinity or a negative number. Apply softmax to finite logits.")
    # One hundredth is what a sum of half-precision probabilities can be off.
    if np.abs(probabilities.sum(axis=1) - 1).max() > 1e-2:
        row = int(np.abs(probabilities.sum(axis=1) - 1).argmax())
        raise ValueError(
            f"Row {row} of the probabilities adds up to {probabilities[row].sum():.4g}, expected 1. Apply softmax."
        )
    if occurring[0] < 0 or occurring[-1] >= probabilities.shape[1]:
        raise ValueError(
            f"References are in [{occurring[0]}, {occurring[-1]}], expected [0, {probabilities.shape[1] - 1}]: "
            f"there are {probabilities.shape[1]} columns of probabilities."
        )
    if len(occurring) < 2:
        raise ValueError(
            f"Every reference is class {occurring[0]}: AUROC needs rows of two classes or more. Add rows of another "
            "class, or leave the probabilities out."
        )
    return float(np.mean([roc_auc_score(references == label, probabilities[:, label]) for label in occurring]))


CITATION = """\
@article{fawcett2006introduction,
  title = {An Introduction to {ROC} Analysis},
  author = {Fawcett, Tom},
  journal = {Pattern Recognition Letters},
  volume = {27},
  number = {8},
  pages = {861--874},
  year = {2006}
}"""
