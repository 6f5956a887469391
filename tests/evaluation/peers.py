"""
Numbers of torchmetrics 1.9.0 that the tests of this folder hold, printed where it is installed:

    pip install --no-deps --target .venv/torchmetrics torchmetrics==1.9.0 lightning-utilities
    PYTHONPATH=.venv/torchmetrics:. python -m tests.evaluation.peers
"""

from __future__ import annotations

import numpy as np

TORCHMETRICS = {
    "ece": 0.18861395,
    "mce": 0.44007847,
    "auroc": 0.74711031,
    "msp_auroc": 0.74436671,
    "msp_aupr_known": 0.84788001,
    "msp_aupr_unknown": 0.57398474,
    "energy_auroc": 0.65672666,
    "energy_aupr_known": 0.81921893,
    "energy_aupr_unknown": 0.42816961,
}


def make_rows() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits, probabilities and labels of 500 rows of four classes, and logits of 300 rows of unknown ones."""
    generator = np.random.default_rng(7)
    logits, labels = generator.normal(size=(500, 4)) * 2, generator.integers(0, 4, 500)
    labels = np.where(generator.random(500) < 0.5, logits.argmax(1), labels)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return logits, probabilities, labels, generator.normal(size=(300, 4))


def torchmetrics_figures() -> dict[str, float]:
    import torch
    from torchmetrics.functional.classification import (
        binary_auroc,
        binary_average_precision,
        multiclass_auroc,
        multiclass_calibration_error,
    )

    logits, probabilities, labels, unknown = make_rows()
    of_classes = (torch.tensor(probabilities), torch.tensor(labels), 4)
    figures = {
        "ece": multiclass_calibration_error(*of_classes, n_bins=15, norm="l1"),
        "mce": multiclass_calibration_error(*of_classes, n_bins=15, norm="max"),
        "auroc": multiclass_auroc(*of_classes, average="macro"),
    }
    known = torch.tensor([1] * len(logits) + [0] * len(unknown))
    rows = torch.tensor(np.concatenate([logits, unknown]))
    for name, score in (("msp", rows.softmax(1).amax(1)), ("energy", rows.logsumexp(1))):
        scaled = (score - score.min()) / (score.max() - score.min())  # it applies a sigmoid outside [0, 1]
        figures[f"{name}_auroc"] = binary_auroc(scaled, known)
        figures[f"{name}_aupr_known"] = binary_average_precision(scaled, known)
        figures[f"{name}_aupr_unknown"] = binary_average_precision(1 - scaled, 1 - known)
    return {name: float(value) for name, value in figures.items()}


if __name__ == "__main__":
    for name, value in torchmetrics_figures().items():
        print(f"{name:20} {value:.8f}  held: {TORCHMETRICS[name]:.8f}")  # noqa: T201
