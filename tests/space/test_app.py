"""What the app shows, held against the model called by hand."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from sage_hf.evaluation import model_saliency
from sage_hf.space.app import FILLINGS, SOURCES, compared, looked, said, sources_of, verdict
from sage_hf.space.demo import Demo, brushed, most_looked_at
from sage_hf.viewing import Subject
from sage_hf.views import DEGRADATIONS
from tests.conftest import CLASSES, SIZE, make_model
from tests.space.small import make_picture, probabilities, save_model
from tests.viewing.test_rows import NoPlaces

CAM, GRADIENT, BRUSH = SOURCES
MEAN = next(iter(FILLINGS))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(folder)
    return folder


@pytest.fixture
def demo(model):
    return Demo(Subject.load(model, use_cpu=True))


def by_hand(picture):
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_an_uploaded_picture(demo):
    picture = make_picture()
    prediction, cam, gradient, editor = looked(demo, picture)
    assert prediction == pytest.approx(probabilities(demo.subject.model, by_hand(picture)), abs=1e-5)
    assert np.array_equal(editor["background"].resize((SIZE, SIZE), Image.Resampling.NEAREST), picture)
    where = model_saliency(demo.subject.model, by_hand(picture))[0]
    assert cam.size == gradient.size == (320, 320)
    tinted = np.asarray(cam.resize((SIZE, SIZE), Image.Resampling.NEAREST)).astype(int)
    difference = tinted[..., 0] - tinted[..., 2]
    assert np.corrcoef(difference.flatten(), where.flatten())[0, 1] > 0.99
    assert looked(demo, None) == [None] * 4


@pytest.mark.parametrize("source", [CAM, GRADIENT])
@pytest.mark.parametrize("filling", FILLINGS)
def test_taking_away_what_is_looked_at(demo, source, filling):
    picture = make_picture()
    x = by_hand(picture)
    where = model_saliency(demo.subject.model, x, method=SOURCES[source])[0]
    values = where.flatten().tolist()
    count = min(round(0.2 * SIZE * SIZE), sum(value > 0 for value in values))
    inside = set(sorted(range(SIZE * SIZE), key=lambda place: -values[place])[:count])
    s = torch.tensor([float(place in inside) for place in range(SIZE * SIZE)]).view(1, 1, SIZE, SIZE)
    degraded = DEGRADATIONS[FILLINGS[filling]](x, torch.Generator().manual_seed(0))
    expected = [
        probabilities(demo.subject.model, view) for view in (x, (1 - s) * x + s * degraded, s * x + (1 - s) * degraded)
    ]
    region, removed, kept, *found, sentence = compared(demo, picture, source, 20, filling, None)
    for shown, right in zip(found, expected, strict=True):
        assert shown == pytest.approx(right, abs=1e-4)
    assert f"covers {count / SIZE**2:.0%}" in sentence
    best = [max(one, key=one.get) for one in expected]
    assert (f"changes its mind** to {best[1]}" if best[1] != best[0] else f"still says {best[0]}**") in sentence
    small = np.asarray(removed.resize((SIZE, SIZE), Image.Resampling.NEAREST)).astype(float)
    right = (((1 - s) * x + s * degraded)[0].permute(1, 2, 0).numpy() + 1) * 127.5
    np.testing.assert_allclose(small, right, atol=0.51)
    assert region.size == kept.size


def test_taking_away_what_is_brushed(demo):
    """The light square, brushed on the picture at ten times its size."""
    picture = make_picture()
    layer = np.zeros((10 * SIZE, 10 * SIZE, 4), dtype=np.uint8)
    layer[40:120, 180:280] = (224, 49, 49, 255)
    *_, first, without, alone, _ = compared(demo, picture, BRUSH, 20, MEAN, {"layers": [layer]})
    x = by_hand(picture)
    mean = x.mean(dim=(2, 3), keepdim=True)
    removed, kept = x.clone(), mean.expand_as(x).clone()
    removed[..., 4:12, 18:28] = mean
    kept[..., 4:12, 18:28] = x[..., 4:12, 18:28]
    assert first == pytest.approx(probabilities(demo.subject.model, x), abs=1e-5)
    assert without == pytest.approx(probabilities(demo.subject.model, removed), abs=1e-5)
    assert alone == pytest.approx(probabilities(demo.subject.model, kept), abs=1e-5)
    assert max(abs(without[name] - first[name]) for name in CLASSES) > 0.01


def test_a_pixel_that_is_half_brushed():
    layer = np.zeros((4, 4, 4), dtype=np.uint8)
    layer[:2, :1, 3] = 255
    assert brushed([layer], (2, 2)).tolist() == [[0.5, 0], [0, 0]]
    assert not brushed([], (2, 2)).any()


def test_a_region_never_holds_what_is_not_looked_at():
    assert most_looked_at(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), 0.75).tolist() == [[0, 1], [0, 0]]
    assert not most_looked_at(torch.zeros(3, 3), 0.5).any()


PAGE = """
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from sage_hf.space.app import Demo, Subject, build

