"""The page in a browser: what is drawn on a real photograph ends up in a dataset, whatever happens in between."""

import itertools
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pytest

from sage_hf.annotate import AnnotationStore
from sage_hf.annotate.maps import values_of
from sage_hf.cli import main
from tests.annotate.conftest import SIZE, save_photographs, serving

WIDE = {"width": 1278, "height": 760}
NAMES = ["a-china.jpg", "b-flower.jpg", "c-china.jpg", "d-flower.jpg"]


class Page:
    """A tab of an annotator."""

    def __init__(self, page, store):
        self.page, self.store = page, store
        self.errors = []
        page.on("pageerror", self.failed)

    def failed(self, error):
        self.errors.append(error)

    def sign_in(self, url, name):
        self.page.goto(url)
        self.page.fill("#name", name)
        self.page.press("#name", "Enter")
        self.wait(0)
        self.name = name

    def wait(self, index):
        """Until a picture is shown."""
        self.page.wait_for_selector(f"#view:not(.loading) #picture[alt*='picture {index + 1} of']", state="attached")

    def saved(self):
        self.page.wait_for_selector("#saved[data-kind=good]")

    def frame(self):
        """Left, top and scale of the picture on the screen."""
        box = self.page.locator("#picture").bounding_box()
        return box["x"], box["y"], box["width"] / SIZE[0]

    def drag(self, *points):
        """Draw along points of the picture, and give where the pointer was, in the picture's pixels."""
        left, top, scale = self.frame()
        screen = [(round(left + x * scale), round(top + y * scale)) for x, y in points]
        self.page.mouse.move(*screen[0])
        self.page.mouse.down()
        for point in screen[1:]:
            self.page.mouse.move(*point)
        self.page.mouse.up()
        return [((x - left) / scale, (y - top) / scale) for x, y in screen]

    def record(self, picture):
        return self.store.latest(self.name, picture)

    def map(self, picture):
        png = self.store.map_png(self.record(picture))
        return np.zeros(SIZE[::-1], np.uint8) if png is None else values_of(png, SIZE)


def box_of(points):
    """The pixels of a box, told anew from its corners."""
    (left, top), (right, bottom) = np.floor(np.array([np.min(points, 0), np.max(points, 0)]) + 0.5).astype(int)
    values = np.zeros(SIZE[::-1], np.uint8)
    values[max(top, 0) : bottom, max(left, 0) : right] = 255
    return values


def stroke_of(points, diameter):
    """The pixels whose centres are near a line through points."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    marked = np.zeros(SIZE[::-1], bool)
    for (ax, ay), (bx, by) in itertools.pairwise(points):
        length = max((bx - ax) ** 2 + (by - ay) ** 2, 1e-12)
        along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length, 0, 1)
        marked |= np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)) <= diameter / 2
    return marked.astype(np.uint8) * 255


def differing(one, other):
    """The share of pixels in which two maps differ."""
    return float(np.mean(one != other))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("annotated")
    photos = save_photographs(root / "photos", NAMES)
    out = root / "out"
    with serving(photos, "--classes", "temple", "flower", "--export-to", out) as server:
        server.store, server.photos, server.out = AnnotationStore(root / "photos-annotations"), photos, out
        yield server


GUESSING = """
import sys
import numpy as np
from sage_hf.cli import annotate
from sage_hf.data.annotations import machine

