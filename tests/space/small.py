"""A small model that visitors try, and a picture for it."""

import numpy as np
import torch
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from tests.conftest import CLASSES, SIZE, make_model


def save_model(folder, kind="convnext", **settings):
    """One whose predictions differ between pictures."""
    model = make_model(kind)
    with torch.no_grad():
        model.classifier.weight.mul_(40)
    model.config.id2label = dict(enumerate(CLASSES))
    model.config.update(settings)
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return model.eval()


def make_picture(seed=0):
    """Dark noise with a light square."""
    pixels = np.random.default_rng(seed).integers(0, 90, (SIZE, SIZE, 3), dtype=np.uint8)
    pixels[4:12, 18:28] = (250, 220, 30)
    return Image.fromarray(pixels)


def probabilities(model, pixel_values):
    with torch.no_grad():
        return dict(zip(CLASSES, model(pixel_values).logits.softmax(dim=1)[0].tolist(), strict=True))
