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

    collected.keep(torch.tensor([1.0, torch.inf, 4.0]), torch.tensor([1.0, 1.0, 3.0]))
    collected.gather(OneProcess())
    assert collected.mean() == np.inf
    assert collected.mean(finite_only=True) == 5 / 4
    collected.start()
    assert collected.mean() is None
