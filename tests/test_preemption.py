"""SIGTERM saves after the step that is under way, and ends so that the run can go on as if nothing had been."""

import os
import signal

import pytest
import torch
from transformers import TrainerCallback

from sage_hf import SageTrainingArguments
from sage_hf.preemption import Preempted
from tests.conftest import make_dataset
from tests.test_trainer import make_trainer


class Terminate(TrainerCallback):
    """Sends this process SIGTERM in the midst of a step."""

    def __init__(self, step):
        self.step = step

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


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
