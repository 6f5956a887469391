"""A list of maps, one an annotator: what training sees of it, and what is said of one that can't be used."""

from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf import AlignedTransform, DataError
from sage_hf.data.dataset import Augmentation, TransformedDataset
from tests.conftest import CLASSES, SIZE, make_args, make_dataset, make_rows
from tests.test_trainer import make_trainer

WIDTH, HEIGHT = 48, 40
PROCESSOR = ViTImageProcessorPil(size={"height": HEIGHT, "width": WIDTH})


def values(left, right, grey=200):
    """A map with a marked band of columns."""
    marked = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    marked[:, left:right] = grey
    return marked


A, B, BLANK = values(0, 20), values(10, 30, grey=90), values(0, 0)


def make_lists(maps, kind=datasets.List):
    """A row for each list of maps."""
    picture = make_rows(1)[0]["image"]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "saliency": kind(datasets.Image(mode="L")),
            "label": datasets.ClassLabel(names=CLASSES),
        }
    )
    columns = {
        "image": [picture] * len(maps),
        "saliency": [
            None if row is None else [one if one is None else Image.fromarray(one) for one in row] for row in maps
        ],
        "label": [index % 3 for index in range(len(maps))],
    }
    return datasets.Dataset.from_dict(columns, features=features, split="train")


def seen(maps, how, epoch=0, row=0, kind=datasets.List, **settings):
    dataset = TransformedDataset(
        make_lists(maps, kind), AlignedTransform(PROCESSOR, annotators=how, **settings), "train", Augmentation(7)
    )
    dataset.augmentation.set_epoch(epoch)
    saliency = dataset[row]["saliency"]
    return None if saliency is None else saliency[0].numpy()


@pytest.mark.parametrize("kind", [datasets.List, datasets.LargeList])
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        # A and B mark with different greys: each map's own maximum is 1.
        ("mean", ((A > 0).astype(float) + (B > 0)) / 2),
        ("union", ((A > 0) | (B > 0)).astype(float)),
        ("intersection", ((A > 0) & (B > 0)).astype(float)),
    ],
)
def test_maps_are_combined_of_those_who_marked_anything(how, expected, kind):
    found = seen([[A, None, BLANK, B]], how, kind=kind)
    np.testing.assert_allclose(found, expected, atol=1 / 255)


def test_one_annotator_is_drawn_for_each_row_and_epoch():
    rows = [[A, B, BLANK, None]] * 40
    drawn = [
        [
            "A" if np.array_equal(found > 0, A > 0) else "B" if np.array_equal(found > 0, B > 0) else "?"
            for found in epoch
        ]
        for epoch in ([seen(rows, "random", epoch, row) for row in range(40)] for epoch in (0, 1, 0))
    ]
    assert drawn[0] == drawn[2] != drawn[1]
    # 80 fair draws: outside 20 to 60 once in 100,000.
    counts = Counter(drawn[0] + drawn[1])
    assert set(counts) == {"A", "B"}
    assert 20 < counts["A"] < 60


@pytest.mark.parametrize("how", ["random", "mean", "union", "intersection"])
def test_lists_without_marks_are_no_annotation(how):
    for maps in (None, [], [None], [BLANK, None]):
        assert seen([maps], how) is None
    assert (seen([[A, values(20, 30)]], how) is None) == (how == "intersection")


def test_maps_of_different_resolutions_are_combined_at_the_pictures():
    small = A[::2, ::2]
    np.testing.assert_allclose(seen([[small, A]], "union")[:, :18], 1.0, atol=0.01)


def test_a_list_of_one_map_is_that_map():
    single = make_dataset(rows=[{"image": make_rows(1)[0]["image"], "saliency": Image.fromarray(A), "label": 0}])
    expected = TransformedDataset(single, AlignedTransform(PROCESSOR), "train")[0]["saliency"]
    for how in ("random", "mean", "union", "intersection"):
        assert torch.equal(torch.as_tensor(seen([[A]], how))[None], expected)


