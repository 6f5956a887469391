"""A visitor in a browser: upload, prediction, a region taken away; the figures on the page are the model's own."""

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

from sage_hf.space.write import write_space
from tests.conftest import CLASSES, SIZE
from tests.space.small import make_picture, probabilities, save_model

pytest.importorskip("gradio", reason="the app needs gradio: pip install 'sage_hf[space]'")
playwright = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT = 60_000
"""Milliseconds: a busy machine takes its time."""
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """The app as it was written, running: its address, and the model."""
    folder = tmp_path_factory.mktemp("space")
    model = save_model(folder / "model")
    write_space(folder / "model", folder / "space", include_weights=True)
    make_picture().save(folder / "picture.png")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_ANALYTICS_ENABLED": "False"}
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder / "space", env=os.environ | here, stdout=log, stderr=log
        )
        try:
            yield _answering(f"http://127.0.0.1:{port}", running, folder / "log"), model, folder / "picture.png"
        finally:
            running.terminate()
            running.wait(timeout=30)


def _answering(url, running, log):
    for _ in range(240):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return url
        except OSError:
            assert running.poll() is None, log.read_text()
            time.sleep(0.5)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def page(space):
    """The app in a browser, with the picture uploaded."""
    url, _, picture = space
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 2400})
        page.set_default_timeout(WAIT)
        page.goto(url)
        upload(page, picture)
        said(page, "The region covers")
        yield page
        browser.close()


def upload(page, picture):
    """Upload it once the page listens, which nothing on it tells: what comes before is lost without a word."""
    thumbnail = page.locator(".block", has=page.get_by_text("Your picture", exact=True)).last.locator("img")
    for _ in range(4):
        page.locator("input[type=file]").first.set_input_files(str(picture))
        with contextlib.suppress(playwright.TimeoutError):
            return thumbnail.wait_for(timeout=WAIT / 4)
    raise AssertionError("the picture was not taken")


def said(page, part, *, before=None):
    """The sentence below the controls, as soon as it says so, and no longer what it said before."""
    sentence = page.locator("#verdict p")
    if before is not None:
        playwright.expect(sentence).not_to_have_text(before, timeout=WAIT)
    playwright.expect(sentence).to_contain_text(part, timeout=WAIT)
    return sentence.inner_text()


def bars(page, label):
    """The percentages of a bar chart, by class."""
    chart = page.locator(".block", has=page.get_by_text(label, exact=True)).last
    return {name: int(share) for name, share in re.findall(rf"({'|'.join(CLASSES)})\s+(\d+)%", chart.inner_text())}


def shown(page, label):
    """The model's input that a picture on the page was drawn from."""
    address = page.locator(".block", has=page.get_by_text(label, exact=True)).last.locator("img").get_attribute("src")
    with Image.open(io.BytesIO(page.request.get(address).body())) as image:
        return pixel_values(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.NEAREST))


def pixel_values(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def in_percent(shares):
    return pytest.approx({name: 100 * share for name, share in shares.items()}, abs=1.5)


def agrees(page, model):
    """Every chart says what the model says of the picture that stands above it."""
    before, without, alone = (
        probabilities(model, inputs)
        for inputs in (
            pixel_values(make_picture()),
            shown(page, "x-: without the region"),
            shown(page, "x+: with nothing else"),
        )
    )
    assert bars(page, "Prediction of the picture as it is") == in_percent(before)
    assert bars(page, "Prediction of x-") == in_percent(without)
    assert bars(page, "Prediction of x+") == in_percent(alone)
    best = max(before, key=before.get)
    sentence = page.locator("#verdict p").inner_text()
    stated = re.search(rf"{best} goes from (\d\.\d+) to (\d\.\d+)", sentence)
    assert [float(share) for share in stated.groups()] == pytest.approx([before[best], without[best]], abs=0.015)


def test_a_picture_is_uploaded_and_what_is_looked_at_taken_away(space, page):
    _, model, _ = space
    sentence = said(page, "covers 15%")
    assert bars(page, "The model's prediction") == in_percent(probabilities(model, pixel_values(make_picture())))
    agrees(page, model)
    page.get_by_label("most looked at (input gradient)").check()
    said(page, "covers 15%", before=sentence)
    agrees(page, model)


def test_a_region_is_brushed(space, page):
    """Strokes over the light square: it is gone from x-, and nothing else is."""
    _, model, _ = space
    canvas = page.locator("#brush canvas").first
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)  # the editor fits its canvas to the picture
    before, box = page.locator("#verdict p").inner_text(), canvas.bounding_box()
    for y in (-90, -70, -50):
        page.mouse.move(box["x"] + box["width"] / 2 + 25, box["y"] + box["height"] / 2 + y)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2 + 110, box["y"] + box["height"] / 2 + y, steps=4)
        page.mouse.up()
    page.wait_for_timeout(500)
    page.locator("#take").click()
    said(page, "The region covers", before=before)
    agrees(page, model)
    x, removed = pixel_values(make_picture()), shown(page, "x-: without the region")
    changed = (x - removed).abs().amax(dim=(0, 1)) > 0.02
    assert changed[6:10, 20:26].all()
    assert not changed[20:].any()
    assert not changed[:, :14].any()
