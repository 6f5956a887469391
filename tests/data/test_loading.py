import csv

import datasets
import numpy as np
import pytest
from PIL import Image

from sage_hf import DataError, SageTrainer
from sage_hf.data import load_saliency_dataset
from sage_hf.data.loading import class_names, encode_labels
from tests.conftest import CLASSES, make_dataset


@pytest.fixture
def image_folder(tmp_path):
    """An ImageFolder with a map for every other picture."""
    for split, count in (("train", 4), ("validation", 2)):
        folder = tmp_path / "pictures" / split
        folder.mkdir(parents=True)
        with (folder / "metadata.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file_name", "saliency_file_name", "label"])
            for index in range(count):
                Image.new("RGB", (12, 10), (index * 20, 0, 0)).save(folder / f"{index}.png")
                Image.fromarray(np.full((10, 12), 1000, dtype=np.uint16)).save(folder / f"map{index}.png")
                table.writerow([f"{index}.png", f"map{index}.png" if index % 2 else "", CLASSES[index % 3]])
    return tmp_path / "pictures"


def test_image_folder(image_folder):
    splits = load_saliency_dataset(str(image_folder))
    assert {name: len(split) for name, split in splits.items()} == {"train": 4, "validation": 2}
    assert class_names(splits, "label") == sorted(CLASSES)
    assert [row["saliency"] is None for row in splits["train"]] == [True, False, True, False]
    assert splits["validation"]["label"] == [sorted(CLASSES).index(name) for name in CLASSES[:2]]


def test_image_folder_trains(image_folder, tmp_path, processor):
    from tests.test_trainer import make_trainer

    splits = load_saliency_dataset(str(image_folder))
    trainer = make_trainer(tmp_path, train_dataset=splits["train"], processing_class=processor)
    assert isinstance(trainer, SageTrainer)
    trainer.train()
    # 16-bit maps arrive whole: PIL's own conversion to 8 bits would have saturated them.
    saliency = trainer.train_dataset[1]["saliency"]
    assert (saliency == 1).all()
    assert trainer.annotated_share() == 0.5


def test_saved_to_disk(tmp_path):
    make_dataset(3).save_to_disk(tmp_path / "one")
    assert list(load_saliency_dataset(str(tmp_path / "one"))) == ["train"]
    datasets.DatasetDict(train=make_dataset(3), test=make_dataset(2)).save_to_disk(tmp_path / "two")
    assert list(load_saliency_dataset(str(tmp_path / "two"))) == ["train", "test"]


def test_bare_indices_get_names(tmp_path):
    numbers = make_dataset(4).cast_column("label", datasets.Value("int64"))
    numbers.save_to_disk(tmp_path / "numbers")
    assert class_names(load_saliency_dataset(str(tmp_path / "numbers")), "label") == ["0", "1", "2"]
    gap = numbers.remove_columns("label").add_column("label", [0, 1, 5, 5])
    gap.save_to_disk(tmp_path / "gap")
    with pytest.raises(DataError, match=r"holds \['0', '1', '5'\]: labels must be class names, or indices"):
        load_saliency_dataset(str(tmp_path / "gap"))


def test_bare_indices_may_have_gaps_among_known_classes(tmp_path):
    numbers = make_dataset(4).remove_columns("label").add_column("label", [0, 10, 2, None])
    numbers.save_to_disk(tmp_path / "numbers")
    for known in (["0", "1", "2", "10"], ["10", "2", "1", "0"]):
        rows = load_saliency_dataset(str(tmp_path / "numbers"), known_classes=known)["train"]
        names = rows.features["label"].names
        assert [None if label is None else names[label] for label in rows["label"]] == ["0", "10", "2", None]
    lists = datasets.Dataset.from_dict({"label": [[0], [], [3, 0]]})
    several = encode_labels(datasets.DatasetDict(train=lists), "label", known_classes=["0", "3"])["train"]
    assert several.features["label"] == datasets.List(datasets.ClassLabel(names=["0", "3"]))
    assert list(several["label"]) == [[0], [], [1, 0]]
    with pytest.raises(DataError, match="indices that run from 0 without a gap"):
        load_saliency_dataset(str(tmp_path / "numbers"), known_classes=["healthy", "rust", "miner"])


def test_splits_with_other_classes_are_refused(tmp_path):
    other = make_dataset(3).cast_column("label", datasets.ClassLabel(names=["a", "b", "c"]))
    datasets.DatasetDict(train=make_dataset(3), test=other).save_to_disk(tmp_path / "mixed")
    with pytest.raises(DataError, match="name the classes of column 'label' differently"):
        load_saliency_dataset(str(tmp_path / "mixed"))


def test_what_is_not_there_is_said(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="is not a folder"):
        load_saliency_dataset(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match=r"no split has a column 'species'.*label_column="):
        class_names(datasets.DatasetDict(train=make_dataset(1)), "species")
