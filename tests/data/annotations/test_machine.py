import pickle

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sage_hf import DataError
from sage_hf.data.annotations import MachineSaliency
from sage_hf.data.annotations.machine import _Classifier
from tests.conftest import make_model

LABELS = {0: "ground", 1: "leaf", 2: "lesion"}


def pictures(*sizes):
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in sizes]


@pytest.fixture(scope="module")
def segformer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-segformer"
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        id2label=LABELS,
        label2id={name: index for index, name in LABELS.items()},
    )
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def dpt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-dpt"
    torch.manual_seed(0)
    config = transformers.DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
        initializer_range=0.3,
    )
    model = transformers.DPTForDepthEstimation(config)
    # Away from the ReLU at its end, so that the depth varies.
    torch.nn.init.ones_(model.head.head[-2].bias)
    model.save_pretrained(folder)
    DPTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


def argmax_of_the_logits(folder, image):
    """As the model's documentation does it, without a pipeline."""
    processor = SegformerImageProcessorPil.from_pretrained(folder)
    model = transformers.SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(**processor(images=image, return_tensors="pt")).logits
    return torch.nn.functional.interpolate(logits, image.size[::-1], mode="bilinear")[0].argmax(0).numpy()


@pytest.mark.parametrize("labels", [("leaf",), ["lesion", "ground"]])
def test_chosen_labels_of_a_segmentation(segformer, labels):
    (image,) = pictures((30, 20))
    classes = argmax_of_the_logits(segformer, image)
    assert len(np.unique(classes)) == 3
    found = MachineSaliency(segformer, "segmentation", labels=labels).saliency_of(image)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.isin(classes, [index for index, name in LABELS.items() if name in labels]))


def test_a_batch_is_what_its_pictures_are(segformer, dpt):
    images = pictures((30, 20), (20, 30), (30, 20), (33, 33))
    for machine in (
        MachineSaliency(segformer, "segmentation", labels=("leaf",)),
        MachineSaliency(dpt, "depth", near="high"),
    ):
        together = machine.saliency_of_batch(images)
        for image, values in zip(images, together, strict=True):
            assert values.shape == image.size[::-1]
            np.testing.assert_allclose(values, machine.saliency_of(image), atol=1e-4)
    assert machine.saliency_of_batch([]) == []


def test_a_label_that_is_nowhere_marks_nothing(segformer, tmp_path):
    model = transformers.SegformerForSemanticSegmentation.from_pretrained(segformer)
    model.decode_head.classifier.bias.data[2] = -1000
    model.save_pretrained(tmp_path)
    SegformerImageProcessorPil.from_pretrained(segformer).save_pretrained(tmp_path)
    (image,) = pictures((30, 20))
    assert MachineSaliency(str(tmp_path), "segmentation", labels=("lesion",)).saliency_of(image) is None
    assert MachineSaliency(str(tmp_path), "segmentation", labels=("lesion", "leaf")).saliency_of(image) is not None


def test_near_is_salient(dpt):
    (image,) = pictures((30, 20))
    processor = DPTImageProcessorPil.from_pretrained(dpt)
    model = transformers.DPTForDepthEstimation.from_pretrained(dpt).eval()
    with torch.no_grad():
        depth = model(**processor(images=image, return_tensors="pt")).predicted_depth
    depth = torch.nn.functional.interpolate(depth[None], image.size[::-1], mode="bicubic")[0, 0].numpy()
    expected = (depth - depth.min()) / (depth.max() - depth.min())
    assert expected.std() > 0.05
    np.testing.assert_allclose(MachineSaliency(dpt, "depth", near="high").saliency_of(image), expected, atol=1e-4)
    np.testing.assert_allclose(MachineSaliency(dpt, "depth", near="low").saliency_of(image), 1 - expected, atol=1e-4)


def test_a_model_may_say_itself_what_near_is(dpt, tmp_path):
    model = transformers.DPTForDepthEstimation.from_pretrained(dpt)
    DPTImageProcessorPil.from_pretrained(dpt).save_pretrained(tmp_path)
    (image,) = pictures((30, 20))
    model.config.depth_estimation_type = "metric"
    model.save_pretrained(tmp_path)
    found = MachineSaliency(str(tmp_path), "depth").saliency_of(image)
    assert np.array_equal(found, MachineSaliency(dpt, "depth", near="low").saliency_of(image))
    with pytest.raises(ValueError, match=r"does not say whether near pixels have high or low values"):
        MachineSaliency(dpt, "depth").saliency_of(image)


def test_even_depth_marks_nothing(dpt, tmp_path):
    model = transformers.DPTForDepthEstimation.from_pretrained(dpt)
    torch.nn.init.zeros_(model.head.head[-2].weight)
    model.save_pretrained(tmp_path)
    DPTImageProcessorPil.from_pretrained(dpt).save_pretrained(tmp_path)
    assert MachineSaliency(str(tmp_path), "depth", near="high").saliency_of(pictures((32, 32))[0]) is None


