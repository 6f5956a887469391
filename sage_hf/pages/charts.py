"""Charts as SVG with real text, in the colours of their page; each with its data in words and as a table."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .page import Figure, Table
from .palette import LIGHT, SERIES

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)), (0, (2.5, 1.2)), (0, (8, 2)))
"""Of the lines in turn, so that they differ without their colour too."""

MARKERS = "osD^vP"
"""Of the points in turn."""

TABLE_ROWS = 60
"""Rows that a table of a line's points shows at most, evenly spread."""

FEW = 15
"""Points of each line up to which they are marked."""

WIDTH, HEIGHT = 4.9, 3.6
"""Of a chart, in inches; an inch is 72 of the SVG's units."""


def number(value: float) -> str:
    """
    A number for people, in four significant digits.

    Example:

    ```python
    >>> from sage_hf.pages.charts import number
    >>> number(0.97725), number(960), number(float("nan"))
    ('0.9772', '960', 'not a number')

    ```
    """
    value = float(value)
    if not np.isfinite(value):
        return "not a number" if np.isnan(value) else "infinity" if value > 0 else "-infinity"
    return f"{int(value)}" if value == int(value) and abs(value) < 1e6 else f"{value:.4g}"


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    caption: str = "",
    diagonal: str = "",
    unit_square: bool = False,
    mark: tuple[float, str] | None = None,
    summary: str = "",
) -> Figure:
    """
    Lines over a common axis: curves of training, ROC curves, reliability.

    Args:
        series (`Mapping[str, tuple]`): of each line, by name, its x and its y values, equally many; points
            whose y is not finite leave a gap.
        title (`str`): above the chart.
        x_label (`str`): of the axis.
        y_label (`str`): of the axis.
        caption (`str`, *optional*): below the chart.
        diagonal (`str`, *optional*): draw the line y = x and call it this.
        unit_square (`bool`, *optional*, defaults to `False`): both axes from 0 to 1.
        mark (`tuple[float, str]`, *optional*): a place on the x axis, and what it is called.
        summary (`str`, *optional*): the alternative text; where each line starts, ends, and has its extremes, if not
            given.

    Raises:
        `ImportError`: matplotlib is missing.
        `ValueError`: no line, or one with other than equally many x and y values, two at least.

    Example:

    ```python
    >>> from sage_hf.pages.charts import line_chart
    >>> chart = line_chart({"loss": ([1, 2], [0.9, 0.3])}, title="Loss", x_label="step", y_label="loss")
    >>> chart.alt
    'Loss. loss: from 0.9 (step 1) to 0.3 (step 2), lowest 0.3 (step 2), highest 0.9 (step 1).'

    ```
    """
    lines = {name: _points(name, *points) for name, points in series.items()}
    if not lines:
        raise ValueError(f"The chart {title!r} has no line.")
    few = all(len(x) <= FEW for x, _ in lines.values())
    with _axes(title, x_label, y_label) as (figure, axes):
        if diagonal:
            axes.plot([0, 1], [0, 1], color=LIGHT["rule"], linewidth=1, label=diagonal)
        for index, (name, (x, y)) in enumerate(lines.items()):
            axes.plot(
                x,
                y,
                color=_colour(index),
                linestyle=_dash(index),
                marker=MARKERS[index % len(MARKERS)] if few else None,
                markersize=4,
                linewidth=1.8,
                label=name,
            )
        if unit_square:
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        if mark is not None:
            axes.axvline(mark[0], color=LIGHT["muted"], linewidth=1, linestyle=(0, (2, 2)), label=mark[1])
        if len(axes.get_lines()) > 1:
            _legend(axes)
        svg = _svg(figure)
    words = summary or " ".join(f"{name}: {_course(x, y, x_label)}" for name, (x, y) in lines.items())
    return Figure(svg, f"{title}. {words}", caption, _line_table(lines, title, x_label, y_label))


