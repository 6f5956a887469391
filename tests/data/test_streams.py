"""Streams: each row once a pass, whoever reads it, augmented alike, and no picture decoded in vain."""

import itertools
from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf import AlignedTransform, DataError
from sage_hf.data import load_saliency_dataset
from sage_hf.data.dataset import Augmentation
from sage_hf.data.streams import CHECKED_ROWS, StreamedDataset, known_rows
from tests.conftest import CLASSES, make_dataset, make_rows
from tests.data.test_bad_input import PICTURE
from tests.test_trainer import make_trainer

PROCESSOR = ViTImageProcessorPil(size={"height": 4, "width": 4})
ROWS = 23


def make_stream(num_shards, rows=ROWS):
    """Rows with the same picture, so that only its crop tells them apart, and a label of their own."""
    picture = make_rows(1)[0]["image"]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    columns = {"image": [picture] * rows, "label": list(range(rows))}
    return datasets.Dataset.from_dict(columns, features=features).to_iterable_dataset(num_shards=num_shards)


def streamed(stream, process_index=0, num_processes=1, **settings):
    transform = AlignedTransform(PROCESSOR, saliency_column=None, random_crop_scale=0.1, color_jitter=0.5)
    return StreamedDataset(
        stream,
        transform,
        "train dataset",
        Augmentation(5),
        process_index=process_index,
        num_processes=num_processes,
        **settings,
    )


def read(dataset, epoch=0, workers=0):
    dataset.set_epoch(epoch)
    return [
        (row["labels"], tuple(row["pixel_values"].flatten().tolist()))
        for row in DataLoader(dataset, batch_size=None, num_workers=workers)
    ]


@pytest.mark.parametrize(
    ("num_shards", "num_processes", "workers"),
    [(1, 1, 0), (1, 2, 0), (3, 2, 0), (4, 2, 0), (5, 3, 0), (3, 1, 2), (4, 2, 2), (5, 2, 2)],
)
@pytest.mark.parametrize("buffer", [0, 6])
def test_a_pass_has_each_row_once_and_augmented_alike(num_shards, num_processes, workers, buffer):
    expected = {epoch: dict(read(streamed(make_stream(num_shards)), epoch)) for epoch in (0, 1)}
    for epoch in (0, 1):
        rows = [
            row
            for index in range(num_processes)
            for row in read(
                streamed(make_stream(num_shards), index, num_processes, shuffle_buffer_size=buffer), epoch, workers
            )
        ]
        assert sorted(label for label, _ in rows) == list(range(ROWS))
        assert dict(rows) == expected[epoch]
    # Each row and epoch has an augmentation of its own.
    assert len({crop for crops in expected.values() for crop in crops.values()}) == 2 * ROWS


def test_shuffling_follows_seed_and_epoch():
    def order(epoch, buffer=8):
        return [label for label, _ in read(streamed(make_stream(2), shuffle_buffer_size=buffer), epoch)]

    assert order(0, buffer=0) == list(range(ROWS))
    assert order(0) == order(0)
    assert len({tuple(order(epoch)) for epoch in range(3)} | {tuple(range(ROWS))}) == 4


def test_each_process_decodes_its_own_rows_alone(monkeypatch):
    decoded = Counter()
    plain = datasets.Image.decode_example

    def counted(self, value, **kwargs):
        decoded["pictures"] += 1
        return plain(self, value, **kwargs)

    monkeypatch.setattr(datasets.Image, "decode_example", counted)
    for num_shards in (1, 4):
        decoded.clear()
        rows = read(streamed(make_stream(num_shards), 1, 2, shuffle_buffer_size=6))
        assert decoded["pictures"] == len(rows) < ROWS


def test_skipped_rows_are_not_decoded_and_the_others_are_the_same(monkeypatch):
    dataset = streamed(make_stream(2), shuffle_buffer_size=6)
    whole = read(dataset, epoch=1)
    dataset.skip(epoch=1, batches=3, batch_size=4)
    transformed = []
    plain = AlignedTransform.__call__
    monkeypatch.setattr(
        AlignedTransform, "__call__", lambda self, row, *more: transformed.append(0) or plain(self, row, *more)
    )
    rows = list(dataset)
    assert rows[:12] == [{}] * 12
    assert [row["labels"] for row in rows[12:]] == [label for label, _ in whole[12:]]
    assert len(transformed) == ROWS - 12
    assert len(read(dataset, epoch=2)) == ROWS  # no other epoch is skipped


