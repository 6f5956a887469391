"""SIGTERM saves after the step that is under way, and ends so that the run can go on as if nothing had been."""

import gc
import multiprocessing
import os
import signal
import subprocess
import time

import pytest
import torch
from transformers import TrainerCallback

from sage_hf import SageTrainingArguments
from sage_hf.preemption import HearParentAlone, Preempted
from tests.conftest import make_dataset
from tests.test_trainer import make_trainer


class Terminate(TrainerCallback):
    """Sends this process SIGTERM in the midst of a step."""

    def __init__(self, step):
        self.step = step

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class TerminateAll(Terminate):
    """Has another process send SIGTERM to this one and its workers, as schedulers do to all processes of a job."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            self.workers = multiprocessing.active_children()
            processes = [os.getpid(), *(worker.pid for worker in self.workers)]
            subprocess.run(["kill", "-TERM", *map(str, processes)], check=True)
            time.sleep(0.5)  # for the workers to have heard


def make_run(folder, processor, callbacks=(), **settings):
    usual = {"max_steps": 5, "logging_steps": 3, "save_strategy": "no", "degradation": "noise", "horizontal_flip": 0.5}
    return make_trainer(
        folder,
        train_dataset=make_dataset(8),
        processing_class=processor,
        callbacks=list(callbacks),
        **usual | settings,
    )


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}])
def test_a_run_that_was_told_to_end_goes_on_as_if_it_had_not(tmp_path, processor, settings):
    whole = make_run(tmp_path / "whole", processor, **settings)
    whole.train()
    told = make_run(tmp_path / "part", processor, [Terminate(2)], **settings)
    with pytest.raises(Preempted) as ended:
        told.train()
    assert ended.value.code == 143
    assert ended.value.step == told.state.global_step == 2
    assert [path.name for path in (tmp_path / "part" / "run").iterdir()] == ["checkpoint-2"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    resumed = make_run(tmp_path / "part", processor, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == losses(whole)
    for (name, tensor), other in zip(
        resumed.model.state_dict().items(), whole.model.state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, other), name


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_are_not_ended_by_what_their_parent_answers(tmp_path, processor, persistent):
    terminate = TerminateAll(2)
    settings = {"dataloader_num_workers": 2, "dataloader_persistent_workers": persistent, "guidance": "none"}
    settings |= {"per_device_train_batch_size": 1}  # so that much is left of the epoch
    told = make_run(tmp_path, processor, [terminate], max_steps=30, **settings)
    with pytest.raises(Preempted):
        told.train()
    assert len(terminate.workers) == 2
    assert (tmp_path / "run" / "checkpoint-2").is_dir()
    for loader in (told.get_eval_dataloader(make_dataset(4)), told.get_test_dataloader(make_dataset(4))):
        assert isinstance(loader.base_dataloader.worker_init_fn, HearParentAlone)
    del told, loader
    gc.collect()
    for worker in terminate.workers:
        worker.join(20)
        assert not worker.is_alive()


def test_a_worker_ends_when_its_parent_says_so():
    worker = multiprocessing.get_context("fork").Process(target=wait_as_worker, daemon=True)
    worker.start()
    time.sleep(0.5)
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    worker.join(1)
    assert worker.is_alive()
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0


def wait_as_worker():
    HearParentAlone(None)(0)
    time.sleep(60)


def test_the_checkpoint_is_not_lost_to_the_best_one(tmp_path, processor):
    told = make_run(
        tmp_path,
        processor,
        [Terminate(3)],
        eval_dataset=make_dataset(4),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        save_total_limit=1,
    )
    with pytest.raises(Preempted):
        told.train()
    assert (tmp_path / "run" / "checkpoint-3").is_dir()


def test_a_handler_of_the_users_own_is_left_alone(tmp_path, processor):
    told = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        trainer = make_run(tmp_path, processor, [Terminate(2)], max_steps=3)
        trainer.train()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [signal.SIGTERM]
    assert trainer.state.global_step == 3


def test_a_second_signal_soon_after_is_the_same_one(processor, tmp_path):
    class Again(Terminate):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == self.step:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted):
        make_run(tmp_path, processor, [Again(2)]).train()
    assert (tmp_path / "run" / "checkpoint-2").is_dir()


def test_the_handler_goes_with_an_error(tmp_path, processor):
    class Fail(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        make_run(tmp_path, processor, [Fail()]).train()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_transformers_own_is_not_asked(tmp_path):
    args = SageTrainingArguments(output_dir=str(tmp_path), enable_jit_checkpoint=True, use_cpu=True)
    assert args.enable_jit_checkpoint is False