def guessed(settings, images):
    # A model that marks the upper left quarter of every picture.
    maps = [np.zeros(image.size[::-1], np.float32) for image in images]
    for values in maps:
        values[: values.shape[0] // 2, : values.shape[1] // 2] = 1
    return maps

machine._loaded = lambda settings: lambda images: guessed(settings, images)
sys.exit(annotate.run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def guessing(tmp_path_factory):
    root = tmp_path_factory.mktemp("guessed")
    photos = save_photographs(root / "photos", NAMES)
    guess = ("--guess", "me/model", "--guess-labels", "roof")
    with serving(photos, "--classes", "temple", "flower", *guess, program=("-c", GUESSING)) as server:
        server.store = AnnotationStore(root / "photos-annotations")
        yield server


@pytest.fixture
def tab(browser, served):
    """A function that opens a tab; each annotator has a browser of its own."""
    contexts = []

    def open_tab(name, beside=None, served=served, **settings):
        if beside is None:
            contexts.append(browser.new_context(viewport=WIDE, **settings))
        context = contexts[-1] if beside is None else beside.page.context
        page = Page(context.new_page(), served.store)
        if beside is None:
            page.sign_in(served.url, name)
        else:
            page.page.goto(served.url)
            page.name = name
            page.wait(0)
        opened.append(page)
        return page

    opened = []
    yield open_tab
    errors = [str(error) for page in opened for error in page.errors]
    for context in contexts:
        context.close()
    assert errors == []


def test_draw_label_reload_continue_export_check(tab, served, tmp_path, capsys):
    ann = tab("Ann")
    page = ann.page
    page.keyboard.press("r")
    boxed = ann.drag((60, 50), (200, 60), (301, 210))
    page.keyboard.press("1")
    page.fill("#note", "the roofs")
    ann.saved()
    assert ann.record("a-china.jpg").status == "draft"
    page.reload()
    ann.wait(0)
    assert page.input_value("#note") == "the roofs"
    assert page.is_checked("input[value=temple]")
    page.keyboard.press("b")
    page.locator("#size").fill("30")
    page.locator("#view").focus()
    stroke = ann.drag((350, 300), (420, 320), (500, 250))
    page.keyboard.press("Enter")
    ann.wait(1)
    expected = np.maximum(box_of([boxed[0], boxed[-1]]), stroke_of(stroke, 30))
    assert differing(ann.map("a-china.jpg"), expected) < 1e-4
    page.keyboard.press("l")
    ann.drag((200, 100), (400, 100), (400, 300), (200, 300))
    page.keyboard.press("2")
    ann.saved()
    page.reload()
    ann.wait(1)  # the first that is not finished
    page.keyboard.press("Enter")
    ann.wait(2)
    lasso = ann.map("b-flower.jpg")
    assert lasso[105:295, 205:395].min() == 255
    assert lasso[:95].max() == lasso[:, :195].max() == lasso[305:].max() == lasso[:, 405:].max() == 0
    assert page.inner_text("#progress-text") == "2 of 4 finished"
    page.keyboard.press("k")
    ann.wait(3)
    # On the page, by everybody: only Ann has finished anything when this test is run first.
    out = tmp_path / "out"
    arguments = ["annotate", str(served.photos), "--classes", "temple", "flower", "--annotators", "Ann"]
    assert main([*arguments, "--export", str(out)]) == 0
    assert main(["data", "check", str(out)]) == 0
    assert "passed" in capsys.readouterr().out
    rows = datasets.load_dataset(str(out))["train"]
    assert rows["label"][:] == [0, 1]
    assert rows["note"][:] == ["the roofs", ""]
    for row, drawn in zip(rows, (ann.map("a-china.jpg"), lasso), strict=True):
        assert np.array_equal(np.asarray(row["saliency"]), drawn)


def test_export_button(tab, served):
    tom = tab("Tom")
    tom.page.keyboard.press("r")
    tom.drag((60, 50), (300, 210))
    tom.page.keyboard.press("1")
    tom.page.keyboard.press("Enter")
    tom.wait(1)
    tom.page.click("#export")
    tom.page.wait_for_selector(f"#toast:has-text('{served.out}')")
    folder = Path(tom.page.inner_text("#toast").rpartition(" are in ")[2].rstrip("."))
    assert datasets.load_dataset(str(folder))["train"].num_rows >= 1


@pytest.mark.parametrize("choice", ["mine", "other", "both"])
def test_two_tabs_lose_nothing(tab, choice):
    name = f"Two {choice}"
    first = tab(name)
    second = tab(name, beside=first)
    for one in (first, second):
        one.page.keyboard.press("r")
    first.page.bring_to_front()
    left = box_of(first.drag((20, 20), (120, 120)))
    first.page.fill("#note", "first")
    first.saved()
    # The second tab does not know of it yet.
    with offline_refresh(second):
        right = box_of(second.drag((300, 200), (400, 300)))
        second.page.wait_for_selector("#conflict-dialog[open]")
    assert "first" in second.page.inner_text("#other-text")
    second.page.click(f"#conflict-dialog [value={choice}]")
    second.saved()
    expected = {"mine": right, "other": left, "both": np.maximum(left, right)}[choice]
    assert np.array_equal(second.map("a-china.jpg"), expected)
    place = second.store.place(name, "a-china.jpg")
    kept = [values_of(path.read_bytes(), SIZE).tolist() for path in place.glob("*.png")]
    assert left.tolist() in kept
    assert right.tolist() in kept
    # The first tab sees it when it is looked at again.
    first.page.bring_to_front()
    first.page.evaluate("() => { window.dispatchEvent(new Event('focus')) }")
    if choice != "other":
        first.page.wait_for_selector("#toast:has-text('another tab')")
    first.page.check("input[value=temple]")
    first.saved()
    assert np.array_equal(first.map("a-china.jpg"), expected)
    assert first.record("a-china.jpg").label == "temple"


def test_a_conflict_that_can_not_be_shown_is_not_left_behind(tab):
    first = tab("Unseen")
    second = tab("Unseen", beside=first)
    for one in (first, second):
        one.page.keyboard.press("r")
    first.page.bring_to_front()
    first.drag((20, 20), (120, 120))
    first.saved()
    with offline_refresh(second):
        second.page.route("**/api/pictures/0/map?*", lambda route: route.abort())
        right = box_of(second.drag((300, 200), (400, 300)))
        second.page.wait_for_selector("#toast:has-text('other version')")
        second.page.unroute("**/api/pictures/0/map?*")
        second.page.click("#next")
        second.page.wait_for_selector("#conflict-dialog[open]")
    second.page.click("#conflict-dialog [value=mine]")
    second.saved()
    assert np.array_equal(second.map("a-china.jpg"), right)


@contextmanager
def offline_refresh(one):
    """A tab that is looked at asks what is newer; this one's question gets no answer."""
    one.page.route(
        "**/api/pictures/0?*", lambda route: route.abort() if route.request.method == "GET" else route.fallback()
    )
    one.page.bring_to_front()
    yield
    one.page.unroute("**/api/pictures/0?*")


def test_keyboard_alone(tab):
    kim = tab("Kim")
    keys = kim.page.keyboard
    keys.press("?")
    kim.page.wait_for_selector("#help-dialog[open]")
    keys.press("Enter")
    kim.page.wait_for_selector("#help-dialog", state="hidden")
    kim.page.locator("#view").focus()
    for key in ["b", "]", "]", "ArrowLeft", "ArrowUp", "Space", *["ArrowRight"] * 4, "Space", "2", "t"]:
        keys.press(key)
    kim.page.keyboard.type("n p k x")
    keys.press("Escape")
    kim.saved()
    drawn = kim.map("a-china.jpg")
    assert drawn.max() == 255
    ys, xs = np.nonzero(drawn)
    size = int(kim.page.input_value("#size"))
    assert size == 63
    assert abs(np.ptp(ys) + 1 - size) <= 1
    assert abs(np.ptp(xs) + 1 - 3 * size) <= 1
    keys.press("z")
    kim.page.wait_for_selector("#undo:disabled")
    kim.saved()
    assert kim.record("a-china.jpg").map is None
    keys.press("Shift+Z")
    keys.press("Enter")
    kim.wait(1)
    record = kim.record("a-china.jpg")
    assert (record.status, record.label, record.note) == ("done", "flower", "n p k x")
    assert np.array_equal(kim.map("a-china.jpg"), drawn)
    keys.press("Enter")  # no label yet
    assert "Nothing is marked" in kim.page.inner_text("#toast")
    keys.press("1")
    keys.press("x")
    kim.wait(2)
    keys.press("p")
    kim.wait(1)
    assert kim.page.inner_text("#status") == "Done: nothing matters here"
    keys.press("u")
    kim.wait(2)
    assert [kim.record(name).status for name in NAMES[:2]] == ["done", "nothing"]


def test_eraser_undo_clear_and_strength(tab):
    eva = tab("Eva")
    keys = eva.page.keyboard
    keys.press("r")
    eva.page.locator("#strength").fill("40")
    boxed = box_of(eva.drag((100, 100), (300, 300)))
    keys.press("e")
    eva.page.locator("#size").fill("20")
    erased = stroke_of(eva.drag((150, 150), (250, 250)), 20)
    eva.saved()
    expected = np.where(erased > 0, 0, np.where(boxed > 0, 102, 0)).astype(np.uint8)
    assert differing(eva.map("a-china.jpg"), expected) < 1e-4
    keys.press("c")
    eva.saved()
    assert eva.record("a-china.jpg").map is None
    for key in ("Control+z", "Control+z", "Control+z", "Control+Shift+z"):
        keys.press(key)
    eva.saved()
    assert np.array_equal(eva.map("a-china.jpg") > 0, boxed > 0)


def test_a_server_that_is_away_costs_nothing(tab):
    off = tab("Off")
    off.page.keyboard.press("r")
    off.page.context.set_offline(True)
    boxed = box_of(off.drag((100, 100), (300, 300)))
    off.page.wait_for_selector("#saved[data-kind=bad]")
    assert "can't be reached" in off.page.inner_text("#saved")
    off.page.keyboard.press("n")
    off.page.wait_for_selector("#toast:has-text('not saved yet')")
    assert off.record("a-china.jpg") is None
    off.page.context.set_offline(False)
    off.saved()
    assert np.array_equal(off.map("a-china.jpg"), boxed)


def test_touch_on_a_phone(tab):
    tap = tab("Tap", has_touch=True, is_mobile=True)
    tap.page.set_viewport_size({"width": 390, "height": 844})
    tap.page.wait_for_timeout(100)
    left, top, scale = tap.frame()
    client = tap.page.context.new_cdp_session(tap.page)
    way = [(100, 100), (150, 100), (200, 140)]
    points = [(round(left + x * scale), round(top + y * scale)) for x, y in way]
    for place, (x, y) in enumerate(points):
        kind = "touchMove" if place else "touchStart"
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    tap.saved()
    drawn = tap.map("a-china.jpg")
    assert drawn[100, 150] == 255
    assert drawn[140, 200] == 255
    assert drawn[300:].max() == 0
    width = tap.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390


def test_a_guess_is_nobodys_until_it_is_accepted_or_edited(tab, guessing):
    guess = np.zeros(SIZE[::-1], np.uint8)
    guess[: SIZE[1] // 2, : SIZE[0] // 2] = 255
    gus = tab("Gus", served=guessing)
    page, keys = gus.page, gus.page.keyboard
    page.wait_for_selector("#guess-bar:has-text('A guess by me/model')")
    assert page.inner_text("#status") == "Not begun"
    keys.press("1")
    keys.press("Enter")
    assert "Accept the guess" in page.inner_text("#toast")
    gus.saved()
    assert gus.record("a-china.jpg").map is None
    page.reload()
    gus.wait(0)
    page.wait_for_selector("#guess-bar:not([hidden])")
    keys.press("g")
    keys.press("Enter")
    gus.wait(1)
    record = gus.record("a-china.jpg")
    assert (record.status, record.source) == ("done", "machine: me/model")
    assert np.array_equal(gus.map("a-china.jpg"), guess)
    keys.press("p")
    gus.wait(0)
    assert page.inner_text("#status") == "Done · me/model's guess, accepted"
    keys.press("n")
    gus.wait(1)
    page.wait_for_selector("#guess-bar:not([hidden])")
    keys.press("r")
    boxed = box_of(gus.drag((400, 250), (500, 350)))
    keys.press("1")
    keys.press("Enter")
    gus.wait(2)
    assert gus.record("b-flower.jpg").source == "human on machine: me/model"
    assert np.array_equal(gus.map("b-flower.jpg"), np.maximum(guess, boxed))
    page.wait_for_selector("#guess-bar:not([hidden])")
    gus.drag((400, 250), (500, 350))
    keys.press("z")  # what is left is the model's alone
    gus.saved()
    assert gus.record("c-china.jpg").source == "machine: me/model"
    assert np.array_equal(gus.map("c-china.jpg"), guess)
    keys.press("n")
    gus.wait(3)
    page.wait_for_selector("#guess-bar:not([hidden])")
    page.click("#discard")
    boxed = box_of(gus.drag((400, 250), (500, 350)))
    gus.saved()
    assert gus.record("d-flower.jpg").source == "human"
    assert np.array_equal(gus.map("d-flower.jpg"), boxed)


def test_zoomed_and_moved_the_map_still_fits(tab):
    zoe = tab("Zoe")
    page, keys = zoe.page, zoe.page.keyboard
    left, top, scale = zoe.frame()
    page.mouse.move(left + 200 * scale, top + 150 * scale)
    page.mouse.wheel(0, -800)
    near = zoe.frame()
    assert near[2] > 2 * scale
    keys.down(" ")
    page.mouse.down()
    page.mouse.move(left + 200 * scale + 60, top + 150 * scale + 30)
    page.mouse.up()
    keys.up(" ")
    moved = zoe.frame()
    assert moved[0] - near[0] == pytest.approx(60, abs=1)
    assert moved[1] - near[1] == pytest.approx(30, abs=1)
    assert zoe.record("a-china.jpg") is None  # moving draws nothing
    keys.press("r")
    boxed = box_of(zoe.drag((180, 130), (230, 170)))
    zoe.saved()
    assert np.array_equal(zoe.map("a-china.jpg"), boxed)
    assert 40 * 50 - 400 < np.count_nonzero(boxed) < 40 * 50 + 400
    keys.press("f")
    assert zoe.frame()[2] == pytest.approx(scale)
