"""The course of a training: a curve of everything that was logged."""

from __future__ import annotations

from ..pages import Block, Code, Figure, Gallery, Section, Text
from ..pages.charts import line_chart, number
from .run_folder import RunFolder

EVAL = "eval_"
EXPLAINED = {
    "loss": "What is minimised: the task's loss plus the weighted terms.",
    "cross_entropy": "The task's loss of the pictures themselves.",
    "triplet": "The triplet term: how far the view without the evidence must still move away from the picture.",
    "consistency": "The consistency term: how much the prediction changes when the rest of the picture is replaced.",
    "satisfied_triplets": "Share of rows whose triplet needs no more push.",
    "annotated": "Share of the trained rows that had a map.",
    "learning_rate": "Of the optimizer.",
    "grad_norm": "Length of the gradient, before it was clipped.",
}
TRAINING = ("learning_rate", "grad_norm")
"""What is no figure of the model, and comes last."""


def curves(run: RunFolder) -> list[Block]:
    """
    A chart of each quantity by step, in training and in evaluation.

    Args:
        run ([`RunFolder`]): with its log.
    """
    if not run.log:
        return [
            Text("No training log is there. It is part of what a training leaves:"),
            Code("sage-hf train --model MODEL --dataset DATA --output_dir RUN --logging_strategy epoch"),
        ]
    names = [name for row in run.log for name in row if name not in ("step", "epoch", "total_flos")]
    own = dict.fromkeys(name for name in names if not name.startswith(EVAL))
    evaluated = dict.fromkeys(name.removeprefix(EVAL) for name in names if name.startswith(EVAL))
    together = [name for name in own | evaluated if name not in TRAINING]
    ordered = ["loss"] * ("loss" in together) + [name for name in together if name != "loss"]
    charts, constant = [], []
    for name in [*ordered, *(name for name in TRAINING if name in own)]:
        points = {
            label: _points(run.log, key)
            for label, key in (("training", name), ("evaluation", EVAL + name))
            if any(key in row for row in run.log)
        }
        values = {value for _, ys in points.values() for value in ys}
        steps = {step for xs, _ in points.values() for step in xs}
        if len(values) == 1 and len(steps) > 1:
            constant.append(f"{_words(name)} was {number(values.pop())} at every step")
            continue
        charts.append(_chart(name, points, run))
    blocks: list[Block] = [Text(_lead(run)), Gallery(*charts)]
    if constant:
        blocks.append(Text(f"Not drawn, because it never changed: {'; '.join(constant)}."))
    return blocks


def _chart(name: str, points: dict[str, tuple[list[float], list[float]]], run: RunFolder) -> Figure:
    kept = run.record.kept_step if run.record is not None else None
    last = run.log[-1]["step"]
    return line_chart(
        points,
        title=_words(name),
        x_label="optimizer step",
        y_label=_words(name),
        caption=EXPLAINED.get(name, ""),
        mark=(kept, f"kept: step {kept}") if kept is not None and kept != last else None,
    )


def _lead(run: RunFolder) -> str:
    last = run.log[-1]
    epochs = f" ({number(round(last['epoch'], 2))} epochs)" if "epoch" in last else ""
    text = f"{len(run.log)} entries of the log, up to step {number(last['step'])}{epochs}."
    if run.record is not None and run.record.kept_step is not None:
        text += f" The weights of step {run.record.kept_step} were kept."
    return text


def _points(log: list[dict[str, float]], key: str) -> tuple[list[float], list[float]]:
    rows = [(row["step"], row[key]) for row in log if key in row]
    return [step for step, _ in rows], [value for _, value in rows]


def _words(name: str) -> str:
    return name.replace("_", " ")


def compared_curves(runs: list[RunFolder]) -> Section | None:
    """
    What the runs were evaluated to as they went, one chart for each figure that several of them have.

    Args:
        runs (`list[RunFolder]`): the run of the page first.

    Returns:
        [`Section`]: `None` if no figure was evaluated in more than one run.
    """
    keys = dict.fromkeys(name for run in runs for row in run.log for name in row if name.startswith(EVAL))
    charts = []
    for key in keys:
        lines = {run.name: points for run in runs if (points := _points(run.log, key))[0]}
        if len(lines) > 1:
            name = _words(key.removeprefix(EVAL))
            charts.append(line_chart(lines, title=f"{name}, evaluation", x_label="optimizer step", y_label=name))
    return Section("As they were trained", Gallery(*charts)) if charts else None