def test_workers_never_skip_what_is_not_skipped():
    # Shards of 12 and 11 rows in batches of 4: one worker has a short last batch.
    dataset = streamed(make_stream(2))
    batches = [[row["labels"] for row in batch] for batch in DataLoader(dataset, 4, collate_fn=list, num_workers=2)]
    for skipped in range(7):
        dataset.skip(epoch=0, batches=skipped, batch_size=4)
        found = list(DataLoader(dataset, 4, collate_fn=list, num_workers=2))[skipped:]
        assert [[row["labels"] for row in batch] for batch in found] == batches[skipped:]


def test_a_stream_that_is_cut_gives_each_row_to_one_part():
    first = read(streamed(make_stream(2).take(10)))
    rest = read(streamed(make_stream(2).skip(10)))
    assert sorted(label for label, _ in first + rest) == list(range(ROWS))


def test_maps_keep_their_values_and_may_be_lists():
    deep = np.zeros((40, 48), dtype=np.uint16)
    deep[:, :24], deep[:, 24:] = 40000, 20000
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "saliency": datasets.List(datasets.Image(mode="L")),
            "label": datasets.ClassLabel(names=CLASSES),
        }
    )
    plain = datasets.Features(features | {"saliency": datasets.List(datasets.Image())})
    picture = make_rows(1)[0]["image"]
    columns = {"image": [picture] * 2, "saliency": [[Image.fromarray(deep)], None], "label": [0, 1]}
    stream = datasets.Dataset.from_dict(columns, features=plain).to_iterable_dataset().cast(features)
    first, second = StreamedDataset(stream, AlignedTransform(PROCESSOR), "train dataset", Augmentation(0))
    assert first["saliency"][0, 0].tolist() == pytest.approx([1, 1, 0.5, 0.5], abs=0.1)  # sampled at the edge
    assert second["saliency"] is None


def damaged_stream(num_shards=1, rows=6, bad=4, column="image"):
    stored = make_dataset(rows).cast_column(column, datasets.Image(decode=False)).to_list()
    stored[bad][column] = {"bytes": PICTURE[:60], "path": "cut.png"}
    features = make_dataset(1).features
    return datasets.Dataset.from_list(stored, features=features).to_iterable_dataset(num_shards=num_shards)


@pytest.mark.parametrize("column", ["image", "saliency"])
def test_a_picture_that_can_not_be_read_is_named_before_training(tmp_path, processor, column):
    message = rf"row 4 of the stream, column '{column}': the picture \(cut\.png\) can't be read"
    with pytest.raises(DataError, match=f"train dataset, {message}"):
        make_trainer(tmp_path, train_dataset=damaged_stream(column=column), processing_class=processor, max_steps=2)
    if column == "image":
        with pytest.raises(DataError, match=f"evaluation dataset, {message}"):
            make_trainer(tmp_path, eval_dataset=damaged_stream(), processing_class=processor)


def test_and_when_training_meets_it(tmp_path, processor):
    bad = CHECKED_ROWS + 5
    stream = damaged_stream(num_shards=2, rows=2 * bad, bad=bad + 2)
    trainer = make_trainer(tmp_path, train_dataset=stream, processing_class=processor, max_steps=60)
    with pytest.raises(DataError, match=r"row 2 of shard 1, column 'image': the picture \(cut\.png\) can't be read"):
        trainer.train()


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (make_dataset(2).to_iterable_dataset().skip(2), "train dataset: the stream is empty"),
        (make_dataset(5, annotated=0).to_iterable_dataset(), "no row has a map that marks anything"),
        (make_dataset(5).remove_columns("saliency").to_iterable_dataset(), "there is no column 'saliency'"),
        (
            datasets.distributed.split_dataset_by_node(make_dataset(5).to_iterable_dataset(), 0, 2),
            "is split over processes already",
        ),
    ],
)
def test_streams_that_can_not_be_trained_on(tmp_path, processor, stream, message):
    with pytest.raises(DataError, match=message):
        make_trainer(tmp_path, train_dataset=stream, processing_class=processor, max_steps=1)


def write_parquet(folder, rows=10, files=2, **columns):
    (folder / "data").mkdir(parents=True)
    dataset = make_dataset(rows)
    for name, values in columns.items():
        dataset = dataset.remove_columns(name).add_column(name, values)
    for index in range(files):
        dataset.shard(files, index).to_parquet(folder / "data" / f"train-{index:05d}-of-{files:05d}.parquet")
    return folder


