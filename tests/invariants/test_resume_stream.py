"""A run on a shuffled stream that was killed and resumed is the run that was not: rows, losses and weights."""

import shutil

import pytest
import torch
from transformers import TrainerCallback

from sage_hf import AlignedTransform
from tests.conftest import make_dataset
from tests.test_trainer import make_trainer

STEPS = 9


class Stop(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_save(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step == self.step


def make_run(folder, processor, callbacks=(), **settings):
    # Fourteen rows in three shards: a pass takes four steps of one process, or two with accumulation.
    return make_trainer(
        folder,
        processing_class=processor,
        callbacks=list(callbacks),
        shuffle_buffer_size=6,
        random_crop_scale=0.5,
        horizontal_flip=0.5,
        color_jitter=0.2,
        **{
            "train_dataset": make_dataset(14, annotated=10).to_iterable_dataset(num_shards=3),
            "max_steps": STEPS,
            "save_strategy": "steps",
            "save_steps": 1,
        }
        | settings,
    )


def seen_batches(trainer):
    """Sums of the pictures that the trainer is given, batch by batch."""
    seen = []
    plain = trainer.compute_loss
    trainer.compute_loss = lambda model, inputs, **kwargs: (
        seen.append(inputs["pixel_values"].double().sum().item()) or plain(model, inputs, **kwargs)
    )
    return seen


def losses(trainer):
    return [
        {name: value for name, value in entry.items() if "runtime" not in name and name != "data_wait"}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]


@pytest.mark.parametrize(
    ("step", "settings"),
    [
        (2, {}),
        (4, {}),  # the end of a pass
        (6, {}),  # the second pass
        (3, {"gradient_accumulation_steps": 2}),
        (6, {"dataloader_num_workers": 2}),
    ],
)
def test_killed_and_resumed_is_uninterrupted(tmp_path, processor, step, settings):
    whole = make_run(tmp_path / "whole", processor, **settings)
    expected = seen_batches(whole)
    whole.train()

    killed = make_run(tmp_path / "part", processor, [Stop(step)], **settings)
    before = seen_batches(killed)
    killed.train()
    resumed = make_run(tmp_path / "part", processor, **settings)
    after = seen_batches(resumed)
    resumed.train(resume_from_checkpoint=str(tmp_path / "part" / "run" / f"checkpoint-{step}"))

    assert before + after == expected
    assert losses(resumed) == losses(whole)
    assert resumed.state.global_step == STEPS
    for (name, parameter), other in zip(resumed.model.named_parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(parameter, other), name


@pytest.mark.parametrize(("ends", "settings"), [([4, 8, 9], {}), ([5, 9], {"dataloader_num_workers": 2})])
def test_a_pass_that_ended_does_not_end_again(tmp_path, processor, ends, settings):
    settings |= {"save_strategy": "epoch", "eval_strategy": "epoch", "eval_dataset": make_dataset(4)}
    whole = make_run(tmp_path / "whole", processor, **settings)
    expected = seen_batches(whole)
    whole.train()
    killed = make_run(tmp_path / "part", processor, [Stop(ends[0])], **settings)
    before = seen_batches(killed)
    killed.train()
    assert killed.state.global_step == ends[0]
    resumed = make_run(tmp_path / "part", processor, **settings)
    after = seen_batches(resumed)
    resumed.train(resume_from_checkpoint="auto")
    assert before + after == expected
    figures = [
        [(entry["step"], entry["eval_loss"]) for entry in run.state.log_history if "eval_loss" in entry]
        for run in (whole, resumed)
    ]
    assert figures[0] == figures[1]
    assert [step for step, _ in figures[0]] == ends
    for (name, parameter), other in zip(resumed.model.named_parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(parameter, other), name


@pytest.mark.parametrize("streamed", [True, False])
def test_a_finished_run_takes_no_further_step(tmp_path, processor, streamed):
    data = {} if streamed else {"train_dataset": make_dataset(14, annotated=10)}
    finished = make_run(tmp_path, processor, lr_scheduler_type="constant", save_steps=4, **data)
    finished.train()
    again = make_run(tmp_path, processor, lr_scheduler_type="constant", save_steps=4, **data)
    again.train(resume_from_checkpoint="auto")
    assert again.state.global_step == STEPS
    for (name, parameter), other in zip(again.model.named_parameters(), finished.model.parameters(), strict=True):
        assert torch.equal(parameter, other), name


def test_a_finished_run_may_be_prolonged(tmp_path, processor):
    settings = {"lr_scheduler_type": "constant"}
    whole = make_run(tmp_path / "whole", processor, **settings)
    expected = seen_batches(whole)
    whole.train()
    short = make_run(tmp_path / "part", processor, **settings)
    before = seen_batches(short)
    short.args.max_steps = 6
    short.train()
    shutil.rmtree(tmp_path / "part" / "run" / "checkpoint-1")
    longer = make_run(tmp_path / "part", processor, **settings)
    after = seen_batches(longer)
    longer.train(resume_from_checkpoint=True)
    assert before + after == expected


def test_what_is_skipped_is_not_transformed(tmp_path, processor, monkeypatch):
    killed = make_run(tmp_path, processor, [Stop(3)])
    killed.train()
    resumed = make_run(tmp_path, processor, check_rows=0)
    transformed = []
    plain = AlignedTransform.__call__
    monkeypatch.setattr(
        AlignedTransform, "__call__", lambda self, row, *more: transformed.append(0) or plain(self, row, *more)
    )
    resumed.args.max_steps = 4
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert len(transformed) == 2  # what is left of the first pass of fourteen
