"""A model's first guess: shown, marked as what it is, and told in the dataset."""

import datasets
import numpy as np
import pytest
from PIL import Image

from sage_hf.annotate import AnnotationStore, Project, export_annotations, open_pictures
from sage_hf.annotate.guess import REMEMBERED, Guesser
from sage_hf.data import DataError
from sage_hf.data.annotations import MachineSaliency
from tests.annotate.conftest import PHOTOGRAPHS, drawn, mark
from tests.data.test_build_machine import model as segmenter  # noqa: F401  # a fixture


@pytest.fixture
def guessing(photos, segmenter):  # noqa: F811
    """A project whose model marks some of the first photograph."""
    for label in ("sky", "leaf"):
        machine = MachineSaliency(str(segmenter), "segmentation", labels=(label,))
        if machine.saliency_of(Image.fromarray(PHOTOGRAPHS["china"])) is not None:
            break
    store = AnnotationStore(f"{photos}-annotations")
    return Project(open_pictures(str(photos)), store, ["temple", "flower"], Guesser(machine))


def test_the_guess_is_the_models_own(guessing):
    guess = guessing.start(0, guess=True)
    expected = guessing.guesser.machine.saliency_of(Image.fromarray(PHOTOGRAPHS["china"]))
    assert guess.shape == (427, 640)
    # The photograph was saved as JPEG, which moves the borders a little.
    assert np.mean(np.abs(guess - expected)) < 0.1
    assert guessing.state(0, "Ann")["guess"] == "machine: segmenter"
    assert guessing.store.annotators() == []  # a guess is nobody's work


def test_what_the_dataset_says_of_it(guessing, tmp_path):
    guess = np.round(guessing.start(0, guess=True) * 255).astype(np.uint8)
    mark(guessing, 0, "Ann", guess, source="machine: segmenter")
    mark(guessing, 1, "Ann", drawn(), label="flower", source="human on machine: segmenter")
    export_annotations(guessing, tmp_path / "out")
    rows = datasets.load_dataset(str(tmp_path / "out"))["train"]
    assert rows["saliency_source"][:] == ["machine: segmenter", "human on machine: segmenter"]
    assert np.array_equal(np.asarray(rows[0]["saliency"]), guess)


def test_a_source_that_was_never_shown_is_refused(guessing):
    with pytest.raises(DataError, match="no guess of 'machine: other' is shown here"):
        mark(guessing, 0, "Ann", drawn(), source="machine: other")


def test_work_upon_a_guess_goes_on_without_the_model(guessing):
    mark(guessing, 0, "Ann", drawn(), source="human on machine: segmenter")
    later = Project(guessing.pictures, guessing.store, ["temple", "flower"])
    assert mark(later, 0, "Ann", drawn(5, 5), source="human on machine: segmenter").revision == 2


def test_a_machines_map_of_a_dataset_stays_one(guessing, tmp_path):
    """Exported, opened as a dataset and exported again, unchanged or edited: nobody takes it for a human's."""
    for index, source in enumerate(["machine: segmenter", "human on machine: segmenter"]):
        mark(guessing, index, "Ann", drawn(), label="flower", source=source)
    export_annotations(guessing, tmp_path / "out")
    again = Project(open_pictures(str(tmp_path / "out")), AnnotationStore(tmp_path / "store"))
    sources = [again.state(index, "Eve")["source"] for index in (0, 1)]
    assert sources == ["machine: segmenter", "human on machine: segmenter"]
    mark(again, 0, "Eve", drawn(), source="machine: segmenter")
    mark(again, 1, "Eve", drawn(1, 1), source="human on machine: segmenter")
    with pytest.raises(DataError, match="is shown here"):
        mark(again, 1, "Eve", drawn(), source="machine: other")
    export_annotations(again, tmp_path / "more")
    assert datasets.load_dataset(str(tmp_path / "more"))["train"]["saliency_source"][:] == sources


def test_a_model_is_asked_once_for_each_picture(guessing, monkeypatch):
    asked = []
    plain = MachineSaliency.saliency_of
    monkeypatch.setattr(MachineSaliency, "saliency_of", lambda self, image: asked.append(1) or plain(self, image))
    for index in (0, 1, 0, 1):
        guessing.start(index, guess=True)
    assert len(asked) == 2 < REMEMBERED