page = build(Demo(Subject.load(sys.argv[1], use_cpu=True)), "Leaves", [sys.argv[2]])
print(page.title, *(one["props"].get("label") for one in page.get_config_file()["components"]), sep="; ")
"""


@pytest.mark.skipif(find_spec("gradio") is None, reason="the page needs gradio: pip install 'sage_hf[space]'")
def test_the_page_is_built(model, tmp_path):
    """In a process of its own: gradio leaves an event loop open."""
    make_picture().save(tmp_path / "picture.png")
    run = [sys.executable, "-c", PAGE, str(model), str(tmp_path / "picture.png")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    labels = set(done.stdout.strip().splitlines()[-1].split("; "))
    assert {"Leaves", "Your picture", "Or one of these", "Prediction of x-", "x+: with nothing else"} <= labels


def test_what_there_is_to_say_instead(demo):
    picture = make_picture()
    assert compared(demo, None, CAM, 20, MEAN, None) == [*[None] * 6, "Upload a picture first."]
    *nothing, sentence = compared(demo, picture, BRUSH, 20, MEAN, {"layers": []})
    assert nothing == [None] * 6
    assert "Brush over the picture first" in sentence
    demo.subject.without["cam"] = "it has none"
    assert compared(demo, picture, CAM, 20, MEAN, None)[-1] == "it has none"
    assert looked(demo, picture)[1] is None


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "CMYK"])
def test_pictures_of_any_mode(demo, mode):
    assert sum(looked(demo, make_picture().convert(mode))[0].values()) == pytest.approx(1, abs=1e-4)


def test_what_is_transparent_is_white_and_what_is_turned_is_turned_back(demo):
    clear = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    assert torch.equal(demo.seen(clear), torch.ones(1, 3, SIZE, SIZE))
    turned = make_picture().transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    np.testing.assert_allclose(demo.seen(turned), by_hand(make_picture()), atol=1e-6)


def test_the_first_class_of_the_picture_stands_in_every_chart(demo):
    shares = {"a": 0.4, "b": 0.2, "c": 0.15, "d": 0.12, "e": 0.1, "f": 0.02, "g": 0.01}
    assert list(said(demo, shares)) == ["a", "b", "c", "d", "e"]
    assert list(said(demo, shares, {"g": 0.9, "a": 0.1})) == ["a", "b", "c", "d", "g"]
    assert list(said(demo, shares, {"b": 0.9, "a": 0.1})) == ["a", "b", "c", "d", "e"]


def test_a_model_without_class_activation_maps(demo, processor):
    assert sources_of(demo) == list(SOURCES)
    flat = Demo(Subject(NoPlaces(), processor, "flat"))
    assert sources_of(flat) == [GRADIENT, BRUSH]
    assert looked(flat, make_picture())[1] is None
    assert "covers 20%" in compared(flat, make_picture(), GRADIENT, 20, MEAN, None)[-1]


def test_a_regression(processor):
    model = make_model("convnext", num_labels=1).eval()
    demo = Demo(Subject(model, processor, "number"))
    with torch.no_grad():
        expected = float(model(by_hand(make_picture())).logits)
    assert looked(demo, make_picture())[0] == f"LABEL_0: {expected:.4g}"
    assert "covers 20% of the picture" in compared(demo, make_picture(), GRADIENT, 20, MEAN, None)[-1]


def test_visitors_who_ask_at_once_wait_for_each_other(demo, monkeypatch):
    """What one forward pass captures in the layers must not come from another's."""
    pixel_values, inside, together = demo.seen(make_picture()), [], []

    def slow(*args):
        inside.append(1)
        together.append(len(inside))
        time.sleep(0.02)
        inside.pop()

    handle = demo.subject.model.register_forward_pre_hook(slow)
    with handle, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda ask: ask(pixel_values), [demo.predict, demo.look] * 3))
    assert set(together) == {1}
    assert found[0] == found[2] == found[4]


def test_a_verdict_on_several_labels(demo):
    """Each for itself: the largest probability is not what the model says."""
    demo.subject.problem_type = "multi_label_classification"
    one, two, three = CLASSES
    views = [{one: 0.9, two: 0.6, three: 0.1}, {one: 0.8, two: 0.2, three: 0.1}, {one: 0.4, two: 0.3, three: 0.2}]
    sentence = verdict(demo, dict(zip(("anchor", "negative", "positive"), views, strict=True)), 0.1)
    assert f"**changes its mind** to {one}: {one} goes from 0.90 to 0.80." in sentence
    assert f"it says nothing ({one} 0.40)" in sentence
    views[1][two] = 0.5
    assert f"**still says {one}, {two}**" in verdict(
        demo, dict(zip(("anchor", "negative", "positive"), views, strict=True)), 0.1
    )
