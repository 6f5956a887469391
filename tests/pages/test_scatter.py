import re

import numpy as np
import pytest

from sage_hf.pages.scatter import scatter_chart

pytest.importorskip("matplotlib")


def test_points_and_lines_lie_where_they_should():
    """The SVG's own coordinates are an affine function of the points, with the same scale along both axes."""
    points = np.random.default_rng(0).normal(size=(30, 2))
    labels = {"title": "Plane", "x_label": "1st", "y_label": "2nd"}
    chart = scatter_chart({"x": points, "x+": points + 1}, links=[("x", "x+")], **labels)
    uses = [
        (float(x), float(y))
        for x, y in re.findall(r'<use [^>]*?x="([\d.]+)" y="([\d.]+)" style="fill: none', chart.image)
    ]
    drawn = np.array(uses[:60])
    assert drawn.shape == (60, 2)
    expected = np.concatenate([points, points + 1])
    x_scale, x_start = np.polyfit(expected[:, 0], drawn[:, 0], 1)
    y_scale, y_start = np.polyfit(expected[:, 1], drawn[:, 1], 1)
    np.testing.assert_allclose(drawn[:, 0], x_scale * expected[:, 0] + x_start, atol=0.01)
    np.testing.assert_allclose(drawn[:, 1], y_scale * expected[:, 1] + y_start, atol=0.01)
    assert x_scale == pytest.approx(-y_scale, rel=1e-3)
    assert chart.table.rows[1] == ["x", f"{points[1, 0]:.4g}", f"{points[1, 1]:.4g}"]


@pytest.mark.parametrize("points", [np.zeros((0, 2)), np.zeros((3, 3)), np.array([[0.0, np.nan]])])
def test_points_that_are_none(points):
    with pytest.raises(ValueError, match=r"needs finite points \(points, 2\) of 'x'"):
        scatter_chart({"x": points}, title="Plane", x_label="1st", y_label="2nd")