def test_16_bit_maps_keep_their_values():
    deep = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
    deep[:, :10], deep[:, 10:20] = 2000, 1000
    features = datasets.Features({"image": datasets.Image(), "saliency": datasets.List(datasets.Image())})
    columns = {"image": [make_rows(1)[0]["image"]], "saliency": [[Image.fromarray(deep)]]}
    dataset = datasets.Dataset.from_dict(columns, features=features)
    dataset = dataset.cast_column("saliency", datasets.List(datasets.Image(mode="L")))
    saliency = TransformedDataset(dataset, AlignedTransform(PROCESSOR), "train")[0]["saliency"][0]
    assert saliency[0, [2, 15, 40]].tolist() == pytest.approx([1.0, 0.5, 0.0], abs=1 / 255)


def test_rows_with_one_map_are_augmented_as_ever():
    # The draws of a row before there were lists: crop, then mirroring, from the row's own generator.
    settings = {"random_crop_scale": 0.3, "horizontal_flip": 0.5}
    row = make_rows(1)[0]
    given, other = np.random.default_rng((0, 0, 3)), np.random.default_rng((0, 0, 3))
    transform = AlignedTransform(PROCESSOR, **settings)
    found = transform(row, given)
    alone = AlignedTransform(PROCESSOR, saliency_column=None, **settings)(row, other)
    assert torch.equal(found["pixel_values"], alone["pixel_values"])
    assert given.bit_generator.state == other.bit_generator.state


@pytest.mark.parametrize("how", ["random", "mean"])
def test_a_map_that_can_not_be_used_is_found_before_training(tmp_path, processor, how):
    maps = [[A, B]] * 5
    maps[3] = [A, B.T.copy()]
    dataset = make_lists(maps)
    with pytest.raises(DataError, match=r"train dataset, row 3, column 'saliency': annotator 1: the map is 40x48"):
        make_trainer(tmp_path, train_dataset=dataset, processing_class=processor, annotators=how)
    rows = dataset.cast_column("saliency", datasets.List(datasets.Image(decode=False))).to_list()
    rows[2]["saliency"][0] = {"bytes": b"<html>", "path": "map.png"}
    broken = datasets.Dataset.from_list(rows[:3], features=dataset.features)
    with pytest.raises(
        DataError, match=r"row 2, column 'saliency': annotator 0: the picture \(map\.png\) can't be read"
    ):
        make_trainer(tmp_path, train_dataset=broken, processing_class=processor, annotators=how)


def test_lists_of_something_else_are_refused(tmp_path, processor):
    dataset = make_dataset(2).remove_columns("saliency").add_column("saliency", [["a.png"], ["b.png"]])
    with pytest.raises(DataError, match=r"column 'saliency' holds .*, not pictures"):
        make_trainer(tmp_path, train_dataset=dataset, processing_class=processor)
    pictures = make_lists([[A]] * 2).remove_columns("image").rename_column("saliency", "image")
    with pytest.raises(DataError, match="column 'image' holds List"):
        make_trainer(tmp_path, train_dataset=pictures, processing_class=processor, guidance="none")
    with pytest.raises(
        ValueError, match=r"Unknown annotators 'median'. Choose one of random, mean, union, intersection"
    ):
        make_args(tmp_path, annotators="median")


def test_training_sees_each_annotator_and_workers_change_nothing(tmp_path, processor):
    trained = []
    for workers in (0, 2):
        trainer = make_trainer(
            tmp_path / str(workers),
            train_dataset=make_lists([[A, B], [B], None, [A, BLANK]] * 2),
            processing_class=processor,
            num_train_epochs=3,
            dataloader_num_workers=workers,
            horizontal_flip=0.5,
        )
        trainer.train()
        assert trainer.annotated_share() == 0.75
        trained.append(trainer.model)
    for parameter, other in zip(*(model.parameters() for model in trained), strict=True):
        assert torch.equal(parameter, other)
    assert trainer.train_dataset[0]["saliency"].shape == (1, SIZE, SIZE)
