"""Points on a plane, in groups: each with a colour and a marker of its own, and the data in words and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .charts import MARKERS, _axes, _colour, _legend, _spread, _svg, number, require_matplotlib
from .page import Figure, Table


def scatter_chart(
    groups: Mapping[str, np.ndarray],
    *,
    title: str,
    x_label: str,
    y_label: str,
    links: Sequence[tuple[str, str]] = (),
    caption: str = "",
    summary: str = "",
) -> Figure:
    """
    Points on a plane with the same scale along both axes, so that distances can be compared.

    Args:
        groups (`Mapping[str, numpy.ndarray]`): points of each group by name, (points, 2), finite.
        title (`str`): above the chart.
        x_label (`str`): of the axis.
        y_label (`str`): of the axis.
        links (`Sequence[tuple[str, str]]`, *optional*): pairs of groups whose points, equally many, are joined by thin
            lines in the colour of the second.
        caption (`str`, *optional*): below the chart.
        summary (`str`, *optional*): the alternative text; the centres of the groups if not given.

    Raises:
        `ImportError`: matplotlib is missing.
        `ValueError`: no points, or some that are no finite pairs.

    Example:

    ```python
    >>> import numpy as np
    >>> from sage_hf.pages.scatter import scatter_chart
    >>> points = {"x": np.array([[0.0, 1.0], [2.0, 1.0]])}
    >>> scatter_chart(points, title="Plane", x_label="1st", y_label="2nd").alt
    'Plane. x: 2 points around 1st 1, 2nd 1.'

    ```
    """
    points = {name: np.asarray(group, dtype=np.float64) for name, group in groups.items()}
    for name, group in points.items():
        if group.ndim != 2 or group.shape[1:] != (2,) or not len(group) or not np.isfinite(group).all():
            raise ValueError(f"The chart {title!r} needs finite points (points, 2) of {name!r}, got {group.shape}.")
    if not points:
        raise ValueError(f"The chart {title!r} has no points.")
    require_matplotlib()
    from matplotlib.collections import LineCollection

    with _axes(title, x_label, y_label) as (figure, axes):
        for first, second in links:
            ends = np.stack([points[first], points[second]], axis=1)
            colour = _colour(list(points).index(second))
            axes.add_collection(LineCollection(list(ends), colors=colour, linewidths=0.7, alpha=0.4))
        size = 26 if max(map(len, points.values())) <= 100 else 14
        for index, (name, group) in enumerate(points.items()):
            axes.scatter(
                *group.T,
                s=size,
                marker=MARKERS[index % len(MARKERS)],
                facecolors="none",
                edgecolors=_colour(index),
                linewidths=1.1,
                label=name,
            )
        axes.set_aspect("equal", adjustable="datalim")
        _legend(axes)
        svg = _svg(figure)
    words = summary or " ".join(
        f"{name}: {len(group)} points around {x_label} {number(group[:, 0].mean())}, "
        f"{y_label} {number(group[:, 1].mean())}."
        for name, group in points.items()
    )
    rows = [
        [name, number(group[place, 0]), number(group[place, 1])]
        for name, group in points.items()
        for place in _spread(len(group), len(points))
    ]
    total = sum(map(len, points.values()))
    table = Table(
        ["group", x_label, y_label], rows, title if len(rows) == total else f"{title}, {len(rows)} of {total} points"
    )
    return Figure(svg, f"{title}. {words}", caption, table)
