"""Experiment trackers, really installed: every term and a grid of pictures reach them, training stays as it was."""

import contextlib
import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TrainerCallback

from sage_hf import SageTrainer
from sage_hf.pictured import annotated_rows, draw_objective
from sage_hf.tracked_pictures import NAME, SENDERS, PictureCallback
from tests.conftest import make_args, make_dataset, make_model

TERMS = {"loss", "cross_entropy", "triplet", "consistency", "satisfied_triplets", "annotated"}
EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 2, "logging_steps": 2}
GRID = (4 * 136 + 8, 26 + 8 + 2 * 136)


def installed(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


class TensorBoardCallback(TrainerCallback):
    """Under the name of transformers' own, with a writer that keeps what it is given."""

    def __init__(self):
        self.tb_writer, self.images = self, []

    def add_image(self, name, image, step, dataformats):
        self.images.append((name, image, step, dataformats))

    def flush(self):
        pass


def make_trainer(folder, processor, callbacks=(), eval_dataset=None, kind="vit", **settings) -> SageTrainer:
    return SageTrainer(
        make_model(kind),
        make_args(folder, **EVERY_STEP | {"tracked_pictures": 2} | settings),
        train_dataset=make_dataset(8),
        eval_dataset=make_dataset(4, split="test") if eval_dataset is None else eval_dataset,
        processing_class=processor,
        callbacks=list(callbacks),
    )


def test_pictures_at_each_evaluation(tmp_path, processor):
    tracker = TensorBoardCallback()
    trainer = make_trainer(tmp_path, processor, [tracker])
    trainer.train()
    assert [(name, image.shape, step) for name, image, step, _ in tracker.images] == [
        (NAME, (GRID[1], GRID[0], 3), 2),
        (NAME, (GRID[1], GRID[0], 3), 4),
    ]
    # Drawn once more by hand: picture, map, and the views of the seed and the step.
    rows = annotated_rows(trainer.preparation, make_dataset(4, split="test"), 2)
    seed = int(np.random.SeedSequence((trainer.args.seed, 4)).generate_state(1)[0])
    generator = torch.Generator().manual_seed(seed)
    expected, views = draw_objective(trainer.guidance_objective, rows, 2, processor, generator)
    assert views == 2
    assert np.array_equal(tracker.images[1][1], np.asarray(expected))
    trainer.evaluate()  # of the same step: nothing new to show
    assert len(tracker.images) == 2


def weights_after(folder, processor, callbacks, **settings) -> list[torch.Tensor]:
    trainer = make_trainer(folder, processor, callbacks, max_steps=6, **settings)
    trainer.train()
    drawn = torch.rand(3), np.random.rand(3)
    return [*trainer.model.parameters(), torch.as_tensor(drawn[0]), torch.as_tensor(drawn[1])]


def test_training_is_the_same_with_and_without(tmp_path, processor):
    """Also what is drawn from the global generators afterwards."""
    augmented = {"horizontal_flip": 0.5, "random_crop_scale": 0.5, "color_jitter": 0.3}
    tracker = TensorBoardCallback()
    with_pictures = weights_after(tmp_path / "with", processor, [tracker], **augmented)
    without = weights_after(tmp_path / "without", processor, [], tracked_pictures=0, **augmented)
    assert len(tracker.images) == 3
    assert all(torch.equal(one, other) for one, other in zip(with_pictures, without, strict=True))


def test_the_model_is_not_asked(tmp_path, processor, monkeypatch):
    tracker = TensorBoardCallback()
    trainer = make_trainer(tmp_path, processor, [tracker])
    trainer.state.global_step = 1
    monkeypatch.setattr(trainer.model, "forward", None)
    callback = next(one for one in trainer.callback_handler.callbacks if isinstance(one, PictureCallback))
    callback.on_evaluate(trainer.args, trainer.state, trainer.control)
    assert len(tracker.images) == 1


@pytest.mark.parametrize(
    ("settings", "data"),
    [
        ({"tracked_pictures": 0}, {}),
        ({"guidance": "none"}, {}),
        ({"guidance": "cyborg", "kind": "resnet"}, {}),
        ({}, {"annotated": 0}),
        ({}, {"annotated": 1}),  # shuffling needs two
    ],
    ids=["switched off", "no guidance", "no views", "no maps", "too few maps"],
)
def test_no_pictures(tmp_path, processor, settings, data):
    tracker = TensorBoardCallback()
    evaluated = make_dataset(4, split="test", **data)
    make_trainer(tmp_path, processor, [tracker], evaluated, max_steps=2, **settings).train()
    assert tracker.images == []


def test_other_processes_stay_silent(tmp_path, processor):
    tracker = TensorBoardCallback()
    trainer = make_trainer(tmp_path, processor, [tracker])
    trainer.state.is_world_process_zero = False
    callback = next(one for one in trainer.callback_handler.callbacks if isinstance(one, PictureCallback))
    callback.on_evaluate(trainer.args, trainer.state, trainer.control)
    assert tracker.images == []


def test_any_evaluation_dataset(tmp_path, processor):
    tracker = TensorBoardCallback()
    several = {"bare": make_dataset(4, annotated=0), "test": make_dataset(4, split="test")}
    make_trainer(tmp_path / "1", processor, [tracker], several, max_steps=2).train()
    assert len(tracker.images) == 1
    trainer = make_trainer(tmp_path / "2", processor, [])
    prepared = [trainer.preparation(make_dataset(3), "x", maps=True)[row] for row in range(3)]
    own = TensorBoardCallback()
    make_trainer(tmp_path / "3", processor, [own], prepared, max_steps=2).train()
    stream = TensorBoardCallback()
    make_trainer(tmp_path / "4", processor, [stream], make_dataset(3).to_iterable_dataset(), max_steps=2).train()
    # Of one size and one content: the same pictures, however they are given.
    assert [len(one.images) for one in (own, stream)] == [1, 1]
    assert np.array_equal(own.images[0][1], stream.images[0][1])


def test_a_map_that_can_not_be_read_does_not_end_the_training(tmp_path, processor, monkeypatch):
    said = []
    monkeypatch.setattr("sage_hf.tracked_pictures.logger.warning", lambda *words: said.append(words[0] % words[1:]))
    tracker = TensorBoardCallback()
    other_size = [{"image": Image.new("RGB", (48, 40)), "saliency": Image.new("L", (9, 30), 9), "label": 0}] * 4
    trainer = make_trainer(tmp_path, processor, [tracker], make_dataset(rows=other_size, split="test"))
    trainer.train()
    assert trainer.state.global_step == 4
    assert tracker.images == []
    assert len(said) == 1
    assert said[0].startswith("tracked_pictures: no pictures for the trackers, because ")


def test_a_negative_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tracked_pictures must be 0 or more"):
        make_args(tmp_path, tracked_pictures=-1)


def test_senders_are_callbacks_of_transformers():
    import transformers.integrations

    assert all(issubclass(getattr(transformers.integrations, name), TrainerCallback) for name in SENDERS)


@installed("tensorboard")
def test_tensorboard(tmp_path, processor, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    trainer = make_trainer(tmp_path / "out", processor, report_to="tensorboard")
    trainer.train()
    events = EventAccumulator(str(tmp_path / "events"), size_guidance={"images": 0}).Reload()
    logged = {row["step"]: row for row in trainer.state.log_history if "loss" in row}
    for name in TERMS:
        found = {one.step: one.value for one in events.Scalars(f"train/{name}")}
        assert found == pytest.approx({step: row[name] for step, row in logged.items()}, rel=1e-6), name
    assert "eval/loss" in events.Tags()["scalars"]
    images = events.Images(NAME)
    assert [(one.step, one.width, one.height) for one in images] == [(step, *GRID) for step in (2, 4)]


TRAIN = """
    import socket
    import sys
    from pathlib import Path

    connect = socket.socket.connect

    def connect_here(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"the network was asked for: {address}")
        return connect(self, address)

    socket.socket.connect = connect_here
    from tests.test_tracking import make_trainer
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    settings = {"report_to": sys.argv[2:], "project": "sage-test", "run_name": "run"}
    trainer = make_trainer(Path(sys.argv[1]) / "out", processor, **settings)
    trainer.train()
    trainer.save_state()
"""
APART = ("trackio", "wandb")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory) -> Path:
    """Where a process of its own trained, for these trackers keep threads and settings."""
    folder = tmp_path_factory.mktemp("tracked")
    environment = {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "TRACKIO_DIR": str(folder / "trackio"),
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_SILENT": "true",
    }
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TRAIN), str(folder), *filter(importlib.util.find_spec, APART)],
        cwd=folder,
        env=os.environ | environment,
        check=False,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert "the network was asked for" not in found.stderr
    return folder