def test_no_crop_is_stretched_over_the_picture(tmp_path):
    torch.manual_seed(0)
    config = transformers.MobileViTConfig(
        image_size=64, hidden_sizes=[8] * 3, neck_hidden_sizes=[8] * 7, num_attention_heads=2, aspp_out_channels=8
    )
    transformers.MobileViTForSemanticSegmentation(config).save_pretrained(tmp_path)
    processor = MobileViTImageProcessorPil(size={"shortest_edge": 96}, crop_size={"height": 64, "width": 64})
    processor.save_pretrained(tmp_path)
    machine = MachineSaliency(str(tmp_path), "segmentation", labels=("LABEL_0",))
    seen = []
    model = machine_model(machine)
    model.register_forward_pre_hook(lambda module, args, inputs: seen.append(inputs["pixel_values"]), with_kwargs=True)
    (image,) = pictures((96, 96))
    machine.saliency_of(image)
    assert seen[0].shape == (1, 3, 96, 96)


def machine_model(machine):
    from sage_hf.data.annotations.machine import _loaded

    return _loaded(machine).pipeline.model


def test_a_model_is_loaded_once(segformer, monkeypatch):
    machine = MachineSaliency(segformer, "segmentation", labels=("leaf",))
    copy = pickle.loads(pickle.dumps(machine))
    assert len(pickle.dumps(machine)) < 1000
    machine.saliency_of(pictures((30, 20))[0])
    monkeypatch.setattr(transformers, "pipeline", None)
    assert copy.saliency_of(pictures((30, 20))[0]) is not None


def test_exif_rotation_is_applied(segformer):
    (image,) = pictures((30, 20))
    machine = MachineSaliency(segformer, "segmentation", labels=("leaf",))
    turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    assert np.array_equal(machine.saliency_of(turned), machine.saliency_of(image))


def test_grey_pictures_and_deep_ones(segformer):
    machine = MachineSaliency(segformer, "segmentation", labels=("leaf",))
    grey = pictures((30, 20))[0].convert("L")
    assert np.array_equal(machine.saliency_of(grey), machine.saliency_of(grey.convert("RGB")))
    with pytest.raises(DataError, match="more than 8 bits deep"):
        machine.saliency_of(Image.fromarray(np.full((20, 30), 4000, dtype=np.uint16)))


def test_source(segformer):
    assert MachineSaliency("owner/name", "depth").source == "machine: owner/name"
    assert MachineSaliency(segformer, "depth").source == "machine: tiny-segformer"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "gaze"}, r"Unknown kind 'gaze'. Choose one of segmentation, depth, cam"),
        ({"kind": "segmentation"}, "needs labels"),
        ({"kind": "segmentation", "labels": "leaf"}, "labels is 'leaf', not a tuple"),
        ({"kind": "depth", "labels": ("leaf",)}, "has no labels"),
        ({"kind": "depth", "near": "close"}, "near is 'close'"),
        ({"kind": "cam", "near": "low"}, "near is 'low'"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MachineSaliency("owner/name", **settings)


def test_labels_that_a_model_lacks(segformer):
    machine = MachineSaliency(segformer, "segmentation", labels=("leaf", "stem"))
    with pytest.raises(ValueError, match="has no label stem; it has ground, leaf, lesion"):
        machine.saliency_of(Image.new("RGB", (30, 20)))


PROCESSORS = {
    "stretched": (ViTImageProcessorPil(size={"height": 32, "width": 32}), (0, 0, 1, 1)),
    # The shortest edge becomes 48, of which the middle 32 remain.
    "cropped": (
        MobileViTImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 32, "width": 32}),
        (1 / 6, 1 / 3, 5 / 6, 2 / 3),
    ),
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_where_the_model_looked_is_brought_back_onto_the_picture(kind, tmp_path):
    """A map of the model's input is the picture's own shape there, resampled: a ramp comes back as that ramp."""
    processor, (top, left, bottom, right) = PROCESSORS[kind]
    make_model("resnet").save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    classifier = _Classifier(MachineSaliency(str(tmp_path), "cam"))
    image = Image.new("RGB", (120, 60))
    centres = (np.arange(32) + 0.5) / 32
    across, down = np.meshgrid(left + (right - left) * centres, top + (bottom - top) * centres)
    for ramp, positions in ((across, (np.arange(120) + 0.5) / 120), (down, (np.arange(60) + 0.5) / 60)):
        (found,) = classifier._upon_pictures(ramp.astype(np.float32)[None], image)
        assert found.shape == (60, 120)
        expected = np.broadcast_to(positions if ramp is across else positions[:, None], (60, 120))
        rows = (np.arange(60) + 0.5) / 60
        columns = (np.arange(120) + 0.5) / 120
        inside = np.outer(
            (rows > top + 0.03) & (rows < bottom - 0.03), (columns > left + 0.03) & (columns < right - 0.03)
        )
        np.testing.assert_allclose(found[inside], expected[inside], atol=0.01)
        outside = ~np.outer(
            (rows > top - 0.03) & (rows < bottom + 0.03), (columns > left - 0.03) & (columns < right + 0.03)
        )
        assert not found[outside].any()


def test_pictures_too_small_to_place_a_map(tmp_path):
    make_model("resnet").save_pretrained(tmp_path)
    PROCESSORS["stretched"][0].save_pretrained(tmp_path)
    classifier = _Classifier(MachineSaliency(str(tmp_path), "cam"))
    with pytest.raises(DataError, match="1x9 pixels is too small"):
        classifier._geometry(Image.new("RGB", (1, 9)))
