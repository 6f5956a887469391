import datasets
import pytest
import torch
from PIL import Image

from sage_hf import DataError, SageTrainer
from sage_hf.cli.card_material import ALIGNMENT, draw_alignment
from tests.conftest import make_args, make_dataset, make_model


@pytest.fixture
def trainer(tmp_path, processor):
    (tmp_path / "out").mkdir()
    args = make_args(tmp_path / "out", guidance="none", horizontal_flip=1.0)
    return SageTrainer(make_model("vit"), args, train_dataset=make_dataset(4), processing_class=processor)


def test_held_out_pictures_if_they_have_maps(trainer, tmp_path):
    bare, some = make_dataset(4, annotated=0), make_dataset(6, annotated=1)
    splits = {"validation": bare, "test": some.select([5, 4, 0]), "other": some.remove_columns("saliency")}
    captions = draw_alignment(trainer, splits, make_dataset(4), 2)
    assert captions[ALIGNMENT].startswith("Pictures of the test split, not trained on:")
    with Image.open(tmp_path / "out" / ALIGNMENT) as drawn:
        assert drawn.size == (4 * 136 + 8, 26 + 8 + 136)  # the one row with a map
        marked = drawn.crop((8 + 136, 34, 8 + 136 + 128, 34 + 128))
    # The rectangle of conftest's maps: nothing is mirrored, though training mirrors every picture.
    expected = Image.new("L", (48, 40))
    expected.paste(255, (8, 5, 30, 20))
    expected = expected.resize((128, 128), Image.Resampling.BILINEAR)
    red, green, _ = marked.split()
    assert all(
        (red.getpixel(place) - green.getpixel(place) > 100) == (expected.getpixel(place) > 127)
        for place in ((10, 10), (30, 30), (60, 40), (100, 40), (110, 40), (40, 100))
    )


def test_training_pictures_otherwise(trainer):
    bare = {"test": make_dataset(4, annotated=0)}
    assert draw_alignment(trainer, bare, make_dataset(4), 2)[ALIGNMENT].startswith("Pictures that it was trained on:")
    assert draw_alignment(trainer, bare, make_dataset(4, annotated=0), 2) == {}
    assert draw_alignment(trainer, bare, make_dataset(4), 0) == {}


def test_pictures_that_can_not_be_drawn(tmp_path, processor):
    processor.image_mean = processor.image_std = [0.5] * 4
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 2, 8, 8), torch.nn.Flatten(), torch.nn.Linear(32, 3))
    args = make_args(tmp_path / "out", guidance="none", embedding_layer="2")
    trainer = SageTrainer(model, args, processing_class=processor)
    pictures = datasets.Dataset.from_dict(
        {"image": torch.zeros(1, 32, 32, 4).byte().tolist(), "saliency": [Image.new("L", (32, 32), 9)], "label": [0]},
        features=datasets.Features(
            image=datasets.Array3D((32, 32, 4), "uint8"), saliency=datasets.Image(), label=datasets.Value("int64")
        ),
    )
    with pytest.raises(DataError, match="card_pictures: pictures of 4 channels can't be drawn"):
        draw_alignment(trainer, {}, pictures, 1)
