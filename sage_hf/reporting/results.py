"""The figures that a run recorded: metrics, saliency alignment, other runs."""

from __future__ import annotations

import itertools
from typing import Any

from ..evaluation.intervals import mean_interval
from ..hub.results import value_of
from ..pages import Block, Code, Gallery, Table, Text
from ..pages.charts import interval_chart
from .run_folder import RunFolder
from .training import compared_curves

INTERVALS = (
    "In brackets and as lines: 95% intervals over the split's rows (bootstrap). They say how far other pictures of "
    "the same kind could move the figure, not another training."
)
METHODS = {"cam": "class activation map", "gradient": "input gradient"}
ALIGNMENT = {"cc": "CC", "sim": "SIM", "kl": "KL", "nss": "NSS", "auc_judd": "AUC-Judd"}


def figure(found: Any, digits: int = 4) -> str:
    """
    A figure with its interval, if it has one.

    Args:
        found (`Any`): a number, or one with `value`, `low` and `high`; `None` gives nothing.
        digits (`int`, *optional*, defaults to 4): behind the point.

    Example:

    ```python
    >>> from sage_hf.reporting.results import figure
    >>> figure({"value": 0.9775, "low": 0.9625, "high": 0.99}), figure(0.5), figure(None)
    ('0.9775 (0.9625 to 0.9900)', '0.5000', '')

    ```
    """
    if found is None:
        return ""
    if isinstance(found, dict) and "low" in found:
        return f"{found['value']:.{digits}f} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"
    return f"{value_of(found):.{digits}f}"


def metrics(run: RunFolder) -> list[Block]:
    """
    A table of every figure and split, and a chart of each figure that has intervals.

    Args:
        run ([`RunFolder`]): the run.
    """
    if not run.metrics:
        return [
            Text("The run was not evaluated. `sage-hf train` evaluates on every labelled split but the training one."),
            Code(f"sage-hf evaluate {run.path.name} DATA"),
        ]
    names = list(dict.fromkeys(name for figures in run.metrics.values() for name in figures))
    rows = [[split, *(figure(figures.get(name)) for name in names)] for split, figures in run.metrics.items()]
    blocks: list[Block] = [Table(["split", *map(_words, names)], rows, "Metrics by split")]
    charts = []
    for name in names:
        held = {split: figures[name] for split, figures in run.metrics.items() if "low" in figures.get(name, {})}
        if held:
            charts.append(interval_chart(held, title=_words(name), x_label=_words(name)))
    if charts:
        blocks += [Gallery(*charts), Text(INTERVALS)]
    return blocks


def alignment(run: RunFolder) -> list[Block]:
    """
    Where the model looks, against the maps.

    Args:
        run ([`RunFolder`]): the run.
    """
    if not run.alignment:
        return [
            Text("Where the model looks was not measured. Train with it, or measure it of the checkpoint:"),
            Code(f"sage-hf train ... --saliency_alignment true\nsage-hf evaluate {run.path.name} DATA --saliency"),
        ]
    rows, charted = [], {}
    for split, found in run.alignment.items():
        for method, words in METHODS.items():
            if method in found:
                figures = found[method]
                rows.append(
                    [split, str(found["pictures"]), words, *(figure(figures.get(name), 3) for name in ALIGNMENT)]
                )
                charted[f"{split}, {words}"] = figures["auc_judd"]
    header = ["split", "rows", "how it was asked", *ALIGNMENT.values()]
    return [
        Table(
            header,
            rows,
            "Agreement of the model's saliency, for the class that it predicts, with the maps of annotated rows",
        ),
        Gallery(interval_chart(charted, title="AUC-Judd (chance 0.5)", x_label="AUC-Judd"), width=480),
        Text(
            "Higher is better, but for KL; chance is 0 for CC and NSS, 0.5 for AUC-Judd. A model that looks at "
            "the same places need not rely on them."
        ),
    ]


