"""A loss that is no number stops training, with rows and terms, before anything is saved of it."""

import datasets
import pytest
import torch
from accelerate import Accelerator
from transformers import TrainerCallback

from sage_hf.errors import LossError
from sage_hf.loss_watch import CHECK_EVERY, SHOWN_ROWS, LossWatch
from sage_hf.objectives import SageObjective
from tests.conftest import make_dataset, make_rows
from tests.test_trainer import make_trainer


class Spoil(TrainerCallback):
    """Puts NaN into the weights before a step."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step + 1 == self.step:
            next(model.parameters()).data.fill_(float("nan"))


def make_run(folder, processor, callbacks=(), dataset=None, **settings):
    dataset = dataset or make_dataset(8)
    usual = {"max_steps": 6, "save_strategy": "steps", "save_steps": 5, "logging_steps": 100}
    return make_trainer(
        folder, train_dataset=dataset, processing_class=processor, callbacks=list(callbacks), **usual | settings
    )


def places_seen(trainer):
    seen, plain = [], trainer.get_batch_samples

    def counted(*args):
        batches, counts = plain(*args)
        seen.append([batch["row_places"].tolist() for batch in batches])
        return batches, counts

    trainer.get_batch_samples = counted
    return seen


def test_rows_and_terms_are_named_and_nothing_is_saved(tmp_path, processor):
    trainer = make_run(tmp_path, processor, [Spoil(3)])
    seen = places_seen(trainer)
    with pytest.raises(LossError, match=r"step 3: the loss is nan\.") as error:
        trainer.train()
    names = ", ".join(f"row {index}" for (index,) in seen[2][0])
    assert f"Rows of the batch: {names}." in str(error.value)
    assert "Not finite: cross_entropy (nan), triplet (nan), consistency (nan)." in str(error.value)
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").glob("checkpoint-*"))


def test_files_are_named(tmp_path, processor):
    rows = make_rows(4)
    for index, row in enumerate(rows):
        row["image"].save(tmp_path / f"leaf-{index}.png")
    columns = {
        "image": [str(tmp_path / f"leaf-{index}.png") for index in range(4)],
        "saliency": [row["saliency"] for row in rows],
        "label": [0, 1, 2, 0],
    }
    features = make_dataset(1).features
    dataset = datasets.Dataset.from_dict(columns, features=features, split=datasets.Split.TRAIN)
    with pytest.raises(LossError, match=r"row \d \(.*leaf-\d\.png\)"):
        make_run(tmp_path, processor, [Spoil(1)], dataset).train()


def test_rows_of_a_stream_are_named(tmp_path, processor):
    stream = make_dataset(8).to_iterable_dataset(num_shards=2)
    with pytest.raises(LossError, match=r"Rows of the batch: row 0 of shard 0, row 1 of shard 0"):
        make_run(tmp_path, processor, [Spoil(1)], stream).train()


def test_the_term_at_fault_is_told_from_the_others(tmp_path, processor):
    objective = SageObjective(degradation=lambda pictures, generator: pictures * float("inf"))
    trainer = make_run(tmp_path, processor, objective=objective, logging_steps=1)
    with pytest.raises(LossError, match=r"step 1: the loss is nan\. Not finite: triplet .*Finite: cross_entropy\."):
        trainer.train()


def test_a_dataset_that_does_not_number_its_rows(tmp_path):
    from tests.conftest import Rows

    trainer = make_trainer(tmp_path, train_dataset=Rows(), callbacks=[Spoil(1)], max_steps=1)
    with pytest.raises(LossError, match="Which rows it was isn't known"):
        trainer.train()


def watch():
    return LossWatch(Accelerator(cpu=True), lambda place: f"row {place[0]}")


def test_rows_without_finite_logits_are_picked_out():
    one = watch()
    logits = torch.tensor([[0.0, 1.0], [float("inf"), 0.0]])
    one.add(7, torch.tensor(float("inf")), {"a": torch.tensor([1.0, float("inf")])}, torch.tensor([[4], [9]]), logits)
    with pytest.raises(LossError, match=r"Rows of the batch: row 4, row 9\. Without finite logits: row 9\."):
        one.check()


def test_a_gradient_is_told_from_a_loss():
    one, fine = watch(), torch.zeros(1, 2)
    for step in (1, 2, 3):
        one.add(step, torch.tensor(1.0), {}, torch.tensor([[step]]), fine)
        one.add_gradient(step, torch.tensor(1.0 if step < 2 else float("inf")))
    with pytest.raises(
        LossError, match=r"step 2: the loss is finite, its gradient is not\. Rows of the batch: row 2\."
    ):
        one.check()
    one.check()


def test_many_rows_are_counted():
    one, rows = watch(), SHOWN_ROWS + 5
    one.add(1, torch.tensor(float("nan")), {}, torch.arange(rows).unsqueeze(1), torch.zeros(rows, 2))
    with pytest.raises(LossError, match=r"row 63 and 5 more\."):
        one.check()


def test_nothing_is_read_from_the_device_before_a_check():
    """Tensors without data can't be read: an error would say so."""
    one = watch()
    for step in range(5):
        loss, logits = torch.empty((), device="meta"), torch.empty(4, 3, device="meta")
        one.add(step, loss, {"triplet": torch.empty(4, device="meta")}, torch.zeros(4, 1), logits)
        one.add_gradient(step, torch.empty((), device="meta"))
    with pytest.raises(NotImplementedError):
        one.check()


def test_it_is_looked_at_every_so_often(tmp_path, processor):
    trainer = make_run(
        tmp_path, processor, [Spoil(2)], max_steps=CHECK_EVERY + 2, save_strategy="no", guidance="none", check_rows=0
    )
    with pytest.raises(LossError, match=r"step 2: the loss is nan"):
        trainer.train()
    assert trainer.state.global_step == CHECK_EVERY


def test_the_last_steps_are_looked_at_as_well(tmp_path, processor):
    trainer = make_run(tmp_path, processor, [Spoil(3)], max_steps=3, save_strategy="no")
    with pytest.raises(LossError, match=r"step 3: the loss is nan"):
        trainer.train()
