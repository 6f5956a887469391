"""What the runs of a benchmark say: means and paired differences with 95 % intervals, as JSON, tables and a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from study import Block, Figure, Run, Runs, Study, base_and_variant, blocks_of, final_runs, seeds_of

from sage_hf.evaluation import mean_interval

REFERENCES = ("none", "sage")
"""The methods that the others are compared with, seed by seed."""
Interval = dict[str, float]


def summary(study: Study, runs: Runs, seeds: int, *, quick: bool = False) -> list[dict[str, Any]]:
    """
    A row for each method that was tested with a model in a scenario.

    Runs with other settings than those that the search now chooses, or with other epochs, are left out.

    Args:
        study ([`Study`]): which runs belong to it, and which figures they have.
        runs ([`Runs`]): all that were done.
        seeds (`int`): how many were asked for.
        quick (`bool`, *optional*, defaults to `False`): of the quick try.

    Returns:
        `list[dict]`: `model`, `scenario`, `method`, `settings`, `seeds` (those done) and `figures`: by key `mean`,
        `half_width` (none for a single seed), `values`, and `to none` and `to sage`, the paired differences over the
        seeds that both have; with `study.unharmed` also `share`, see [`Study`].
    """
    rows = []
    for block in blocks_of(study, quick=quick):
        done = {
            method: _done(final_runs(study, block, method, seeds, runs, quick=quick), runs) for method in block.methods
        }
        # What a block is compared with may have been tested in another one, with the same data.
        for other in (*REFERENCES, study.unharmed):
            if other is not None and other not in done and other in study.models[block.model].search:
                done[other] = _done(final_runs(study, block, other, seeds, runs, quick=quick), runs)
        for method in block.methods:
            if done[method]:
                rows.append(_row(study, block, method, done))
    # Blocks stand in the order of their importance, rows in that of models, scenarios and methods.
    models, scenarios = list(study.models), _scenarios(study)

    def place(row: dict[str, Any]) -> tuple[int, int, int]:
        methods = list(study.models[row["model"]].search)
        base, _ = base_and_variant(row["method"])
        return models.index(row["model"]), scenarios.index(row["scenario"]), methods.index(base)

    return sorted(rows, key=place)


def _scenarios(study: Study) -> list[str]:
    return sorted({block.scenario for block in study.blocks})


def _done(planned: list[Run], runs: Runs) -> dict[int, dict[str, Any]]:
    """The runs that were done, by seed."""
    found = {run.seed: runs.find(**asdict(run)) for run in planned}
    return {seed: lines[0] for seed, lines in found.items() if lines}


def _row(study: Study, block: Block, method: str, done: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    own = done[method]
    figures = {}
    for figure in (figure for table in study.tables.values() for figure in table):
        scores = {
            name: {seed: run["scores"][figure.key] for seed, run in lines.items() if figure.key in run["scores"]}
            for name, lines in done.items()
        }
        mine = scores[method]
        if not mine:  # a figure of other scenarios
            continue
        result: dict[str, Any] = interval(mine.values()) | {"values": list(mine.values())}  # type: ignore[operator]
        for other in REFERENCES:
            shared = [seed for seed in mine if seed in scores.get(other, {})]
            if other != method and shared:
                result[f"to {other}"] = interval(mine[seed] - scores[other][seed] for seed in shared)
        if study.unharmed is not None:
            damaged, whole = scores.get("none", {}), scores.get(study.unharmed, {})
            share = share_of(mine, damaged, whole)
            if share is not None:
                result["share"] = share
        figures[figure.key] = result
    head = {"model": block.model, "scenario": block.scenario, "method": method}
    return head | {"settings": next(iter(own.values()))["settings"], "seeds": list(own), "figures": figures}


def interval(values: Iterable[float]) -> Interval | None:
    """Mean, and half the width of its 95 % interval by Student's t if there is more than one value."""
    values = list(values)
    if not values:
        return None
    mean, half = mean_interval(values)
    return {"mean": mean, "half_width": half} if math.isfinite(half) else {"mean": mean}


def share_of(mine: Mapping[int, float], least: Mapping[int, float], most: Mapping[int, float]) -> Interval | None:
    """Where scores by seed stand between others', 0 at the least and 1 at the most, of seeds that have all three."""
    shared = [seed for seed in mine if seed in least and seed in most and least[seed] != most[seed]]
    return interval((mine[seed] - least[seed]) / (most[seed] - least[seed]) for seed in shared)


def missing(study: Study, runs: Runs, seeds: int, *, quick: bool = False) -> dict[str, int]:
    """How many test runs are still to be done, by model and scenario; those that lack none are left out."""
    counts: dict[str, int] = {}
    for block in blocks_of(study, quick=quick):
        name = f"{block.model}, {block.scenario}"
        for method in block.methods:
            done = _done(final_runs(study, block, method, seeds, runs, quick=quick), runs)
            counts[name] = counts.get(name, 0) + seeds_of(block, seeds, quick=quick) - len(done)
    return {name: count for name, count in counts.items() if count}


