"""Training rows that can't be read: named, or left out without a trace in any other row."""

import datasets
import pytest
import torch

from sage_hf import DataError, surviving
from sage_hf.hub.run_record import RunRecord
from tests.conftest import make_dataset
from tests.test_trainer import make_trainer

AUGMENTED = {"random_crop_scale": 0.5, "horizontal_flip": 0.5, "color_jitter": 0.2}


def spoilt(count, bad, name="broken.png"):
    """Pictures of noise, some of which are no pictures."""
    rows = make_dataset(count).cast_column("image", datasets.Image(decode=False))
    pictures = [
        {"bytes": b"no picture", "path": name} if index in bad else picture
        for index, picture in enumerate(rows["image"])
    ]
    columns = {"image": pictures, "saliency": list(rows["saliency"]), "label": list(rows["label"])}
    return datasets.Dataset.from_dict(columns, features=make_dataset(1).features, split=datasets.Split.TRAIN)


def make_run(folder, processor, dataset, **settings):
    usual = {"num_train_epochs": 2, "max_steps": -1, "check_rows": 0, "logging_steps": 1, "save_strategy": "no"}
    return make_trainer(folder, train_dataset=dataset, processing_class=processor, **usual | AUGMENTED | settings)


def inputs_seen(trainer):
    """The picture of each row that was trained on, by its place, in each step."""
    seen, plain = [], trainer.get_batch_samples

    def counted(*args):
        batches, counts = plain(*args)
        places = [batch.get("row_places", torch.empty(0, 1)).tolist() for batch in batches]
        pictures = [batch["pixel_values"] for batch in batches]
        seen.append(
            {
                tuple(place): picture.clone()
                for group, batch in zip(places, pictures, strict=True)
                for place, picture in zip(group, batch, strict=False)
            }
        )
        return batches, counts

    trainer.get_batch_samples = counted
    return seen


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_picture_names_its_row(tmp_path, processor, workers, stream):
    dataset = spoilt(12, {7})
    if stream:
        dataset = dataset.to_iterable_dataset(num_shards=2)
    settings = {"max_steps": 3, "dataloader_num_workers": workers}
    where = "row 1 of shard 1" if stream else "row 7"
    with pytest.raises(DataError, match=rf"train dataset.*, {where}, column 'image': the picture \(broken\.png\)"):
        make_run(tmp_path, processor, dataset, **settings).train()


@pytest.mark.parametrize("stream", [False, True])
def test_skipping_leaves_all_other_rows_as_they_are(tmp_path, processor, stream):
    sets = [make_dataset(12), spoilt(12, {3, 7})]
    if stream:
        sets = [one.to_iterable_dataset(num_shards=2) for one in sets]
    seen = []
    for name, dataset in zip(("whole", "skipped"), sets, strict=True):
        settings = {"on_error": "skip"} | ({"max_steps": 6} if stream else {})
        trainer = make_run(tmp_path / name, processor, dataset, **settings)
        seen.append(inputs_seen(trainer))
        trainer.train()
        assert trainer.state.global_step == 6
    left_out = {(0, 3), (1, 1)} if stream else {(3,), (7,)}
    for whole, skipped in zip(*seen, strict=True):
        assert set(whole) - set(skipped) == set(whole) & left_out
        assert all(torch.equal(whole[place], picture) for place, picture in skipped.items())
    assert trainer.skipped_rows()["rows"] == 2
    assert trainer.skipped_rows()["times"] == 4
    log = [entry["skipped_rows"] for entry in trainer.state.log_history if "loss" in entry]
    assert log[-1] == 4
    assert log == sorted(log)


def test_reasons_are_kept_over_epochs_and_no_more_than_said(tmp_path, processor, monkeypatch):
    monkeypatch.setattr(surviving, "KEPT", 2)
    trainer = make_run(tmp_path, processor, spoilt(12, {1, 3, 7}), on_error="skip")
    trainer.train()
    found = trainer.skipped_rows()
    assert (found["rows"], found["times"], len(found["reasons"])) == (3, 6, 2)
    # Those that other processes kept come on top.
    trainer._refused |= {(1,): "one", (3,): "another", (7,): "a third"}
    assert trainer.skipped_rows()["reasons"] == ["one", "another"]


def test_the_loss_of_a_step_is_the_mean_of_the_rows_that_are_left(tmp_path, processor):
    """As if the others had never been in the batch."""
    settings = {"guidance": "none", "num_train_epochs": 1, "learning_rate": 0.0, "per_device_train_batch_size": 12}
    trainer = make_run(tmp_path / "a", processor, spoilt(12, {3, 7}), on_error="skip", **settings)
    trainer.train()
    kept = make_dataset(12).select([index for index in range(12) if index not in (3, 7)])
    plain = dict.fromkeys(AUGMENTED, 0.0) | {"random_crop_scale": None}
    losses = []
    for name, dataset, on_error in (("b", spoilt(12, {3, 7}), "skip"), ("c", kept, "raise")):
        trainer = make_run(tmp_path / name, processor, dataset, on_error=on_error, **settings | plain)
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("stream", [False, True])
def test_batches_of_broken_pictures_alone_count_for_nothing(tmp_path, processor, stream):
    dataset = spoilt(12, set(range(8)))
    settings = {}
    if stream:
        dataset, settings = dataset.to_iterable_dataset(), {"max_steps": 3}
    trainer = make_run(
        tmp_path, processor, dataset, on_error="skip", num_train_epochs=1, per_device_train_batch_size=4, **settings
    )
    trainer.train()
    assert trainer.state.global_step == 3
    assert trainer.skipped_rows()["rows"] == 8
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


def test_the_check_warns_or_raises(tmp_path, processor):
    settings = {"check_rows": -1}
    with pytest.raises(DataError, match=r"(?s)can't be trained on.*row 3.*row 7"):
        make_run(tmp_path, processor, spoilt(12, {3, 7}), **settings)
    make_run(tmp_path, processor, spoilt(12, {3, 7}), on_error="skip", **settings)
    with pytest.raises(DataError, match="can't be trained on"):
        make_run(tmp_path, processor, spoilt(4, set(range(4))), on_error="skip", **settings)


def test_evaluation_skips_nothing(tmp_path, processor):
    trainer = make_run(tmp_path, processor, make_dataset(8), on_error="skip")
    with pytest.raises(DataError, match="row 2"):
        trainer.evaluate(spoilt(4, {2}))


def test_the_record_says_so_also_after_a_resumption(tmp_path, processor):
    settings = {"on_error": "skip", "save_strategy": "steps", "save_steps": 1, "max_steps": 3}
    trainer = make_run(tmp_path, processor, spoilt(12, {3, 7}), **settings)
    trainer.train()
    expected = trainer.skipped_rows()
    assert expected["rows"] == expected["times"] == 2
    resumed = make_run(tmp_path, processor, spoilt(12, {3, 7}), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert resumed.skipped_rows() == expected
    resumed.create_model_card()
    assert RunRecord.load(tmp_path / "run").skipped_rows == expected
    assert "2 training rows could not be read and were left out" in (tmp_path / "run" / "README.md").read_text()
    assert any("broken.png" in reason for reason in expected["reasons"])