def by_seed(run: RunFolder) -> list[Block]:
    """
    Accuracies of several trainings, by guidance and split.

    Args:
        run ([`RunFolder`]): with its `seeds`.
    """
    rows, charts = [], []
    assert run.seeds is not None
    splits = list(dict.fromkeys(split for found in run.seeds.values() for split in found))
    for split in splits:
        spread = {}
        for guidance, found in run.seeds.items():
            values = found.get(split, [])
            if values:
                mean, half_width = mean_interval(values)
                spread[guidance] = {"value": mean}
                if len(values) > 1:
                    spread[guidance] |= {"low": mean - half_width, "high": mean + half_width}
                each = ", ".join(f"{value:.4f}" for value in values)
                rows.append([split, guidance, figure(spread[guidance]), each])
        title = f"accuracy, {split}"
        charts.append(interval_chart(spread, title=title, x_label="accuracy"))
    return [
        Table(["split", "guidance", "mean accuracy", "of each seed"], rows, "Accuracy of several trainings"),
        Gallery(*charts),
        Text("In brackets and as lines: 95% intervals of the mean over trainings (Student's t)."),
    ]


def comparison(run: RunFolder, others: list[RunFolder]) -> list[Block]:
    """
    This run beside others.

    Args:
        run ([`RunFolder`]): the run.
        others (`list[RunFolder]`): runs on the same data.
    """
    known = run.record.compared if run.record is not None else []
    if not others and not known:
        return [
            Text(
                "No other run was named. Whether guidance helped is what a run without it on the same data would tell:"
            ),
            Code(f"sage-hf report {run.path.name} OTHER_RUN"),
        ]
    entries = [(f"{run.name}, this run", _guidance(run), run.metrics)]
    entries += [(other.name, _guidance(other), other.metrics) for other in others]
    if not others:  # the runs themselves say more than what the card kept of them
        entries += [
            (f"seed {one['seed']}", _told(one["guidance"], one["saliency_control"]), one["metrics"]) for one in known
        ]
    names = list(dict.fromkeys(name for _, _, found in entries for split in found.values() for name in split))
    splits = list(dict.fromkeys(split for _, _, found in entries for split in found))
    rows = [
        [split, name, guidance, *(figure(found[split].get(metric)) for metric in names)]
        for split in splits
        for name, guidance, found in entries
        if split in found
    ]
    blocks: list[Block] = [Table(["split", "run", "guidance", *map(_words, names)], rows, "This run beside others")]
    charts = []
    # The first figure that has intervals; those of all others are in the table.
    own = next(iter(run.metrics.values()), {})
    with_interval = [name for name in names if "low" in own.get(name, {})]
    for split, first in itertools.product(splits, with_interval[:1]):
        held = {
            f"{run_name} ({guidance})": found[split][first]
            for run_name, guidance, found in entries
            if "low" in _as_dict(found.get(split, {}).get(first))
        }
        if len(held) > 1:
            charts.append(interval_chart(held, title=f"{_words(first)}, {split}", x_label=_words(first)))
    if charts:
        blocks += [Gallery(*charts), Text(INTERVALS)]
    course = compared_curves([run, *others])
    return [*blocks, *([course] if course is not None else [])]


def check_comparable(run: RunFolder, others: list[RunFolder]) -> None:
    """
    Refuse runs that can't stand beside each other.

    Args:
        run ([`RunFolder`]): the run.
        others (`list[RunFolder]`): those to compare it with.

    Raises:
        `ValueError`: one has no `results.json`, or was trained on other data.
    """
    for one in [run, *others] if others else []:
        if one.results is None:
            raise ValueError(f"{one.path} has no results.json of a single run, so it can't be compared.")
    for other in others:
        assert run.results is not None
        assert other.results is not None
        if other.results.get("data") != run.results.get("data"):
            raise ValueError(
                f"{other.path} was trained on other data ({other.results.get('data')}) than {run.path} "
                f"({run.results.get('data')}): the two can't be compared."
            )


def _guidance(run: RunFolder) -> str:
    found = run.results or run.sage
    return _told(found.get("guidance", "unknown"), found.get("saliency_control", "none"))


def _told(guidance: str, control: str) -> str:
    return guidance if guidance == "none" or control == "none" else f"{guidance}, {control} maps"


def _as_dict(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _words(name: str) -> str:
    return name.replace("_", " ")
