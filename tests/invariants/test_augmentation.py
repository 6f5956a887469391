"""A row is augmented alike whoever reads it: a function of seed, epoch and row."""

import pytest
import torch

from tests.conftest import make_dataset
from tests.test_trainer import make_trainer

AUGMENTATION = {"random_crop_scale": 0.5, "horizontal_flip": 0.5, "color_jitter": 0.3}


def trained(tmp_path, processor, **settings):
    trainer = make_trainer(
        tmp_path,
        train_dataset=make_dataset(8),
        processing_class=processor,
        num_train_epochs=3,
        **AUGMENTATION,
        **settings,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_change_nothing(tmp_path, processor, persistent):
    settings = {"dataloader_num_workers": 2, "dataloader_persistent_workers": persistent}
    alone, helped = trained(tmp_path / "a", processor), trained(tmp_path / "b", processor, **settings)
    for (name, parameter), other in zip(alone.model.named_parameters(), helped.model.parameters(), strict=True):
        assert torch.equal(parameter, other), name


def test_every_epoch_and_seed_augments_anew(tmp_path, processor):
    rows = {}
    for seed in (1, 2):
        trainer = make_trainer(
            tmp_path, train_dataset=make_dataset(4), processing_class=processor, seed=seed, **AUGMENTATION
        )
        for epoch in (0, 1):
            trainer.train_dataset.augmentation.set_epoch(epoch)
            rows[seed, epoch] = trainer.train_dataset[0]["pixel_values"]
            assert torch.equal(rows[seed, epoch], trainer.train_dataset[0]["pixel_values"])
    different = list(rows.values())
    assert not any(torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


@pytest.mark.parametrize("streamed", [False, True])
def test_training_sees_other_augmentations_in_every_epoch(tmp_path, processor, streamed):
    dataset = make_dataset(4)
    trainer = make_trainer(
        tmp_path,
        train_dataset=dataset.to_iterable_dataset() if streamed else dataset,
        processing_class=processor,
        max_steps=3,  # an epoch has one step
        random_crop_scale=0.3,
    )
    sums = []
    plain = trainer.compute_loss
    trainer.compute_loss = lambda model, inputs, **kwargs: (
        sums.append(inputs["pixel_values"].double().sum().item()) or plain(model, inputs, **kwargs)
    )
    trainer.train()
    assert len(set(sums)) == 3


def test_evaluation_is_never_augmented(tmp_path, processor):
    trainer = make_trainer(
        tmp_path,
        train_dataset=make_dataset(4),
        eval_dataset=make_dataset(4),
        processing_class=processor,
        **AUGMENTATION,
    )
    expected = processor(images=make_dataset(4)[0]["image"], return_tensors="pt")["pixel_values"][0]
    assert torch.equal(trainer.eval_dataset[0]["pixel_values"], expected)
    assert not torch.equal(trainer.train_dataset[0]["pixel_values"], expected)