def test_folders_are_streamed_with_the_same_rows(tmp_path):
    folder = write_parquet(tmp_path / "parquet")
    stream = load_saliency_dataset(str(folder), streaming=True)["train"]
    assert (stream.num_shards, known_rows(stream)) == (2, None)
    make_dataset(10).save_to_disk(tmp_path / "disk")
    for path in (folder, tmp_path / "disk"):
        stream = load_saliency_dataset(str(path), streaming=True)["train"]
        assert isinstance(stream, datasets.IterableDataset)
        assert stream.features["label"].names == CLASSES
        whole = load_saliency_dataset(str(path))["train"]
        for row, other in itertools.zip_longest(stream, whole):
            assert row["label"] == other["label"]
            assert np.array_equal(np.asarray(row["image"]), np.asarray(other["image"]))
    sizes = "dataset_info:\n  splits:\n  - name: train\n    num_examples: 10\n"
    (folder / "README.md").write_text(f"---\n{sizes}---\n")
    assert known_rows(load_saliency_dataset(str(folder), streaming=True)["train"]) == 10


@pytest.mark.parametrize("labels", [["rust", "miner"] * 5, [0, 1] * 5])
def test_labels_that_would_have_to_be_read_first_are_refused(tmp_path, labels):
    folder = write_parquet(tmp_path / "parquet", label=labels)
    with pytest.raises(DataError, match=r"can't be known without reading the whole stream.*ClassLabel\(names"):
        load_saliency_dataset(str(folder), streaming=True)
    assert load_saliency_dataset(str(folder))["train"].features["label"].num_classes == 2
    if labels[0] == 0:
        load_saliency_dataset(str(folder), streaming=True, problem_type="regression")


def test_steps_follow_from_rows_where_the_dataset_counts_them(tmp_path, processor):
    stream = make_dataset(10).to_iterable_dataset()
    with pytest.raises(DataError, match=r"train dataset: it isn't known how many rows the stream has. Set max_steps"):
        make_trainer(tmp_path, train_dataset=stream, processing_class=processor)
    make_dataset(10).save_to_disk(tmp_path / "disk")
    stream = load_saliency_dataset(str(tmp_path / "disk"), streaming=True)["train"]
    assert known_rows(stream) == 10
    trainer = make_trainer(
        tmp_path,
        train_dataset=stream,
        processing_class=processor,
        num_train_epochs=2,
        gradient_accumulation_steps=2,
        per_device_train_batch_size=2,
    )
    trainer.train()
    # Ten rows are five batches of two, which make two full steps and one of a single batch.
    assert trainer.state.global_step == 6
    assert trainer._rows_seen[0] == 20


def test_the_last_step_of_a_pass_counts_its_rows_alone(tmp_path, processor):
    # Six rows in steps of two batches of two: the second step has one batch, and the loss is that of its two rows.
    settings = {"per_device_train_batch_size": 2, "learning_rate": 0.0, "guidance": "none"}
    losses = {}
    for accumulation in (1, 2):
        trainer = make_trainer(
            tmp_path / str(accumulation),
            train_dataset=make_dataset(6).to_iterable_dataset(),
            processing_class=processor,
            max_steps=6 // accumulation,
            gradient_accumulation_steps=accumulation,
            **settings,
        )
        trainer.train()
        losses[accumulation] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    first, second, third = losses[1][:3]
    assert losses[2] == pytest.approx([(first + second) / 2, third, (first + second) / 2], rel=1e-5)


def test_running_statistics_know_nothing_of_idle_batches(tmp_path, processor):
    counts = []
    for accumulation in (1, 2):
        trainer = make_trainer(
            tmp_path / str(accumulation),
            kind="resnet",
            train_dataset=make_dataset(6).to_iterable_dataset(),
            processing_class=processor,
            per_device_train_batch_size=2,
            max_steps=3 if accumulation == 1 else 2,
            gradient_accumulation_steps=accumulation,
            guidance="none",
        )
        trainer.train()
        counts.append({name: int(buffer) for name, buffer in trainer.model.named_buffers() if "tracked" in name})
    assert counts[0] == counts[1]
    assert set(counts[0].values()) == {3}


def test_streams_are_evaluated_like_tables(tmp_path, processor):
    trainer = make_trainer(tmp_path, processing_class=processor)
    dataset = make_dataset(7)
    expected = trainer.predict(dataset)
    found = trainer.predict(dataset.to_iterable_dataset(num_shards=3))
    np.testing.assert_array_equal(found.predictions, expected.predictions)
    np.testing.assert_array_equal(found.label_ids, expected.label_ids)
    assert torch.is_tensor(next(iter(trainer.preparation(dataset.to_iterable_dataset(), "test")))["pixel_values"])
