"""A picture and its map through the very same geometry: random crop and flip, then the checkpoint's own processing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance
from transformers import BaseImageProcessor

from .saliency import DataError, saliency_map

# Leaves only the geometry of an image processor: no rescaling, no normalisation. Mean and deviation are neutral as
# well, because EfficientNet's processor divides by the deviation a second time, whatever `do_normalize` says.
GEOMETRY_ONLY = {
    "do_rescale": False,
    "do_normalize": False,
    "image_mean": [0.0, 0.0, 0.0],
    "image_std": [1.0, 1.0, 1.0],
    "resample": Image.Resampling.BILINEAR,
}

EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Pictures that PIL converts without clipping; it would cut 16-bit values off at 255."""


class AlignedTransform:
    """
    Turns a row with a picture, a map and a label into model inputs, keeping map and picture aligned.

    Picture and map get the same random crop and mirroring, then both go through the checkpoint's image processor: the
    picture as it is configured, the map with bilinear sampling and without rescaling and normalisation. So any resize,
    crop, pad or crop percentage that a processor knows is replayed exactly. Randomness is torch's global generator,
    which data-loader workers seed.

    Args:
        processor ([`~transformers.BaseImageProcessor`]): the checkpoint's.
        image_column (`str`, *optional*, defaults to `"image"`): column with `PIL.Image.Image`.
        saliency_column (`str`, *optional*, defaults to `"saliency"`): column with `PIL.Image.Image` or `None`; `None`
            as the name leaves maps out.
        label_column (`str`, *optional*, defaults to `"label"`): column with the class index or name, may be missing.
        label2id (`dict[str, int]`, *optional*): class index of each class name; looks names up, and bounds indices.
        require_label (`bool`, *optional*, defaults to `False`): whether a row without a label is an error.
        num_channels (`int`, *optional*, defaults to 3): 3 for RGB, 1 for grey models.
        random_crop_scale (`float`, *optional*): least share of the area that a random crop keeps; no crop if not
            given.
        horizontal_flip (`float`, *optional*, defaults to 0.0): probability of mirroring.
        color_jitter (`float`, *optional*, defaults to 0.0): largest relative change of brightness, contrast,
            saturation.

    Example:

    ```python
    >>> from PIL import Image
    >>> from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    >>> from sage_hf import AlignedTransform
    >>> transform = AlignedTransform(ViTImageProcessorPil(size={"height": 32, "width": 32}))
    >>> image, saliency = Image.new("RGB", (64, 48)), Image.new("L", (64, 48), 255)
    >>> row = transform({"image": image, "saliency": saliency, "label": 3})
    >>> row["pixel_values"].shape, row["saliency"].shape, row["labels"]
    (torch.Size([3, 32, 32]), torch.Size([1, 32, 32]), 3)

    ```
    """

    def __init__(
        self,
        processor: BaseImageProcessor,
        *,
        image_column: str = "image",
        saliency_column: str | None = "saliency",
        label_column: str = "label",
        label2id: dict[str, int] | None = None,
        require_label: bool = False,
        num_channels: int = 3,
        random_crop_scale: float | None = None,
        horizontal_flip: float = 0.0,
        color_jitter: float = 0.0,
    ):
        if num_channels not in (1, 3):
            raise ValueError(f"Pictures are read as grey or RGB, this model takes {num_channels} channels.")
        self.processor = processor
        self.image_column, self.saliency_column, self.label_column = image_column, saliency_column, label_column
        self.label2id, self.require_label = label2id or {}, require_label
        self.mode = "RGB" if num_channels == 3 else "L"
        self.random_crop_scale = random_crop_scale
        self.horizontal_flip = horizontal_flip
        self.color_jitter = color_jitter

    def __call__(self, row: dict[str, Any], generator: np.random.Generator | None = None) -> dict[str, Any]:
        """
        Model inputs of one row: `pixel_values` (channels, height, width); `labels`, an int, if the row has a label;
        `saliency`, unless maps are left out: float32 (1, height, width) in [0, 1], or `None` for a row without a map,
        with a blank map, or whose marked region the random crop has cut away.

        Args:
            row (`dict`): the columns by name.
            generator (`numpy.random.Generator`, *optional*): source of the augmentation; seeded from torch's global
                generator if not given.

        Raises:
            [`DataError`]: no picture, or one of more than 8 bits; a map that can't be used; a label that is missing or
                not one of the model's.
        """
        image = row[self.image_column]
        if image is None:
            raise DataError(f"column {self.image_column!r} is empty. Remove the row.")
        saliency = row.get(self.saliency_column) if self.saliency_column else None
        if saliency is not None:
            try:
                saliency = saliency_map(saliency, image.size)
            except DataError as error:
                raise DataError(f"column {self.saliency_column!r}: {error}") from None
        if image.mode not in EIGHT_BIT_MODES:
            raise DataError(
                f"column {self.image_column!r}: the picture has {image.mode!r} pixels, more than 8 bits deep. Which "
                "of its values are black and white is your choice (a window, in radiology): make it 8 bits deep first."
            )
        image = image.convert(self.mode)
        image, saliency = self._augment(image, saliency, generator)

        inputs: dict[str, Any] = {"pixel_values": self._process(image)}
        if self.saliency_column is not None:
            inputs["saliency"] = (
                None if saliency is None else self._process_map(saliency, inputs["pixel_values"].shape)
            )
        if row.get(self.label_column) is not None:
            inputs["labels"] = self._label(row[self.label_column])
        elif self.require_label:
            raise DataError(f"column {self.label_column!r}: there is no label. Remove the row or label it.")
        return inputs

    def _process(self, image: Image.Image, **overrides: Any) -> torch.Tensor:
        # A grey picture goes in as (1, height, width): processors take a bare 2-d array for one with channels last.
        array = np.asarray(image) if image.mode == "RGB" else np.asarray(image)[None]
        channels = "channels_last" if image.mode == "RGB" else "channels_first"
        output = self.processor(images=array, input_data_format=channels, return_tensors="pt", **overrides)
        return output["pixel_values"][0].float()

    def _process_map(self, saliency: Image.Image, shape: torch.Size) -> torch.Tensor | None:
        values = self._process(saliency.convert(self.mode), **GEOMETRY_ONLY)[:1] / 255
        if values.shape[-2:] != shape[-2:]:
            raise DataError(
                f"{type(self.processor).__name__} makes pictures of {tuple(shape[-2:])} but maps of "
                f"{tuple(values.shape[-2:])}; it can't be replayed on maps."
            )
        return values.clamp(0, 1) if values.max() > 0 else None

    def _label(self, label: int | str) -> int:
        if isinstance(label, str):
            if label not in self.label2id:
                raise DataError(
                    f"column {self.label_column!r}: class {label!r} is not one of the model's: "
                    f"{', '.join(self.label2id)}."
                )
            return self.label2id[label]
        if self.label2id and not 0 <= label < len(self.label2id):
            raise DataError(
                f"column {self.label_column!r}: label {label} is outside the head's range 0 to "
                f"{len(self.label2id) - 1}. Load the model with num_labels=..., or mend the label."
            )
        return int(label)

    def _augment(
        self, image: Image.Image, saliency: Image.Image | None, generator: np.random.Generator | None
    ) -> tuple[Image.Image, Image.Image | None]:
        if self.random_crop_scale is None and not self.horizontal_flip and not self.color_jitter:
            return image, saliency
        if generator is None:
            generator = np.random.default_rng(int(torch.randint(2**62, ())))
        if self.random_crop_scale is not None:
            box = random_box(image.size, self.random_crop_scale, generator)
            image, saliency = image.crop(box), saliency and saliency.crop(box)
        if generator.random() < self.horizontal_flip:
            mirror = Image.Transpose.FLIP_LEFT_RIGHT
            image, saliency = image.transpose(mirror), saliency and saliency.transpose(mirror)
        if self.color_jitter:
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = enhance(image).enhance(1 + generator.uniform(-self.color_jitter, self.color_jitter))
        return image, saliency


def random_box(size: tuple[int, int], least_area: float, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """
    A box (left, upper, right, lower) in pixels with an area share in [least_area, 1] and an aspect in [3/4, 4/3] of
    the picture's.

    The ranges are those of the usual random resized crop; the aspect is relative, so that wide pictures stay wide.
    """
    area = generator.uniform(least_area, 1)
    aspect = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
    # A side can't exceed the picture's: then the other one carries the area.
    aspect = min(max(aspect, area), 1 / area)
    width = max(1, min(size[0], round(size[0] * math.sqrt(area * aspect))))
    height = max(1, min(size[1], round(size[1] * math.sqrt(area / aspect))))
    left = int(generator.integers(size[0] - width + 1))
    upper = int(generator.integers(size[1] - height + 1))
    return left, upper, left + width, upper + height