def histogram(
    values: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_label: str,
    caption: str = "",
    bins: int = 30,
    mark: tuple[float, str] | None = None,
) -> Figure:
    """
    How values of several groups are distributed, as the share of each group in bins of equal width.

    Args:
        values (`Mapping[str, Sequence[float]]`): finite numbers of each group, by name.
        title (`str`): above the chart.
        x_label (`str`): what the values are.
        caption (`str`, *optional*): below the chart.
        bins (`int`, *optional*, defaults to 30): their number.
        mark (`tuple[float, str]`, *optional*): as for [`line_chart`].

    Raises:
        `ImportError`: matplotlib is missing.
        `ValueError`: a group without values, or with some that are not finite.

    Example:

    ```python
    >>> from sage_hf.pages.charts import histogram
    >>> chart = histogram({"known": [0.9, 0.8], "unknown": [0.2]}, title="Scores", x_label="score", bins=2)
    >>> chart.table.rows[0]
    ['0.2 to 0.55', '0', '100']

    ```
    """
    groups = {name: np.asarray(group, dtype=np.float64) for name, group in values.items()}
    for name, group in groups.items():
        if not len(group) or not np.isfinite(group).all():
            raise ValueError(f"The chart {title!r} needs finite values of {name!r}, one at least.")
    edges = np.histogram_bin_edges(np.concatenate(list(groups.values())), bins)
    shares = {name: 100 * np.histogram(group, edges)[0] / len(group) for name, group in groups.items()}
    with _axes(title, x_label, "% of the rows") as (figure, axes):
        for index, (name, share) in enumerate(shares.items()):
            axes.stairs(share, edges, fill=True, color=_colour(index), alpha=0.25)
            axes.stairs(
                share, edges, color=_colour(index), linewidth=1.8, linestyle=DASHES[index % len(DASHES)], label=name
            )
        if mark is not None:
            axes.axvline(mark[0], color=LIGHT["muted"], linewidth=1, linestyle=(0, (2, 2)), label=mark[1])
        axes.set_ylim(bottom=0)
        _legend(axes)
        svg = _svg(figure)
    words = [
        f"{name}: {len(group)} rows, median {number(np.median(group))}, middle half from "
        f"{number(np.quantile(group, 0.25))} to {number(np.quantile(group, 0.75))}."
        for name, group in groups.items()
    ]
    rows = [
        [f"{number(low)} to {number(high)}", *(number(round(share[index], 2)) for share in shares.values())]
        for index, (low, high) in enumerate(itertools.pairwise(edges))
    ]
    table = Table([x_label, *(f"{name}, %" for name in groups)], rows, f"{title}, share of the rows in each bin")
    return Figure(svg, f"{title}. {' '.join(words)}", caption, table)


def interval_chart(
    figures: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    x_label: str,
    caption: str = "",
    interval: str = "95% interval",
) -> Figure:
    """
    Numbers with their intervals, one below the other.

    Args:
        figures (`Mapping[str, Mapping[str, float]]`): by name, `value`, and `low` and `high` if it has an interval.
        title (`str`): above the chart.
        x_label (`str`): what the numbers are.
        caption (`str`, *optional*): below the chart.
        interval (`str`, *optional*, defaults to `"95% interval"`): what `low` and `high` are the ends of.

    Raises:
        `ImportError`: matplotlib is missing.
        `ValueError`: there are no numbers.

    Example:

    ```python
    >>> from sage_hf.pages.charts import interval_chart
    >>> interval_chart({"test": {"value": 0.9, "low": 0.85, "high": 0.93}}, title="Accuracy", x_label="accuracy").alt
    'Accuracy, 95% interval in brackets. test: 0.9 (0.85 to 0.93).'

    ```
    """
    if not figures:
        raise ValueError(f"The chart {title!r} has no numbers.")
    with _axes(title, x_label, "", height=1.15 + 0.42 * len(figures)) as (figure, axes):
        for place, one in enumerate(figures.values()):
            ends = [one.get("low", one["value"]), one.get("high", one["value"])]
            axes.plot(ends, [place, place], color=LIGHT["series-1"], linewidth=2.2, solid_capstyle="butt")
            axes.plot([one["value"]], [place], marker="o", color=LIGHT["series-1"], markersize=6)
        axes.set_yticks(range(len(figures)), list(figures))
        axes.set_ylim(len(figures) - 0.5, -0.5)
        svg = _svg(figure)
    words = [
        f"{name}: {number(one['value'])}"
        + (f" ({number(one['low'])} to {number(one['high'])})" if "low" in one else "")
        for name, one in figures.items()
    ]
    rows = [
        [name, *(number(one[end]) if end in one else "" for end in ("value", "low", "high"))]
        for name, one in figures.items()
    ]
    table = Table(["name", x_label, "low", "high"], rows, f"{title}, {interval}")
    brackets = f", {interval} in brackets" if any("low" in one for one in figures.values()) else ""
    return Figure(svg, f"{title}{brackets}. {'; '.join(words)}.", caption, table)


