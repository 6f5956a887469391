"""Hyperparameter search, weights that are averaged, early stopping, class weights, losses of one's own."""

import copy
import itertools

import datasets
import pytest
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import AutoModelForImageClassification, EarlyStoppingCallback, TrainerCallback

from sage_hf import SageObjective, SageTrainer
from tests import conftest
from tests.conftest import Rows, make_dataset, make_model


def make_args(folder, **settings):
    return conftest.make_args(folder, **{"save_strategy": "no"} | settings)


def test_hyperparameter_search_by_optuna(tmp_path):
    margins, terms = [], []

    class Kept(SageTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            if model.training:
                margins.append(self.guidance_objective.margin)
                terms.append(self.guidance_objective.consistency)
                assert self._encoder.model is self.accelerator.unwrap_model(model)
            return super().compute_loss(model, inputs, *args, **kwargs)

    trainer = Kept(
        args=make_args(tmp_path, logging_steps=1),
        model_init=lambda: make_model("vit"),
        train_dataset=Rows(),
        eval_dataset=Rows(),
    )
    wanted = iter([(0.1, "positive"), (0.7, "none"), (0.3, "both")])

    def space(trial):
        margin, consistency = next(wanted)
        return {"margin": margin, "consistency": consistency}

    best = trainer.hyperparameter_search(space, n_trials=3, direction="minimize")
    assert best.run_id in ("0", "1", "2")
    assert [margin for margin, _ in itertools.groupby(margins)] == [0.1, 0.7, 0.3]
    assert [consistency for consistency, _ in itertools.groupby(terms)] == ["positive", "none", "both"]
    assert trainer.model_config.sage["margin"] == 0.3


def test_model_init_makes_a_new_model_for_each_training(tmp_path):
    made = []

    def model_init():
        made.append(make_model("vit"))
        return made[-1]

    trainer = SageTrainer(args=make_args(tmp_path), model_init=model_init, train_dataset=Rows())
    assert trainer.model is made[0]
    trainer.train()
    first = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    assert len(made) == 3
    assert trainer.model is made[2]
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, first[name]), name


