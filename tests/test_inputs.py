"""Pictures of other channels, shapes and sizes than the usual."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf import AlignedTransform, DataError, SageTrainer, SageTrainingArguments
from sage_hf.cli.model_options import needs_interpolation, resize_inputs
from sage_hf.data.transforms import picture_bands
from tests.conftest import make_dataset, make_model


def vit(**settings):
    torch.manual_seed(0)
    config = {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "num_labels": 3,
    }
    return ViTForImageClassification(ViTConfig(**config | settings))


def train(model, processor, folder, dataset, **settings):
    args = SageTrainingArguments(
        output_dir=str(folder),
        max_steps=2,
        logging_steps=1,
        per_device_train_batch_size=4,
        save_strategy="no",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    trainer = SageTrainer(model, args, train_dataset=dataset, eval_dataset=dataset, processing_class=processor)
    trainer.train()
    assert all("triplet" in entry for entry in trainer.state.log_history if "loss" in entry)
    assert trainer.evaluate()["eval_loss"] > 0
    return trainer


def square(**settings):
    return ViTImageProcessorPil(size={"height": 32, "width": 32}, **settings)


def array_dataset(channels, count=8):
    generator = np.random.default_rng(0)
    features = datasets.Features(
        image=datasets.Array3D((channels, 40, 48), "uint8"),
        saliency=datasets.Image(mode="L"),
        label=datasets.ClassLabel(names=["a", "b", "c"]),
    )
    marked = Image.fromarray(np.pad(np.full((20, 20), 255, dtype=np.uint8), ((10, 10), (4, 24))))
    rows = [
        {
            "image": generator.integers(0, 256, (channels, 40, 48), dtype=np.uint8),
            "saliency": marked,
            "label": index % 3,
        }
        for index in range(count)
    ]
    return datasets.Dataset.from_list(rows, features=features)


def test_grey_models(tmp_path):
    trainer = train(
        vit(num_channels=1),
        square(image_mean=[0.4], image_std=[0.3]),
        tmp_path,
        make_dataset(8),
        random_crop_scale=0.5,
        horizontal_flip=0.5,
        color_jitter=0.3,
    )
    assert trainer.train_dataset[0]["pixel_values"].shape == (1, 32, 32)


def test_models_of_more_than_three_channels(tmp_path):
    processor = square(image_mean=[0.1, 0.2, 0.3, 0.4, 0.5], image_std=[0.5, 0.4, 0.3, 0.2, 0.1])
    trainer = train(
        vit(num_channels=5),
        processor,
        tmp_path,
        array_dataset(5),
        random_crop_scale=0.5,
        horizontal_flip=0.5,
        color_jitter=0.3,
    )
    assert trainer.train_dataset[0]["pixel_values"].shape == (5, 32, 32)
    assert trainer.train_dataset[0]["saliency"].shape == (1, 32, 32)


def test_channels_are_processed_each_by_its_own_statistics():
    values = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    mean, std = [0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.4, 0.3, 0.2, 0.1]
    transform = AlignedTransform(square(image_mean=mean, image_std=std), num_channels=5)
    expected = (values / 255 - np.reshape(mean, (5, 1, 1))) / np.reshape(std, (5, 1, 1))
    for picture in (values, values.transpose(1, 2, 0), values.tolist()):
        found = transform({"image": picture, "saliency": None})["pixel_values"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_one_geometry_for_all_channels_and_the_map():
    # Every channel is the map itself, so they must coincide after any augmentation.
    marked = np.zeros((60, 80), dtype=np.uint8)
    marked[20:40, 15:50] = 255
    transform = AlignedTransform(
        square(do_normalize=False, resample=Image.Resampling.BILINEAR),
        num_channels=4,
        random_crop_scale=0.4,
        horizontal_flip=0.5,
    )
    for seed in range(20):
        row = {"image": np.stack([marked] * 4), "saliency": Image.fromarray(marked)}
        inputs = transform(row, np.random.default_rng(seed))
        for channel in inputs["pixel_values"]:
            torch.testing.assert_close(channel, inputs["saliency"][0], rtol=0, atol=1e-6)


def test_four_channel_pictures_of_pil(tmp_path):
    rows = [
        {"image": Image.fromarray(np.random.default_rng(index).integers(0, 256, (32, 32, 4), dtype=np.uint8), "RGBA")}
        for index in range(2)
    ]
    transform = AlignedTransform(square(do_normalize=False), num_channels=4)
    for row in rows:
        values = transform(row | {"saliency": None})["pixel_values"]
        np.testing.assert_allclose(values.permute(1, 2, 0), np.asarray(row["image"]) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("picture", "channels", "message"),
    [
        (np.zeros((6, 4, 4), np.uint8), 5, r"array of \(6, 4, 4\), the model takes 5 channels"),
        (np.zeros((5, 4, 4), np.float32), 5, r"float32 values from 0.0 to 0.0, more than 8 bits"),
        (np.full((5, 4, 4), 4000, np.uint16), 5, r"uint16 values from 4000 to 4000, more than 8 bits"),
        (Image.new("RGB", (4, 4)), 5, r"has 3 channels \(RGB\), the model takes 5.*datasets.Array3D"),
    ],
)
def test_pictures_that_do_not_fit_are_explained(picture, channels, message):
    with pytest.raises(DataError, match=message):
        picture_bands(picture, channels)


def test_a_processor_for_other_channels_is_explained(tmp_path):
    message = r"ViTImageProcessorPil has an image_mean of 3 channels, the model takes 1. Set processor.image_mean"
    with pytest.raises(ValueError, match=message):
        train(vit(num_channels=1), square(), tmp_path, make_dataset(4))


def test_pictures_that_are_not_square(tmp_path):
    model = vit(image_size=[48, 64])
    trainer = train(model, ViTImageProcessorPil(size={"height": 48, "width": 64}), tmp_path, make_dataset(8))
    assert trainer.train_dataset[0]["pixel_values"].shape == (3, 48, 64)
    assert trainer.train_dataset[0]["saliency"].shape == (1, 48, 64)


def test_high_resolution_by_interpolated_position_encodings(tmp_path):
    larger = ViTImageProcessorPil(size={"height": 64, "width": 64})
    with pytest.raises(ValueError, match="Input image size"):
        train(vit(), larger, tmp_path / "refused", make_dataset(8))
    model = vit()
    trainer = train(model, larger, tmp_path / "run", make_dataset(8), interpolate_pos_encoding=True)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    with torch.no_grad():
        expected = model.eval()(batch["pixel_values"], interpolate_pos_encoding=True, labels=batch["labels"]).loss
        torch.testing.assert_close(trainer.compute_loss(model, batch), expected)
    assert model.config.sage["interpolate_pos_encoding"]
    trainer.create_model_card()
    assert "interpolate_pos_encoding=True" in (tmp_path / "run" / "README.md").read_text()


def test_models_without_position_encodings_take_any_size(tmp_path):
    train(
        make_model("resnet"), ViTImageProcessorPil(size={"height": 40, "width": 56}), tmp_path / "run", make_dataset(8)
    )
    args = SageTrainingArguments(output_dir=str(tmp_path), interpolate_pos_encoding=True, use_cpu=True)
    with pytest.raises(ValueError, match=r"takes no interpolate_pos_encoding: leave it out"):
        SageTrainer(make_model("resnet"), args)


def test_resizing_a_processor_keeps_the_share_that_it_crops_away():
    processor = CLIPImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})
    resize_inputs(processor, 112)
    assert processor.size["shortest_edge"] == 128
    assert (processor.crop_size["height"], processor.crop_size["width"]) == (112, 112)
    plain = square()
    resize_inputs(plain, 64)
    assert plain(Image.new("RGB", (9, 9)), return_tensors="pt")["pixel_values"].shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match="can't be set so"):
        resize_inputs(ViTImageProcessorPil(size={"longest_edge": 32}), 64)


def test_who_needs_interpolation():
    assert needs_interpolation(vit(), 64)
    assert not needs_interpolation(vit(), 32)
    assert not needs_interpolation(make_model("resnet"), 64)


def test_high_resolution_of_towers(tmp_path):
    from transformers import CLIPConfig, CLIPForImageClassification, CLIPVisionConfig, CLIPVisionModel

    from sage_hf import load_image_classifier

    tower = {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    CLIPVisionModel(CLIPVisionConfig(**tower)).save_pretrained(tmp_path / "tower")
    headed = load_image_classifier(tmp_path / "tower", num_labels=3)
    whole = CLIPForImageClassification(CLIPConfig(vision_config=tower, num_labels=3))
    larger = ViTImageProcessorPil(size={"height": 64, "width": 64})
    for name, model in (("headed", headed), ("whole", whole)):
        assert needs_interpolation(model, 64)
        train(model, larger, tmp_path / name, make_dataset(4), interpolate_pos_encoding=True)


def test_predictions_without_labels_are_interpolated_too(tmp_path):
    larger = ViTImageProcessorPil(size={"height": 64, "width": 64})
    trainer = train(vit(), larger, tmp_path / "run", make_dataset(4), interpolate_pos_encoding=True)
    assert trainer.predict(make_dataset(4).remove_columns("label")).predictions.shape == (4, 3)
