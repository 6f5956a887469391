"""Class activation maps as maps of a dataset."""

import numpy as np
import pytest
import torch
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil

from sage_hf.data.annotations import MachineSaliency
from sage_hf.evaluation.model_saliency import model_saliency
from tests.conftest import make_model
from tests.data.annotations.test_machine import pictures


@pytest.fixture(params=["vit", "convnext", "resnet"])
def classifier(request, processor, tmp_path):
    model = make_model(request.param).eval()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return model, processor, str(tmp_path)


def expected_map(classifier, image, target=None):
    model, processor, _ = classifier
    inputs = processor(images=image, return_tensors="pt")["pixel_values"]
    return model_saliency(model, inputs, targets=None if target is None else torch.tensor([target]))[0].numpy()


@pytest.mark.parametrize("target", [None, 0, 2])
def test_the_map_of_a_class_or_of_the_predicted_one(classifier, target):
    # Of the size of the model's input, so that nothing is resized.
    (image,) = pictures((32, 32))
    labels = None if target is None else (f"LABEL_{target}",)
    found = MachineSaliency(classifier[2], "cam", labels=labels).saliency_of(image)
    expected = expected_map(classifier, image, target)
    if expected.max() == 0:
        assert found is None
    else:
        assert found.max() == 1
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_several_classes_give_the_highest_of_their_maps(classifier):
    (image,) = pictures((32, 32))
    found = MachineSaliency(classifier[2], "cam", labels=("LABEL_0", "LABEL_1", "LABEL_2")).saliency_of(image)
    expected = np.max([expected_map(classifier, image, target) for target in range(3)], axis=0)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_batch_is_what_its_pictures_are(classifier):
    images = pictures((40, 30), (30, 40), (40, 30))
    machine = MachineSaliency(classifier[2], "cam")
    for image, values in zip(images, machine.saliency_of_batch(images), strict=True):
        alone = machine.saliency_of(image)
        assert (values is None) == (alone is None)
        if values is not None:
            assert values.shape == image.size[::-1]
            np.testing.assert_allclose(values, alone, atol=1e-4)


def test_what_was_cropped_away_is_not_salient(tmp_path):
    make_model("resnet").save_pretrained(tmp_path)
    processor = MobileViTImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path)
    found = MachineSaliency(str(tmp_path), "cam", labels=("LABEL_0", "LABEL_1", "LABEL_2")).saliency_of(
        pictures((120, 60))[0]
    )
    # Of 96x48 pixels the middle 32x32 are seen: of 120x60, columns 40 to 80 and rows 10 to 50.
    rows, columns = np.nonzero(found)
    assert rows.min() in (9, 10, 11)
    assert rows.max() in (48, 49, 50)
    assert columns.min() in (39, 40, 41)
    assert columns.max() in (78, 79, 80)


def test_unknown_class(classifier):
    with pytest.raises(ValueError, match=r"has no label rust; it has LABEL_0, LABEL_1, LABEL_2"):
        MachineSaliency(classifier[2], "cam", labels=("rust",)).saliency_of(pictures((32, 32))[0])
