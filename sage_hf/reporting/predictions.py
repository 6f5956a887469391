"""What is drawn of predictions, row by row: calibration, ROC, confusion, open set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit, logsumexp, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from ..pages import Block, Figure, Gallery, Section, Table, Text
from ..pages.charts import histogram, line_chart, matrix_chart, number
from ..tasks import MULTI_LABEL, SINGLE_LABEL
from .results import figure

Line = tuple[Sequence[float], Sequence[float]]
"""x and y of its points."""

BINS = 15
"""Of the reliability diagram, as [`~sage_hf.evaluation.Calibration`] has them."""

DRAWN_CLASSES, POINTS = 10, 200
"""Curves of a ROC chart at most, and points of each."""

CONFUSED = 20
"""Classes of a confusion matrix that is drawn, at most."""

CALIBRATION_NAMES = {
    "ece": "expected calibration error",
    "mce": "maximum calibration error",
    "brier_score": "Brier score",
    "negative_log_likelihood": "negative log-likelihood",
}


def calibration(found: dict[str, Any]) -> list[Block]:
    """
    Reliability diagrams and the distribution of confidences.

    Args:
        found (`dict`): what [`evaluate_model`] gives with `predictions`.
    """
    if found["problem_type"] != SINGLE_LABEL:
        return [Text(f"Calibration is measured of one label a picture, not of {found['problem_type']}.")]
    rows = [
        [split, *(figure(figures.get(name)) for name in CALIBRATION_NAMES)]
        for split, figures in found["calibration"].items()
    ]
    charts = []
    for split, one in found["predictions"].items():
        probabilities = softmax(one["logits"].astype(np.float64), axis=1)
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == one["labels"]
        share, mean = calibration_curve(right, confidence, n_bins=BINS, strategy="uniform")
        charts.append(
            line_chart(
                {"model": (mean, share)},
                title=f"reliability, {split}",
                x_label="mean confidence of a bin",
                y_label="share that is right",
                diagonal="calibrated",
                unit_square=True,
                caption="Below the diagonal the model is surer than it should be.",
            )
        )
        title = f"confidence, {split}"
        groups = {name: confidence[held] for name, held in (("right", right), ("wrong", ~right)) if held.any()}
        charts.append(histogram(groups, title=title, x_label="confidence", bins=BINS))
    header = ["split", *CALIBRATION_NAMES.values()]
    return [
        Text(
            "How far the probabilities can be believed: of the rows that the model is 80 % sure of, 80 % should be "
            f"right. Confidences are in {BINS} bins of equal width; bins without rows are left "
            "out, and one of few rows says little: the histogram beside it shows how many there are."
        ),
        Table(header, rows, "Calibration by split, lower is better"),
        Gallery(*charts),
    ]


def roc(found: dict[str, Any]) -> list[Block]:
    """
    ROC curves of each class against all others, and the areas under them.

    Args:
        found (`dict`): as for [`calibration`].
    """
    if found["problem_type"] not in (SINGLE_LABEL, MULTI_LABEL):
        return [Text("ROC curves are of classes; this model predicts numbers.")]
    areas: dict[str, dict[str, float]] = {}
    charts = []
    for split, one in found["predictions"].items():
        scores, positive = scores_and_positives(one["logits"], one["labels"], found["problem_type"])
        curves: dict[str, Line] = {}
        areas[split] = {}
        for index, name in enumerate(found["classes"]):
            held = positive[:, index]
            if held.any() and not held.all():
                areas[split][name] = float(roc_auc_score(held, scores[:, index]))
                curves[name] = _thinned(*roc_curve(held, scores[:, index])[:2])
        lowest = sorted(areas[split], key=lambda name: areas[split][name])[:DRAWN_CLASSES]
        drawn = {f"{name} ({areas[split][name]:.3f})": curves[name] for name in curves if name in lowest}
        if drawn:
            charts.append(_roc_chart(split, drawn, areas[split], len(drawn) < len(curves)))
    rows = [
        [name, *(f"{areas[split][name]:.4f}" if name in areas[split] else "" for split in areas)]
        for name in found["classes"]
    ]
    means = [f"{np.mean(list(of.values())):.4f}" if of else "" for of in areas.values()]
    caption = "Area under the ROC curve of each class against all others (0.5 is chance)"
    return [
        Gallery(*charts),
        Table(["class", *areas], [*rows, ["mean of the classes", *means]], caption),
        Text("A class without rows, or without others, in a split has no curve there."),
    ]


def _roc_chart(split: str, drawn: dict[str, Line], areas: dict[str, float], cut: bool) -> Figure:
    words = ", ".join(f"{name} {area:.3f}" for name, area in areas.items())
    return line_chart(
        drawn,
        title=f"ROC, {split}",
        x_label="false positive rate",
        y_label="true positive rate",
        diagonal="chance",
        unit_square=True,
        caption=f"The {len(drawn)} classes of the smallest areas." if cut else "In brackets: area under the curve.",
        summary=f"Areas under the curves: {words}.",
    )


def scores_and_positives(logits: np.ndarray, labels: np.ndarray, problem_type: str) -> tuple[np.ndarray, np.ndarray]:
    """
    Probabilities of each class, and which rows are of it, both (rows, classes).

    Args:
        logits (`numpy.ndarray`): (rows, classes).
        labels (`numpy.ndarray`): (rows,), or (rows, classes) with several labels a picture.
        problem_type (`str`): see [`~sage_hf.tasks.Task`].
    """
    values = logits.astype(np.float64)
    if problem_type == MULTI_LABEL:
        return expit(values), labels >= 0.5
    return softmax(values, axis=1), labels[:, None] == np.arange(values.shape[1])


def confusion(found: dict[str, Any]) -> list[Block]:
    """
    Confusion matrices; of many classes, the pairs that are confused most.

    Args:
        found (`dict`): as for [`calibration`].
    """
    if found["problem_type"] != SINGLE_LABEL:
        return [Text(f"A confusion matrix needs one label a picture, not {found['problem_type']}.")]
    names = found["classes"]
    blocks: list[Block] = []
    for split, one in found["predictions"].items():
        counts = confusion_matrix(one["labels"], one["logits"].argmax(axis=1), labels=range(len(names)))
        title = f"confusion, {split}"
        if len(names) <= CONFUSED:
            blocks.append(matrix_chart(counts, names, title=title, x_label="predicted", y_label="label"))
            continue
        off = [(int(counts[y, x]), y, x) for y, x in np.argwhere(counts) if y != x]
        rows = [[names[y], names[x], str(count)] for count, y, x in sorted(off, reverse=True)[:CONFUSED]]
        blocks.append(Table(["label", "predicted", "rows"], rows, f"{title}: the pairs confused most"))
    return [Gallery(*blocks, width=400)]


def open_set(found: dict[str, Any], unknown: str) -> list[Block]:
    """
    Histograms of what the model says of known and of unknown classes.

    Args:
        found (`dict`): as for [`calibration`], with `unknown`.
        unknown (`str`): what was unknown, in words.
    """
    blocks: list[Block] = [
        Text(
            f"Rows that the model was trained for against {unknown}. Either score should be higher for what it knows: "
            "the maximum softmax probability, and the energy (log sum exp of the logits)."
        )
    ]
    for split, figures in found["open_set"].items():
        one = found["predictions"][split]
        groups = {"known": one["logits"].astype(np.float64), "unknown": one["unknown_logits"].astype(np.float64)}
        scores = {
            "msp": ("maximum softmax probability", {n: softmax(z, axis=1).max(axis=1) for n, z in groups.items()}),
            "energy": ("energy", {name: logsumexp(logits, axis=1) for name, logits in groups.items()}),
        }
        charts = [
            histogram(
                values,
                title=f"{words}, {split}",
                x_label=words,
                caption=f"AUROC {figure(figures[f'{name}_auroc'])}, known against unknown.",
            )
            for name, (words, values) in scores.items()
        ]
        rows = [
            [words, *(figure(figures[f"{name}_{key}"]) for key in OPEN_SET)] for name, (words, _) in scores.items()
        ]
        caption = f"{len(groups['known'])} known and {len(groups['unknown'])} unknown rows of {split}"
        blocks.append(Section(split, Gallery(*charts), Table(["score", *OPEN_SET.values()], rows, caption)))
    return blocks


OPEN_SET = {
    "auroc": "AUROC",
    "fpr_at_95_tpr": "FPR at 95 % TPR",
    "aupr_known": "AUPR, known",
    "aupr_unknown": "AUPR, unknown",
    "oscr": "OSCR",
}


def differences(found: dict[str, Any], recorded: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """
    Where figures of a prediction are not those that the run recorded of a split of the same name.

    Args:
        found (`dict`): as for [`calibration`].
        recorded (`dict`): figures by split and name.

    Returns:
        `list[str]`: a sentence for each figure that differs in the fourth digit.
    """
    said = []
    for split, figures in found["metrics"].items():
        for name, value in figures.items():
            before = recorded.get(split, {}).get(name)
            if before is not None and not np.isclose(before["value"], value, rtol=1e-3, atol=1e-4):
                said.append(f"{split}, {_words(name)}: {number(value)} here, {number(before['value'])} in the run.")
    return said


def _thinned(x: np.ndarray, y: np.ndarray) -> Line:
    if len(x) <= POINTS:
        return x.tolist(), y.tolist()
    chosen = np.unique(np.linspace(0, len(x) - 1, POINTS).round().astype(int))
    return x[chosen].tolist(), y[chosen].tolist()


def _words(name: str) -> str:
    return name.replace("_", " ")