@installed("trackio")
def test_trackio_locally(tracked):
    (file,) = (tracked / "trackio").glob("sage-test*.db")
    with contextlib.closing(sqlite3.connect(file)) as database:
        rows = [json.loads(row[0]) for row in database.execute("select metrics from metrics order by id")]
    log = json.loads((tracked / "out" / "trainer_state.json").read_text())["log_history"]
    for entry in (one for one in log if "loss" in one):
        (row,) = (one for one in rows if "train/loss" in one and one["train/global_step"] == entry["step"])
        assert {name: row[f"train/{name}"] for name in TERMS} == pytest.approx({name: entry[name] for name in TERMS})
    pictures = [(row["train/global_step"], row[NAME]) for row in rows if NAME in row]
    assert [step for step, _ in pictures] == [2, 4]
    for _, picture in pictures:
        assert picture["_type"] == "trackio.image"
        with Image.open(tracked / "trackio" / "media" / picture["file_path"]) as drawn:
            assert drawn.size == GRID


@installed("wandb")
def test_wandb_offline(tracked):
    (folder,) = (tracked / "wandb").glob("offline-run-*")
    pictures = list((folder / "files" / "media" / "images" / "eval").glob("views_*.png"))
    assert len(pictures) == 2
    for picture in pictures:
        with Image.open(picture) as drawn:
            assert drawn.size == GRID
    (record,) = folder.glob("run-*.wandb")
    content = record.read_bytes()
    assert all(f"train/{name}".encode() in content for name in TERMS)