def matrix_chart(
    counts: Sequence[Sequence[int]], names: Sequence[str], *, title: str, caption: str = "", x_label: str, y_label: str
) -> Figure:
    """
    A square table of counts, shaded by the share of its row: a confusion matrix.

    Args:
        counts (`Sequence[Sequence[int]]`): (rows, columns), of each class of the y axis how many are of each of the x
            axis.
        names (`Sequence[str]`): of the classes, in order.
        title (`str`): above the chart.
        caption (`str`, *optional*): below the chart.
        x_label (`str`): of the axis.
        y_label (`str`): of the axis.

    Raises:
        `ImportError`: matplotlib is missing.
        `ValueError`: counts that are no square of the classes.
    """
    cells = np.asarray(counts)
    if cells.shape != (len(names), len(names)):
        raise ValueError(f"The chart {title!r} has counts of shape {cells.shape} for {len(names)} classes.")
    share = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    side = max(HEIGHT, 1.6 + 0.4 * len(names))
    with _axes(title, x_label, y_label, width=max(WIDTH, side), height=side) as (figure, axes):
        from matplotlib.patches import Rectangle

        axes.grid(False)
        for (y, x), count in np.ndenumerate(cells):
            if count:
                # Half opaque at most: the number on it stays readable, on light and on dark.
                axes.add_patch(
                    Rectangle(
                        (x - 0.5, y - 0.5), 1, 1, facecolor=LIGHT["series-1"], alpha=0.5 * share[y, x], linewidth=0
                    )
                )
                axes.text(x, y, str(count), ha="center", va="center", fontsize=10)
        rotate = max(map(len, names)) > 3
        axes.set_xticks(range(len(names)), [_cut(name) for name in names], rotation=90 if rotate else 0)
        axes.set_yticks(range(len(names)), [_cut(name) for name in names])
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
        svg = _svg(figure)
    right = int(np.trace(cells))
    off = [(int(cells[y, x]), names[y], names[x]) for y, x in np.ndindex(*cells.shape) if y != x and cells[y, x]]
    worst = "; ".join(f"{count} {true} as {taken}" for count, true, taken in sorted(off, reverse=True)[:3])
    words = f"{right} of {int(cells.sum())} on the diagonal." + (f" Most often beside it: {worst}." if worst else "")
    rows = [[name, *(str(int(count)) for count in row)] for name, row in zip(names, cells, strict=True)]
    return Figure(svg, f"{title}. {words}", caption, Table([f"{y_label} \\ {x_label}", *names], rows, title))


def require_matplotlib() -> None:
    """
    Make sure that charts can be drawn.

    Raises:
        `ImportError`: matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("Charts need matplotlib: pip install 'sage_hf[report]'") from error


@contextmanager
def _axes(
    title: str, x_label: str, y_label: str, *, width: float = WIDTH, height: float = HEIGHT
) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, apart from any state of pyplot."""
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    ink = LIGHT["ink"]
    settings: dict[str, Any] = {
        # mathtext would read a name such as $\alpha$ as a formula.
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "sage_hf",
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": LIGHT["rule"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": LIGHT["panel"],
        "xtick.color": LIGHT["rule"],
        "ytick.color": LIGHT["rule"],
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "legend.frameon": False,
        "legend.fontsize": 10,
    }
    with mpl.rc_context(settings):
        figure = Canvas(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        # At the left of the whole, where it has room beside long names of rows too.
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        yield figure, axes


def _legend(axes: Any) -> None:
    """Below the axes, where it hides nothing."""
    count = len(axes.get_legend_handles_labels()[0])
    longest = max(len(label) for label in axes.get_legend_handles_labels()[1])
    columns = max(1, min(count, 48 // (longest + 6)))
    axes.figure.legend(loc="outside lower left", ncols=columns)


def _svg(figure: Any) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", text)
    for name, colour in LIGHT.items():
        if name != "paper":
            text = text.replace(colour, f"var(--{name}, {colour})")
    return text


def _colour(index: int) -> str:
    return LIGHT[SERIES[index % len(SERIES)]]


def _dash(index: int) -> Any:
    """Another one for the same colour when it comes round again."""
    return DASHES[(index + index // len(SERIES)) % len(DASHES)]


def _points(name: str, x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    points = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(points[0]) != len(points[1]) or not len(points[0]):
        raise ValueError(f"The line {name!r} has {len(points[0])} x and {len(points[1])} y values.")
    return points


def _course(x: np.ndarray, y: np.ndarray, x_label: str) -> str:
    """Where a line goes, in words."""
    held = np.isfinite(y)
    if not held.any():
        return "no finite value."
    x, y = x[held], y[held]
    if len(y) == 1:
        return f"{number(y[0])} ({x_label} {number(x[0])})."
    low, high = int(y.argmin()), int(y.argmax())
    at = [f"{number(y[index])} ({x_label} {number(x[index])})" for index in (0, -1, low, high)]
    return f"from {at[0]} to {at[1]}, lowest {at[2]}, highest {at[3]}."


def _line_table(lines: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str, x_label: str, y_label: str) -> Table:
    """The points; of lines that share their x values in one row for each of these."""
    first = next(iter(lines.values()))[0]
    if all(len(x) == len(first) and (x == first).all() for x, _ in lines.values()):
        chosen = _spread(len(first))
        rows = [[number(first[index]), *(number(y[index]) for _, y in lines.values())] for index in chosen]
        table, points = Table([x_label, *lines], rows), len(first)
    else:
        rows, points = [], 0
        for name, (x, y) in lines.items():
            rows += [[name, number(x[index]), number(y[index])] for index in _spread(len(x), len(lines))]
            points += len(x)
        table = Table(["line", x_label, y_label], rows)
    table.caption = title if len(rows) == points else f"{title}, {len(rows)} of {points} points"
    return table


def _spread(count: int, lines: int = 1) -> list[int]:
    most = max(TABLE_ROWS // lines, 5)
    return list(range(count)) if count <= most else sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _cut(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "\u2026"