def table(study: Study, rows: list[dict[str, Any]], title: str) -> str:
    """One of the study's tables as Markdown. Differences whose interval leaves out zero are bold."""
    figures = study.tables[title]
    headings = [figure.title for figure in figures]
    share = study.unharmed is not None
    extra = ([study.share] if share else []) + [f"difference to {other}" for other in REFERENCES]
    lines = [
        f"| model | {study.scenarios} | method | seeds | {' | '.join(headings + extra)} |",
        f"|---|---|---|---:|{'---:|' * (len(headings) + len(extra))}",
    ]
    for row in _with(figures, rows):
        first = row["figures"][figures[0].key]
        cells = [row["model"], row["scenario"], row["method"], str(len(row["seeds"]))]
        cells += [cell(row["figures"][figure.key]) for figure in figures]
        cells += [cell(first.get("share"))] if share else []
        cells += [cell(first.get(f"to {other}"), difference=True) for other in REFERENCES]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with(figures: tuple[Figure, ...], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of scenarios that have the figures of a table."""
    return [row for row in rows if all(figure.key in row["figures"] for figure in figures)]


def cell(value: Interval | None, *, difference: bool = False) -> str:
    """A mean with its interval for a table; a difference has a sign, and is bold if its interval leaves out zero."""
    if value is None:
        return ""
    half = value.get("half_width")
    text = f"{value['mean']:{'+' if difference else ''}.3f}" + (f" ± {half:.3f}" if half is not None else "")
    return f"**{text}**" if difference and half is not None and abs(value["mean"]) > half else text


def paired_cell(
    own: Mapping[int, Mapping[str, float]], base: Mapping[int, Mapping[str, float]] | None, key: str
) -> str:
    """
    A mean over seeds for a table and, in brackets, its difference to what it is compared with on the same seeds.

    Args:
        own (`Mapping[int, Mapping[str, float]]`): scores by seed; none make an empty cell.
        base (`Mapping[int, Mapping[str, float]]`, *optional*): those compared with; no difference without them.
        key (`str`): which score.
    """
    if not own:
        return ""
    mean = cell({"mean": sum(scores[key] for scores in own.values()) / len(own)})
    paired = [own[seed][key] - base[seed][key] for seed in own if seed in base] if base else []
    return f"{mean} ({cell(interval(paired), difference=True)})" if len(paired) > 1 else mean


def plot(study: Study, rows: list[dict[str, Any]], path: Path) -> None:
    """The first figure of each table: a row of panels for each model, a colour for each scenario."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    models = list(dict.fromkeys(row["model"] for row in rows))
    scenarios = [name for name in _scenarios(study) if any(row["scenario"] == name for row in rows)]
    methods_of = {
        model: [
            method
            for base in study.models[model].search
            for method in dict.fromkeys(row["method"] for row in rows if row["model"] == model)
            if base_and_variant(method)[0] == base
        ]
        for model in models
    }
    # Room for a mark of each scenario, and some between methods.
    heights = [max(0.42, 0.16 * len(scenarios)) * len(methods) + 1.3 for methods in methods_of.values()]
    with mpl.rc_context(
        {"svg.hashsalt": study.name, "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}
    ):
        size = (4.4 * len(study.tables) + 1, sum(heights))
        canvas = Canvas(figsize=size, layout="constrained")
        shape = {"squeeze": False, "sharex": "col", "sharey": "row", "height_ratios": heights}
        panels = canvas.subplots(len(models), len(study.tables), **shape)
        for line, model in zip(panels, models, strict=True):
            own = [row for row in rows if row["model"] == model]
            methods = methods_of[model]
            for axes, (title, figures) in zip(line, study.tables.items(), strict=True):
                scored = _with(figures, own)
                for index, scenario in enumerate(scenarios):
                    here = [row for row in scored if row["scenario"] == scenario]
                    below = 0.7 / len(scenarios) * (index - (len(scenarios) - 1) / 2)
                    places = [methods.index(row["method"]) + below for row in here]
                    values = [row["figures"][figures[0].key] for row in here]
                    axes.errorbar(
                        [value["mean"] for value in values],
                        places,
                        xerr=[value.get("half_width", 0.0) for value in values],
                        fmt="osD^v"[index % 5],
                        markersize=4,
                        capsize=2,
                        color=f"C{index}",
                        label=scenario,
                    )
                axes.set_yticks(range(len(methods)), methods)
                axes.tick_params(labelbottom=True)
                axes.set_ylim(len(methods) - 0.5, -0.5)
                axes.set_title(f"{title}: {model}", fontsize="medium")
                axes.set_xlabel(figures[0].title + ("" if figures[0].higher_is_better else " (lower is better)"))
                axes.grid(alpha=0.3)
        if len(scenarios) > 1:
            handles, labels = panels[0][0].get_legend_handles_labels()
            canvas.legend(
                handles,
                labels,
                loc="outside lower center",
                ncols=len(scenarios),
                frameon=False,
                title=study.scenarios,
            )
        canvas.suptitle(f"{study.title}: mean and 95 % interval over seeds")
        canvas.savefig(path, metadata={"Date": None})


def report(study: Study, folder: Path, runs: Runs, seeds: int, *, quick: bool = False) -> str:
    """Write `results.json`, `table.md` and `plot.svg`; the tables."""
    rows = summary(study, runs, seeds, quick=quick)
    if not rows:
        raise ValueError(f"{runs.path} has no test runs yet: finish `{study.name}.py run` first.")
    left = missing(study, runs, seeds, quick=quick)
    used = [line for line in runs.lines if line["quick"] == quick]
    record = {
        "benchmark": study.title,
        "versions": _distinct(line["versions"] for line in used),
        "hardware": _distinct(line["hardware"] for line in used),
        "hours": round(sum(line["seconds"] for line in used) / 3600, 2),
        "quick": quick,
        "published": study.published,
        "missing": left,
        "results": rows,
    }
    shown = [title for title, figures in study.tables.items() if _with(figures, rows)]
    text = "\n\n".join(f"{title}:\n\n{table(study, rows, title)}" for title in shown)
    if left:
        counts = "; ".join(f"{name}: {count}" for name, count in left.items())
        text += f"\n\nTest runs that are still to be done, of {seeds} seeds: {counts}."
    (folder / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "table.md").write_text(text + "\n")
    plot(study, rows, folder / "plot.svg")
    return text


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Each value once, in the order of its first occurrence."""
    return list({json.dumps(value): value for value in values}.values())
