"""Checkpoints are whole or not there: cut off, killed amid a removal, or on a disk that is full."""

import contextlib
import errno
import os
import shutil
import subprocess

import pytest
import torch

from sage_hf.whole_checkpoints import (
    SCRATCH,
    SENTINEL,
    complete,
    last_whole_checkpoint,
    resumed_checkpoint,
    why_incomplete,
)
from tests.conftest import make_dataset
from tests.test_trainer import make_trainer


def make_run(folder, processor, **settings):
    usual = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    return make_trainer(
        folder, train_dataset=make_dataset(8), processing_class=processor, check_rows=0, **usual | settings
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("finished")
    make_run(folder, ViTImageProcessorPil(size={"height": 32, "width": 32})).train()
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_each_file_that_is_cut_off_is_noticed(run):
    names = {path.name for path in (run / "checkpoint-3").iterdir()}
    checked = [
        name for name in names if name.endswith((".safetensors", ".pt", ".pth")) or name == "trainer_state.json"
    ]
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"} < {*checked}
    for name in checked:
        file = run / "checkpoint-3" / name
        content = file.read_bytes()
        for length in (0, 1, len(content) // 2, len(content) - 3):
            file.write_bytes(content[:length])
            assert why_incomplete(file.parent) == f"{name} is cut off", length
        file.write_bytes(content)
    assert why_incomplete(run / "checkpoint-3") is None


def test_the_last_whole_one_is_resumed_from(run, processor, caplog):
    (run / "checkpoint-3" / "trainer_state.json").unlink()
    (run / "checkpoint-2" / SENTINEL).write_text("in progress")
    found, passed = last_whole_checkpoint(run)
    assert found == run / "checkpoint-1"
    assert passed == [
        "checkpoint-3 is not whole: trainer_state.json is missing",
        f"checkpoint-2 is not whole: {SENTINEL} says so",
    ]
    trainer = make_run(run.parent, processor)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 3
    assert trainer._resumed_from == str(run / "checkpoint-1")
    # What was cut off is written anew.
    assert why_incomplete(run / "checkpoint-3") is None


@pytest.mark.parametrize("resume", [True, "auto", "checkpoint-3"])
def test_nothing_that_is_cut_off_is_resumed_from(run, processor, resume):
    for step in (1, 2, 3):
        (run / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"")
    trainer = make_run(run.parent, processor)
    named = resume if resume in (True, "auto") else str(run / resume)
    with pytest.raises(ValueError, match=r"optimizer.pt is cut off"):
        trainer.train(resume_from_checkpoint=named)


def test_auto_starts_where_there_is_nothing(tmp_path, processor):
    trainer = make_run(tmp_path, processor, max_steps=1)
    with pytest.raises(ValueError, match="has no checkpoint to go on from"):
        trainer.train(resume_from_checkpoint=True)
    trainer.train(resume_from_checkpoint="auto")
    assert trainer.state.global_step == 1


def failing_save(monkeypatch, at, error):
    """The `at`-th pickle that is written ends in an error, half written."""
    plain, calls = torch.save, []

    def save(content, path, *args, **kwargs):
        calls.append(path)
        if len(calls) == at:
            with open(path, "wb") as file:
                file.write(b"half")
            raise error
        plain(content, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", save)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
    ],
)
def test_the_last_good_checkpoint_outlives_a_failed_one(tmp_path, processor, monkeypatch, error):
    trainer = make_run(tmp_path, processor, save_total_limit=1)
    # Each checkpoint has arguments, optimizer, scheduler and random numbers: the seventh is in the second.
    failing_save(monkeypatch, 7, error)
    with pytest.raises(
        OSError, match=r"checkpoint-2 could not be written .* The last whole checkpoint is .*checkpoint-1"
    ):
        trainer.train()
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name != "runs"] == ["checkpoint-1"]
    assert why_incomplete(tmp_path / "run" / "checkpoint-1") is None
    monkeypatch.undo()
    again = make_run(tmp_path, processor, save_total_limit=1)
    again.train(resume_from_checkpoint=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint-3"]


def test_other_errors_stay_what_they_are(tmp_path, processor, monkeypatch):
    failing_save(monkeypatch, 2, RuntimeError("CUDA error"))
    with pytest.raises(RuntimeError, match=r"^CUDA error$"):
        make_run(tmp_path, processor).train()
    assert not (tmp_path / "run" / SCRATCH).exists()


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of its own in a folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    may = not os.geteuid() and shutil.which("mount") is not None
    if not may or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a file system can't be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full(tmp_path, processor, finished):
    one = sum(path.stat().st_size for path in (finished / "checkpoint-1").iterdir())
    with small_disk(tmp_path / "disk", int(2.5 * one)) as disk:
        with pytest.raises(
            OSError, match=r"could not be written .*MB are free.*last whole checkpoint is .*checkpoint-2"
        ):
            make_run(disk, processor).train()
        assert why_incomplete(disk / "run" / "checkpoint-2") is None
        assert not (disk / "run" / "checkpoint-3").exists()
        shutil.rmtree(disk / "run" / "checkpoint-1")
        again = make_run(disk, processor)
        again.train(resume_from_checkpoint=True)
        assert why_incomplete(disk / "run" / "checkpoint-3") is None
        # Nor is a final model of which half has room left behind.
        for number in range(2):
            shutil.copytree(disk / "run" / "checkpoint-2", disk / str(number), dirs_exist_ok=True, copy_function=_fill)
        with pytest.raises(OSError, match=r"could not be written"):
            again.save_model()
        assert not (disk / "run" / "model.safetensors").exists()


def _fill(source, target):
    with contextlib.suppress(OSError):
        shutil.copyfile(source, target)


def test_one_of_the_same_name_is_replaced_at_once(tmp_path):
    for name, text in ((SCRATCH, "new"), ("", "old")):
        (tmp_path / name / "checkpoint-1").mkdir(parents=True)
        (tmp_path / name / "checkpoint-1" / "file").write_text(text)
    complete(tmp_path / SCRATCH / "checkpoint-1", tmp_path / "checkpoint-1")
    assert (tmp_path / "checkpoint-1" / "file").read_text() == "new"
    assert not any((tmp_path / SCRATCH).iterdir())


def test_one_that_lost_its_name_to_a_killed_run_gets_it_back(run, processor):
    last, _ = last_whole_checkpoint(run)
    nameless = run / SCRATCH / f"replaced-{last.name}"
    nameless.parent.mkdir(exist_ok=True)
    last.rename(nameless)  # and killed before the new one was renamed
    assert resumed_checkpoint(True, run) == str(last)
    assert not nameless.exists()
    shutil.copytree(last, nameless)  # killed after it was: the new one stays
    (last / "new").touch()
    assert resumed_checkpoint(None, run) is None
    assert (last / "new").exists()


def test_what_a_killed_run_left_is_cleared_away(run, processor):
    (run / SCRATCH / "checkpoint-4").mkdir(parents=True)
    make_run(run.parent, processor).train(resume_from_checkpoint=True)
    assert not (run / SCRATCH).exists()


def test_the_best_one_is_kept_and_found(tmp_path, processor):
    trainer = make_run(
        tmp_path,
        processor,
        eval_dataset=make_dataset(4),
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        learning_rate=0.5,
        save_total_limit=1,
    )
    trainer.train()
    best = tmp_path / "run" / f"checkpoint-{trainer.state.best_global_step}"
    assert trainer.state.best_model_checkpoint == str(best)
    assert best.is_dir()


def test_a_disk_that_is_found_full_as_files_are_flushed(tmp_path, processor, monkeypatch):
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(tmp_path, train_dataset=make_dataset(8), processing_class=processor, **settings)

    def full(descriptor):
        if trainer.state.global_step == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"checkpoint-2 could not be written .* The last whole checkpoint is .*-1"):
        trainer.train()
    assert not (tmp_path / "run" / "checkpoint-2").exists()
