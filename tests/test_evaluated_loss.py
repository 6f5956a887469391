import numpy as np
import pytest
import torch

from sage_hf import SageTrainer
from sage_hf.evaluated_loss import EvaluatedLoss
from tests.conftest import make_dataset, make_model
from tests.test_ways_to_train import make_args

WEIGHTS = (0.5, 1.0, 6.0)


def make_trainer(tmp_path, processor, batch_size, **settings):
    rows = make_dataset(13)
    rows = rows.select(np.argsort(rows["label"], kind="stable"))  # so that batches hold one class
    args = make_args(tmp_path, per_device_eval_batch_size=batch_size, **settings)
    torch.manual_seed(0)
    return SageTrainer(make_model("vit"), args, train_dataset=rows, eval_dataset=rows, processing_class=processor)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_loss_does_not_depend_on_the_batches(tmp_path, processor, weights):
    found = []
    for batch_size in (1, 2, 4, 13):  # one that divides 13, and some that leave a batch half full
        trainer = make_trainer(tmp_path, processor, batch_size, class_weights=weights and list(map(str, weights)))
        output = trainer.predict(trainer.eval_dataset)
        found.append((trainer.evaluate()["eval_loss"], output.metrics["test_loss"]))
    logits, labels = torch.tensor(output.predictions), torch.tensor(output.label_ids)
    expected = torch.nn.functional.cross_entropy(logits, labels, None if weights is None else torch.tensor(weights))
    np.testing.assert_allclose(found, expected.item(), rtol=1e-6)


def test_without_labels_there_is_no_loss(tmp_path, processor):
    trainer = make_trainer(tmp_path, processor, 4)
    bare = trainer.preparation(make_dataset(3).remove_columns("label"), "bare", labelled=False)
    assert "test_loss" not in trainer.predict(bare).metrics


def test_rows_that_are_not_finite_are_left_out_if_asked_to():
    collected = EvaluatedLoss()
    assert collected.mean() is None

    class OneProcess:
        gather_for_metrics = staticmethod(lambda tensor: tensor)

    batch = torch.tensor([1.0, torch.inf, 4.0]), torch.tensor([1.0, 1.0, 3.0]), torch.tensor(torch.inf)
    collected.keep(*batch)
    collected.gather(OneProcess(), batch[2])
    assert collected.mean() == np.inf
    assert collected.mean(finite_only=True) == 5 / 4
    collected.keep(*batch)
    collected.gather(OneProcess(), torch.tensor(7.0))
    assert collected.mean(finite_only=True) is None


class Regularised(SageTrainer):
    def compute_loss(self, *args, return_outputs=False, **kwargs):
        loss, outputs = super().compute_loss(*args, return_outputs=True, **kwargs)
        return (loss + 100, outputs) if return_outputs else loss + 100


def test_what_a_loss_of_ones_own_adds_is_in_it(tmp_path, processor):
    """A mean over batches then, as Trainer's: of 13 rows in batches of 13, the very same."""
    plain = make_trainer(tmp_path, processor, 13)
    own = Regularised(plain.model, plain.args, eval_dataset=plain.eval_dataset, processing_class=processor)
    np.testing.assert_allclose(own.evaluate()["eval_loss"], plain.evaluate()["eval_loss"] + 100, rtol=1e-6)


def test_metrics_may_predict(tmp_path, processor):
    plain = make_trainer(tmp_path, processor, 4)
    expected = plain.evaluate()["eval_loss"]
    first = plain.raw_eval_dataset.select(range(2))

    def predicting(prediction):
        return {"other_loss": trainer.predict(first).metrics["test_loss"]}

    trainer = SageTrainer(
        plain.model,
        plain.args,
        eval_dataset=plain.eval_dataset,
        processing_class=processor,
        compute_metrics=predicting,
    )
    trainer.compute_metrics, metrics = None, trainer.compute_metrics
    other = trainer.predict(first).metrics["test_loss"]
    calls = []

    def once(prediction):  # what it predicts has metrics of its own
        calls.append(prediction)
        return metrics(prediction) if len(calls) == 1 else {}

    trainer.compute_metrics = once
    found = trainer.evaluate()
    assert found["eval_loss"] == expected
    assert found["eval_other_loss"] == other != expected
