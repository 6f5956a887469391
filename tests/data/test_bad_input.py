"""Every mistake in the data is reported before training starts, with dataset, row and column."""

import io

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from sage_hf import DataError
from tests.conftest import make_dataset, make_model, make_rows
from tests.test_trainer import make_trainer


def damaged(index, **change):
    rows = make_rows(6)
    rows[index] |= change
    features = datasets.Features(
        {"image": datasets.Image(), "saliency": datasets.Image(), "label": datasets.Value("int64")}
    )
    columns = {name: [row[name] for row in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features=features, split="train")


def file(image, **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, **kwargs)
    return buffer.getvalue()


PICTURE = file(Image.new("RGB", (48, 40), (9, 9, 9)), format="PNG")
NAN = file(Image.fromarray(np.full((40, 48), np.nan, dtype=np.float32)), format="TIFF")
CASES = {
    "another aspect": (
        damaged(3, saliency=Image.new("L", (40, 48), 1)),
        r"train dataset, row 3, column 'saliency': the map is 40x48, its image 48x40: their aspects differ",
    ),
    "NaN": (
        damaged(2, saliency={"bytes": NAN, "path": "nan.tif"}),
        r"train dataset, row 2, column 'saliency': the map has NaN",
    ),
    "a label too large": (
        damaged(5, label=3),
        r"train dataset, row 5, column 'label': label 3 is outside the head's range 0 to 2",
    ),
    "a negative label": (damaged(0, label=-1), r"row 0, column 'label': label -1 is outside"),
    "no label": (damaged(1, label=None), r"row 1, column 'label': there is no label"),
    "no picture": (damaged(1, image=None), r"row 1, column 'image' is empty"),
    "a truncated picture": (
        damaged(4, image={"bytes": PICTURE[:60], "path": "cut.png"}),
        r"row 4, column 'image': the picture \(cut\.png\) can't be read",
    ),
    "a file that is no picture": (
        damaged(4, image={"bytes": b"<html>", "path": None}),
        r"row 4, column 'image': the picture can't be read: UnidentifiedImageError",
    ),
    "a missing file": (
        damaged(0, saliency={"bytes": None, "path": "gone/map.png"}),
        r"row 0, column 'saliency': the picture \(gone/map\.png\) can't be read: FileNotFoundError",
    ),
    "a 16-bit picture": (
        damaged(3, image=Image.fromarray(np.full((40, 48), 4000, dtype=np.uint16))),
        r"row 3, column 'image': the picture has 'I;16' pixels, more than 8 bits deep",
    ),
    "no map at all": (
        make_dataset(6, annotated=0),
        r"train dataset, column 'saliency': no row has a map that marks anything.*guidance='none'",
    ),
    "an empty dataset": (make_dataset(0), r"train dataset: the dataset is empty"),
    "no saliency column": (
        make_dataset(4).remove_columns("saliency"),
        r"train dataset: there is no column 'saliency'; the columns are 'image', 'label'.*saliency_column=",
    ),
    "no picture column": (
        make_dataset(4).rename_column("image", "photo"),
        r"there is no column 'image'; the columns are 'photo'.*image_column=",
    ),
    "paths instead of pictures": (
        make_dataset(2).remove_columns("image").add_column("image", ["a.png", "b.png"]),
        r"column 'image' holds Value.*cast_column\('image', datasets\.Image\(\)\)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_is_explained_before_training(tmp_path, processor, case):
    dataset, message = CASES[case]
    with pytest.raises(DataError, match=message):
        make_trainer(tmp_path, train_dataset=dataset, processing_class=processor)


def test_evaluation_data_are_checked_too(tmp_path, dataset, processor):
    wrong = damaged(5, label=7)
    with pytest.raises(DataError, match="row 5, column 'label'"):
        make_trainer(tmp_path, train_dataset=dataset, eval_dataset=wrong, processing_class=processor)
    with pytest.raises(DataError, match="row 5, column 'label'"):
        make_trainer(
            tmp_path, train_dataset=dataset, eval_dataset={"a": dataset, "b": wrong}, processing_class=processor
        )


def test_several_problems_are_reported_at_once(tmp_path, processor):
    rows = make_rows(8)
    for index in range(1, 8):
        rows[index]["saliency"] = Image.new("L", (40, 48), 1)
    with pytest.raises(DataError) as error:
        make_trainer(tmp_path, train_dataset=make_dataset(rows=rows), processing_class=processor)
    assert [f"row {index}," in str(error.value) for index in range(8)] == [False, *[True] * 5, False, False]


def test_unchecked_rows_are_named_when_training_meets_them(tmp_path, processor):
    trainer = make_trainer(
        tmp_path, train_dataset=CASES["another aspect"][0], processing_class=processor, check_rows=0
    )
    with pytest.raises(DataError, match="train dataset, row 3, column 'saliency'"):
        trainer.train()
    stream = make_trainer(
        tmp_path,
        train_dataset=CASES["another aspect"][0].to_iterable_dataset(),
        processing_class=processor,
        check_rows=0,
        max_steps=2,
    )
    with pytest.raises(DataError, match="row 3 of the stream, column 'saliency'"):
        stream.train()


@pytest.mark.parametrize(("label", "message"), [(7, "label 7 is outside"), (-1, "label -1 is"), (None, "no label")])
@pytest.mark.parametrize("streamed", [False, True])
def test_unchecked_labels_are_named_when_training_meets_them(tmp_path, processor, label, message, streamed):
    dataset = damaged(2, label=label)
    trainer = make_trainer(
        tmp_path,
        train_dataset=dataset.to_iterable_dataset() if streamed else dataset,
        processing_class=processor,
        check_rows=0,
        max_steps=2,
    )
    with pytest.raises(
        DataError, match=f"train dataset, row 2.*column 'label': {'there is ' if label is None else ''}{message}"
    ):
        trainer.train()


def test_the_role_of_a_dataset_is_named(tmp_path, processor):
    # Both parts of a split dataset carry the name of the split that they come from.
    parts = damaged(5, label=7).train_test_split(test_size=2, shuffle=False)
    with pytest.raises(DataError, match="evaluation dataset, row 1, column 'label'"):
        make_trainer(tmp_path, train_dataset=parts["train"], eval_dataset=parts["test"], processing_class=processor)


def test_a_head_for_other_classes_is_refused(tmp_path, dataset, processor):
    model = make_model("vit", num_labels=10)
    names = [f"imagenet{index}" for index in range(10)]
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {n: i for i, n in enumerate(names)}
    with pytest.raises(DataError, match=r"its classes are healthy, rust, miner, the model's imagenet0.*num_labels=3"):
        make_trainer(tmp_path, model=model, train_dataset=dataset, processing_class=processor)


def test_a_transform_of_the_users_own(tmp_path, dataset, processor):
    def transform(rows):
        inputs = processor(images=[image.convert("RGB") for image in rows["image"]], return_tensors="pt")
        maps = [None, *[torch.ones(1, 32, 32)] * (len(rows["image"]) - 1)]
        return {"pixel_values": list(inputs["pixel_values"]), "saliency": maps, "label": rows["label"]}

    trainer = make_trainer(tmp_path, train_dataset=dataset.with_transform(transform))
    trainer.train()
    assert 0 <= trainer.annotated_share() < 1
    with pytest.raises(DataError, match=r"its transform gives \['image'\], but no 'pixel_values'"):
        make_trainer(tmp_path, train_dataset=dataset.with_transform(lambda rows: {"image": rows["image"]}))


def test_a_format_is_no_transform(tmp_path, dataset, processor):
    make_trainer(tmp_path, train_dataset=dataset.with_format("torch"), processing_class=processor).train()


def test_plain_fine_tuning_needs_no_maps(tmp_path, processor):
    dataset = make_dataset(4).remove_columns("saliency")
    make_trainer(tmp_path, train_dataset=dataset, processing_class=processor, guidance="none").train()


def test_columns_can_be_named(tmp_path, processor):
    dataset = make_dataset(4).rename_columns({"image": "photo", "saliency": "gaze", "label": "species"})
    trainer = make_trainer(
        tmp_path,
        model=make_model("vit"),
        train_dataset=dataset,
        processing_class=processor,
        image_column="photo",
        saliency_column="gaze",
        label_column="species",
    )
    trainer.train()
    assert trainer.annotated_share() == 1.0
