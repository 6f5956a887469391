"""Pages: what is in them, what they refuse, and that they read well for everyone."""

import io
import itertools
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sage_hf.pages import Code, Definitions, Details, Figure, Gallery, Page, Section, Table, Text
from sage_hf.pages.palette import DARK, LIGHT, SERIES

from .reading import check_page


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_formula():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)  # the well-known lightest grey for text


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_of_the_palette(palette):
    for name in ("ink", "muted", "link"):
        for ground in ("paper", "panel"):
            assert contrast(palette[name], palette[ground]) >= 4.5, (name, ground)
    for name in ("rule", *SERIES):
        assert contrast(palette[name], palette["paper"]) >= 3, name
    # The number on the most opaque cell of a matrix.
    shade = "#" + "".join(
        f"{round((int(palette['series-1'][i : i + 2], 16) + int(palette['paper'][i : i + 2], 16)) / 2):02x}"
        for i in (1, 3, 5)
    )
    assert contrast(palette["ink"], shade) >= 4.5


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
COLOUR_VISION = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("vision", COLOUR_VISION)
@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_first_series_differ_for_any_colour_vision(palette, vision):
    """Two and three series are what most charts have: CIELAB distances of at least 15."""

    def lab(colour: str) -> np.ndarray:
        srgb = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        seen = np.clip(np.array(COLOUR_VISION[vision]) @ linear, 0, 1)
        xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
        ratio = xyz / np.array([0.9505, 1, 1.089])
        f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    for one, other in itertools.combinations(SERIES[:3], 2):
        assert np.linalg.norm(lab(palette[one]) - lab(palette[other])) > 15, (one, other)


def test_palettes_name_the_same_and_no_colour_twice():
    assert list(LIGHT) == list(DARK)
    assert len(set(LIGHT.values())) == len(LIGHT)


def png(size: tuple[int, int] = (20, 10)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "green").save(file, "PNG")
    return file.getvalue()


def every_block() -> Page:
    page = Page("<script>alert(1)</script>", lead="a & b")
    page.add("Words", Text("one <b>", "two"), Code("sage-hf report <RUN>"))
    page.add("Tables", Table(["name", "value"], [["</table><script>", "0.5 (0.4 to 0.6)"], ["b", ""]], "a <caption>"))
    drawing = '<svg viewBox="0 0 9 9"><g id="a"/><use href="#a"/></svg>'
    page.add(
        "Figures",
        Gallery(Figure(png(), 'a "green" <picture>', "below"), Figure(drawing, "drawn"), Figure(drawing, "again")),
        Section("Inside", Definitions({"<key>": "<value>"}), Section("Deeper", Details("more", Text("hidden")))),
    )
    page.add("Last", Figure(png(), "with data", table=Table(["x"], [["1"]])))
    return page


def test_every_block_reads_well():
    page = check_page(every_block().html())
    assert page.all("h1")[0].text == "<script>alert(1)</script>"
    assert page.all("code")[0].text == "sage-hf report <RUN>"
    assert [one.text for one in page.all("dt", "dd")] == ["<key>", "<value>"]
    picture = page.all("img")[0].attributes
    assert (picture["alt"], picture["width"], picture["height"]) == ('a "green" <picture>', "20", "10")
    assert [one.attributes.get("class") for one in page.all("td")] == ["number", "number"]
    assert [one.text for one in page.all("h3", "h4")] == ["Inside", "Deeper"]
    assert [one.attributes["href"] for one in page.all("nav", "a")[1:]] == ["#s1-h", "#s2-h", "#s3-h", "#s4-h"]


def test_a_policy_forbids_requests_and_scripts():
    policy = check_page(every_block().html()).all("meta")[2].attributes
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert "default-src 'none'" in policy["content"]
    assert "script-src" not in policy["content"]


def test_every_colour_of_the_style_has_a_name():
    html = every_block().html()
    used = set(re.findall(r"var\(--([\w-]+)", html))
    assert used <= LIGHT.keys() | {"least"}


def test_what_figures_and_tables_refuse():
    with pytest.raises(ValueError, match="alternative text"):
        Figure(png(), " ")
    with pytest.raises(ValueError, match="must be SVG"):
        Figure("picture.png", "a picture")
    with pytest.raises(ValueError, match="neither a PNG nor a JPEG"):
        Figure(b"GIF89a", "moving")
    with pytest.raises(ValueError, match="Row 1 of a table has 1 cells, its header 2"):
        Table(["a", "b"], [["1", "2"], ["3"]])


def test_writing_replaces_pages_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "page.html"
    page = Page("One")
    page.write(path)
    assert "One" in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()
    page.title = "Other"
    page.write(path)
    assert "Other" in path.read_text(encoding="utf-8")
    mine = tmp_path / "mine.html"
    mine.write_text("<html>mine, which names sage_hf</html>")
    link = tmp_path / "link.html"
    link.symlink_to(path)
    for taken in (mine, link, tmp_path):
        with pytest.raises(FileExistsError, match="is no page of sage_hf"):
            page.write(taken)
    assert mine.read_text() == "<html>mine, which names sage_hf</html>"
    assert sorted(one.name for one in path.parent.iterdir()) == ["page.html"]


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_secrets_are_not_written(tmp_path, monkeypatch):
    page = Page("Run", lead="trained with hf_" + 34 * "x")
    with pytest.raises(ValueError, match=r"page\.html holds a Hub token"):
        page.write(tmp_path / "page.html")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    with pytest.raises(ValueError, match="names your home folder"):
        Page("Run", lead="from /home/ada/data").write(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())
