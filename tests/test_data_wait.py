"""The share of training's time that goes by waiting for data."""

import itertools
import time

import pytest
import torch
from accelerate import Accelerator

from sage_hf import data_wait
from sage_hf.data_wait import DataWait
from tests.conftest import make_dataset
from tests.test_trainer import make_trainer


class Clock:
    """Stands still unless it is moved."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def batches(self, *seconds):
        for wait in seconds:
            self.now += wait
            yield wait


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


def run(wait, clock, batches, *, steps, compute, count=1):
    for _ in range(steps):
        wait.fetch(batches, count)
        clock.now += compute
        wait.on_step_end(None, None, None)
        clock.now += 1000  # logging, evaluation and saving


def test_share_is_waiting_over_waiting_and_computing(accelerator):
    clock = Clock()
    wait = DataWait(clock)
    batches = clock.batches(50, 3, 3, 1)
    run(wait, clock, batches, steps=3, compute=1)
    assert wait.share(accelerator) == pytest.approx(6 / 8)  # the first step's 50 seconds are not counted
    run(wait, clock, batches, steps=1, compute=3)
    assert wait.share(accelerator) == pytest.approx(1 / 4)  # since the last time
    assert wait.share(accelerator) is None


def test_all_batches_of_a_step_count(accelerator):
    clock = Clock()
    wait = DataWait(clock)
    run(wait, clock, clock.batches(9, 9, 2, 4), steps=2, compute=18, count=2)
    assert wait.share(accelerator) == pytest.approx(6 / 24)


def test_fetch_gives_what_is_left():
    assert DataWait().fetch(iter("abc"), 2) == ["a", "b"]
    assert DataWait().fetch(iter("c"), 2) == ["c"]
    assert DataWait().fetch(iter(""), 2) == []


@pytest.mark.parametrize(
    ("share", "seconds", "told"), [(0.3, 40, True), (0.2, 40, False), (0.3, 20, False), (1.0, 30, True)]
)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_large_and_costly_share_is_told_once(monkeypatch, share, seconds, told, workers):
    messages = []
    monkeypatch.setattr(data_wait.logger, "warning", lambda text, *values: messages.append(text % values))
    clock = Clock()
    wait = DataWait(clock)
    run(wait, clock, clock.batches(1, seconds), steps=2, compute=1)
    for _ in range(2):
        wait.hint(share, workers)
    assert len(messages) == told
    if told:
        assert f"{100 * share:.0f} %" in messages[0]
        assert ("now 2" if workers else "set dataloader_num_workers") in messages[0]


class Slow(torch.utils.data.Dataset):
    """Rows that take their time."""

    def __init__(self, dataset, seconds):
        self.dataset, self.seconds = dataset, seconds

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return self.dataset[index]


def test_trainer_logs_a_high_share_of_slow_data_and_a_low_one_of_fast(tmp_path, processor):
    shares = {}
    prepared = make_trainer(tmp_path, train_dataset=make_dataset(4), processing_class=processor).train_dataset
    rows = [prepared[index] for index in range(4)] * 4  # one batch is fetched ahead
    for name, seconds, computing in (("slow", 0.05, 0.0), ("fast", 0.0, 0.3)):
        trainer = make_trainer(
            tmp_path / name,
            train_dataset=Slow(rows, seconds),
            per_device_train_batch_size=2,
            max_steps=4,
            logging_steps=2,
        )
        plain = trainer.compute_loss
        trainer.compute_loss = lambda *args, plain=plain, computing=computing, **kwargs: (
            time.sleep(computing) or plain(*args, **kwargs)
        )
        trainer.train()
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert [entry["step"] for entry in logs] == [2, 4]
        shares[name] = [entry["data_wait"] for entry in logs]
    assert min(shares["slow"]) > 2 * max(shares["fast"])
    assert all(0 <= share <= 1 for share in itertools.chain(*shares.values()))
    assert max(shares["fast"]) < 0.2


def test_each_training_starts_anew(tmp_path, processor):
    trainer = make_trainer(tmp_path, train_dataset=make_dataset(4), processing_class=processor, max_steps=1)
    for _ in range(2):
        trainer.train()
        (entry,) = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert "data_wait" not in entry  # its only step is its first