def test_early_stopping_keeps_the_best_checkpoint(tmp_path):
    args = make_args(
        tmp_path,
        max_steps=20,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,  # the loss falls, so the first evaluation stays the best
        save_total_limit=1,
    )
    trainer = SageTrainer(
        make_model("vit"),
        args,
        train_dataset=Rows(),
        eval_dataset=Rows(),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    trainer.train()
    assert trainer.state.global_step == 6
    best = AutoModelForImageClassification.from_pretrained(tmp_path / "checkpoint-2")
    assert torch.equal(trainer.model.classifier.weight, best.classifier.weight)


class MovingAverage(TrainerCallback):
    """torch's own average of the weights, put in place at the end of training."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.average.update_parameters(model)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        model.load_state_dict(self.average.module.state_dict())


def test_weights_can_be_averaged_by_a_callback(tmp_path):
    seen = []

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            seen.append(model.classifier.weight.detach().clone())

    trainer = SageTrainer(
        make_model("vit"), make_args(tmp_path), train_dataset=Rows(), callbacks=[Keep(), MovingAverage()]
    )
    trainer.train()
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.5 * expected + 0.5 * weight
    torch.testing.assert_close(trainer.model.classifier.weight.detach(), expected)


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_class_weights_hold_over_the_whole_step(tmp_path, accumulation):
    """One step over sixteen rows, however it is split, against torch's weighted cross-entropy of them all."""
    weights = (0.2, 1.0, 3.0)
    rows = Rows()
    model = make_model("vit")
    pictures = torch.stack([row["pixel_values"] for row in (rows[index] for index in range(16))])
    labels = torch.arange(16) % 3
    expected = F.cross_entropy(model(pictures).logits, labels, weight=torch.tensor(weights))
    expected.backward()
    expected_gradient = model.classifier.weight.grad.clone()
    model.zero_grad()
    before = model.classifier.weight.detach().clone()
    args = make_args(
        tmp_path,
        guidance="none",
        class_weights=[str(weight) for weight in weights],
        max_steps=1,
        per_device_train_batch_size=16 // accumulation,
        gradient_accumulation_steps=accumulation,
        optim="sgd",
        learning_rate=1.0,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        logging_steps=1,
    )
    trainer = SageTrainer(model, args, train_dataset=rows)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(before - model.classifier.weight.detach(), expected_gradient, rtol=1e-4, atol=1e-6)


def focal(outputs, labels, num_items_in_batch=None):
    """A loss of one's own, written as transformers documents it."""
    log_p = outputs.logits.log_softmax(-1).gather(1, labels[:, None]).squeeze(1)
    losses = -((1 - log_p.exp()) ** 2) * log_p
    return losses.mean() if num_items_in_batch is None else losses.sum() / num_items_in_batch


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_loss_of_ones_own_is_scaled_over_the_whole_step(tmp_path, accumulation):
    rows, model = Rows(), make_model("vit")
    pictures = torch.stack([row["pixel_values"] for row in (rows[index] for index in range(16))])
    labels = torch.arange(16) % 3
    own = focal(model(pictures), labels).item()
    args = make_args(
        tmp_path,
        max_steps=1,
        per_device_train_batch_size=16 // accumulation,
        gradient_accumulation_steps=accumulation,
        degradation="mean",
        logging_steps=1,
    )
    trainer = SageTrainer(model, args, train_dataset=rows, compute_loss_func=focal, eval_dataset=rows)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(own, rel=1e-5)
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["own_loss"] == pytest.approx(own, rel=1e-5)
    assert log["loss"] == pytest.approx(own + log["triplet"] + log["consistency"], rel=1e-5)


def test_an_objective_of_ones_own_survives_a_search(tmp_path):
    objective = SageObjective(margin=0.9)
    trainer = SageTrainer(
        args=make_args(tmp_path),
        model_init=lambda: make_model("vit"),
        train_dataset=Rows(),
        eval_dataset=Rows(),
        objective=objective,
    )
    trainer.hyperparameter_search(
        lambda trial: {"margin": trial.suggest_float("margin", 0.1, 0.2)}, n_trials=1, direction="minimize"
    )
    assert trainer.guidance_objective is objective


def test_every_argument_that_a_trial_sets_is_the_one_that_trains(tmp_path, processor):
    wanted = [
        {"freeze_backbone": True, "view_forward": "separate", "label_smoothing_factor": 0.3, "horizontal_flip": 1.0},
        {"freeze_backbone": False, "view_forward": "concatenated", "guidance": "none", "horizontal_flip": 0.0},
        {"freeze_backbone": True, "guidance": "sage", "label_smoothing_factor": 0.0},
    ]
    trials, seen = iter(wanted), []

    class Seen(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            seen.append(
                {
                    "freeze_backbone": not any(one.requires_grad for one in model.vit.parameters()),
                    "view_forward": trainer._encoder.view_forward,
                    "label_smoothing_factor": trainer.task.label_smoothing,
                    "horizontal_flip": trainer.train_dataset.transform.horizontal_flip,
                    "guidance": "none" if trainer.guidance_objective is None else "sage",
                }
            )

    trainer = SageTrainer(
        args=make_args(tmp_path, guidance="none", max_steps=1),
        model_init=lambda: make_model("vit"),
        train_dataset=make_dataset(8),
        eval_dataset=make_dataset(4),
        processing_class=processor,
        callbacks=[Seen()],
    )
    trainer.hyperparameter_search(lambda trial: next(trials), n_trials=3, direction="minimize")
    assert len(seen) == 3
    for found, expected in zip(seen, wanted, strict=True):
        assert found | expected == found

    # And what is set by hand afterwards, as the best trial's values are.
    trainer.args.margin, trainer.args.guidance = 0.9, "sage"
    trainer.train()
    assert trainer.guidance_objective.margin == 0.9
    assert trainer.model.config.sage["margin"] == 0.9


def test_multi_label_losses_of_ones_own_count_labels(tmp_path):
    class Several(Rows):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"labels": torch.tensor([1.0, 0.0, float(index % 2)])}

    counted = []

    def own(outputs, labels, num_items_in_batch=None):
        counted.append(num_items_in_batch)
        total = F.binary_cross_entropy_with_logits(outputs.logits, labels, reduction="sum")
        return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)

    args = make_args(tmp_path, max_steps=1, gradient_accumulation_steps=2, per_device_train_batch_size=4)
    trainer = SageTrainer(make_model("vit"), args, train_dataset=Several(), compute_loss_func=own)
    trainer.train()
    assert [int(count) for count in counted] == [24, 24]  # two batches of four rows with three labels


def test_freezing_can_not_change_between_trainings_of_one_model(tmp_path):
    trainer = SageTrainer(make_model("vit"), make_args(tmp_path, freeze_backbone=True), train_dataset=Rows())
    trainer.train()
    trainer.args.freeze_backbone = False
    with pytest.raises(ValueError, match="freeze_backbone can't change between trainings of one model"):
        trainer.train()


def test_a_dataset_that_is_replaced_is_prepared(tmp_path, processor):
    args = make_args(tmp_path, class_weights="balanced")
    trainer = SageTrainer(make_model("vit"), args, train_dataset=make_dataset(9), processing_class=processor)
    trainer.train()
    trainer.train_dataset = make_dataset(7)
    trainer.train()
    assert len(trainer.train_dataset) == 7
    assert trainer.task.class_weights == pytest.approx((7 / 9, 7 / 6, 7 / 6))


@pytest.mark.parametrize("classes", [["a", "b", "c"], [1, 2, 3], [0.0, 1.0, 2.0]])
def test_weights_where_labels_come_from_a_transform(tmp_path, classes):
    """What is stored are no labels: the scale is that of the classes then."""
    stored = [classes[0], classes[1], classes[2], classes[2]]
    rows = datasets.Dataset.from_dict({"label": stored})

    def transform(batch):
        labels = [classes.index(label) for label in batch["label"]]
        return {"pixel_values": [torch.zeros(3, 32, 32)] * len(labels), "labels": labels}

    args = make_args(tmp_path, class_weights=["1", "2", "3"], guidance="none")
    trainer = SageTrainer(make_model("vit"), args, train_dataset=rows.with_transform(transform))
    assert trainer.task.class_weights == pytest.approx((1 / 2, 1, 3 / 2))
