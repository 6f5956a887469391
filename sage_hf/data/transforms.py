"""A picture and its map through the very same geometry: random crop and flip, then the checkpoint's own processing."""

from __future__ import annotations

import math
from copy import copy
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor

from .finishing import CHANGES, Finish
from .labels import LabelReader
from .replay import Change, ProcessorReplay
from .row_pictures import annotators_map, decoded
from .saliency import DataError, saliency_map

EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Pictures that PIL converts without clipping; it would cut 16-bit values off at 255."""


class AlignedTransform:
    """
    Turns a row with a picture, a map and a label into model inputs, keeping map and picture aligned.

    Picture and map get the same random crop and mirroring, and both go through the checkpoint's image processor: the
    picture as it is configured, the map with bilinear sampling and without rescaling and normalisation. So any resize,
    crop, pad or crop percentage that a processor knows is replayed exactly, see
    [`~sage_hf.data.replay.ProcessorReplay`]; where it neither pads nor exchanges channels, pictures are mirrored and
    jittered at the size that it gives them, which costs less. Randomness is torch's global generator, which
    data-loader workers seed.

    Args:
        processor ([`~transformers.BaseImageProcessor`]): the checkpoint's.
        image_column (`str`, *optional*, defaults to `"image"`): column with `PIL.Image.Image`, with pictures as
            `datasets` stores them, or with an array of numbers from 0 to 255, (height, width, channels) or (channels,
            height, width).
        saliency_column (`str`, *optional*, defaults to `"saliency"`): column with `PIL.Image.Image`, stored pictures,
            `None`, or a list of these, one an annotator; `None` as the name leaves maps out.
        label_column (`str`, *optional*, defaults to `"label"`): column with the label, may be missing.
        read_label (`LabelReader`, *optional*): turns the column's values into labels; class indices if not given.
        require_label (`bool`, *optional*, defaults to `False`): whether a row without a label is an error.
        num_channels (`int`, *optional*, defaults to 3): 3 for RGB, 1 for grey models. With any other number, each
            channel goes through the processor as a grey picture, with its own mean and deviation.
        random_crop_scale (`float`, *optional*): least share of the area that a random crop keeps; no crop if not
            given.
        horizontal_flip (`float`, *optional*, defaults to 0.0): probability of mirroring.
        color_jitter (`float`, *optional*, defaults to 0.0): largest relative change of brightness, contrast,
            saturation (the latter of RGB alone).
        annotators (`str`, *optional*, defaults to `"random"`): what becomes of a list of maps, one an annotator, see
            [`SageTrainingArguments`].

    Attributes:
        tokens (`dict`, *optional*): access tokens by Hub repository, for pictures that a row only points to.

    Raises:
        `ValueError`: the processor's mean or deviation is for another number of channels.

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
        read_label: LabelReader | None = None,
        require_label: bool = False,
        num_channels: int = 3,
        random_crop_scale: float | None = None,
        horizontal_flip: float = 0.0,
        color_jitter: float = 0.0,
        annotators: str = "random",
    ):
        for name in ("image_mean", "image_std"):
            value = getattr(processor, name, None) if getattr(processor, "do_normalize", True) else None
            if isinstance(value, (list, tuple)) and len(value) != num_channels:
                raise ValueError(
                    f"{type(processor).__name__} has an {name} of {len(value)} channels, the model takes "
                    f"{num_channels}. Set processor.{name} to a list of {num_channels}."
                )
        self.processor, self.num_channels = processor, num_channels
        self._replay = ProcessorReplay(processor, num_channels)
        self.image_column, self.saliency_column, self.label_column = image_column, saliency_column, label_column
        self.read_label, self.require_label = read_label or LabelReader(label_column), require_label
        self.random_crop_scale = random_crop_scale
        self.horizontal_flip = horizontal_flip
        self.color_jitter = color_jitter
        self.annotators = annotators
        self.tokens: dict[str, str | bool | None] | None = None
        self._leaves_finish = False

    def __call__(self, row: dict[str, Any], generator: np.random.Generator | None = None) -> dict[str, Any]:
        """
        Model inputs of one row: `pixel_values` (channels, height, width); `labels`, as [`LabelReader`] gives them, if
        the row has any; `saliency`, unless maps are left out: float32 (1, height, width) in [0, 1], or `None` for a
        row without a map, with a blank map, or whose marked region the random crop has cut away; and beside it
        `saliency_known`, whether the row has a map at all, and what it does not mark is known to be unmarked.

        Args:
            row (`dict`): the columns by name.
            generator (`numpy.random.Generator`, *optional*): source of the augmentation; seeded from torch's global
                generator if not given.

        Raises:
            [`DataError`]: no picture, one of more than 8 bits or with other channels than the model's; a map that
                can't be used; a label that is missing or not one of the model's.
        """
        image = row[self.image_column]
        if image is None:
            raise DataError(f"column {self.image_column!r} is empty. Remove the row.")
        try:
            bands = picture_bands(decoded(image, self.tokens), self.num_channels)
        except DataError as error:
            raise DataError(f"column {self.image_column!r}: {error}") from error.__cause__
        saliency = row.get(self.saliency_column) if self.saliency_column else None
        known = (
            any(one is not None for one in saliency) if isinstance(saliency, (list, tuple)) else saliency is not None
        )
        try:
            if isinstance(saliency, (list, tuple)):
                generator = generator or _from_torch()
                saliency = annotators_map(saliency, bands[0].size, self.annotators, generator, self.tokens)
            elif saliency is not None:
                picture = decoded(saliency, self.tokens)
                saliency = saliency_map(picture, bands[0].size, stretch=not self._replay.only_resizes)
        except DataError as error:
            raise DataError(f"column {self.saliency_column!r}: {error}") from error.__cause__
        bands, saliency, change = self._augment(bands, saliency, generator)

        inputs: dict[str, Any] = {}
        if self._leaves_finish:
            inputs[CHANGES] = torch.tensor([float(change.mirrored), *change.jitter])
            inputs["pixel_values"], change = self._replay.unfinished(bands[0]), Change()
        else:
            inputs["pixel_values"] = self._replay.pixel_values(bands, change)
        if self.saliency_column is not None:
            size = inputs["pixel_values"].shape[-2:]
            inputs["saliency"] = saliency and self._replay.saliency(
                saliency, size, mirrored=change.mirrored, finish=not self._leaves_finish
            )
            inputs["saliency_known"] = known
        label = row.get(self.label_column)
        # The Hub's hidden test labels are -1; where labels are not asked for, they are none.
        if label is not None and (self.require_label or not isinstance(label, int) or label != -1):
            inputs["labels"] = self.read_label(label)
        elif self.require_label:
            raise DataError(f"column {self.label_column!r}: there is no label. Remove the row or label it.")
        return inputs

    def reading_all_maps(self) -> AlignedTransform:
        """The transform for a check: where one of several annotators is drawn, all of their maps are read."""
        thorough = copy(self)
        if thorough.annotators == "random":
            thorough.annotators = "mean"
        return thorough

    def in_batches(self) -> tuple[AlignedTransform, Finish | None]:
        """
        The transform that leaves the last steps of its rows to be done in batches, and what does them; the transform
        itself and `None`, where the processor is more than a geometry and a function of each value.
        """
        values = self._replay.values
        if values is None:
            return self, None
        unfinished = copy(self)
        unfinished._leaves_finish = True
        return unfinished, Finish(values)

    def _augment(
        self, bands: list[Image.Image], saliency: Image.Image | None, generator: np.random.Generator | None
    ) -> tuple[list[Image.Image], Image.Image | None, Change]:
        """Picture and map after the crop, and the change that is to come."""
        if self.random_crop_scale is None and not self.horizontal_flip and not self.color_jitter:
            return bands, saliency, Change()
        if generator is None:
            generator = _from_torch()
        if self.random_crop_scale is not None:
            box = random_box(bands[0].size, self.random_crop_scale, generator)
            saliency = saliency and crop_map(saliency, box, bands[0].size)
            bands = [band.crop(box) for band in bands]
        mirrored = generator.random() < self.horizontal_flip
        jitter = (
            (generator.uniform(-self.color_jitter, self.color_jitter, 3) + 1).tolist() if self.color_jitter else ()
        )
        return bands, saliency, Change(mirrored, tuple(jitter))


def _from_torch() -> np.random.Generator:
    """Seeded from torch's global generator, which data-loader workers seed."""
    return np.random.default_rng(int(torch.randint(2**62, ())))


def crop_map(saliency: Image.Image, box: tuple[int, int, int, int], picture_size: tuple[int, int]) -> Image.Image:
    """
    A map cropped like its picture; one of another resolution keeps about its own.

    Args:
        saliency (`PIL.Image.Image`): mode `L`.
        box (`tuple[int, int, int, int]`): left, upper, right, lower, in pixels of the picture.
        picture_size (`tuple[int, int]`): (width, height) of the picture.
    """
    if saliency.size == picture_size:
        return saliency.crop(box)
    across, down = saliency.width / picture_size[0], saliency.height / picture_size[1]
    left, upper, right, lower = box[0] * across, box[1] * down, box[2] * across, box[3] * down
    size = max(1, round(right - left)), max(1, round(lower - upper))
    return saliency.resize(size, Image.Resampling.BILINEAR, box=(left, upper, right, lower))


def picture_bands(picture: Any, num_channels: int) -> list[Image.Image]:
    """
    A picture as PIL can hold it: one RGB or grey image, or a grey image for each of any other number of channels.

    Args:
        picture (`PIL.Image.Image` or array of numbers): 8 bits deep; an array is (height, width, channels) or
            (channels, height, width), or (height, width) if there is one channel.
        num_channels (`int`): of the model. PIL's colour images are converted to 3 or 1; arrays must have as many.

    Raises:
        [`DataError`]: more than 8 bits, or other channels than the model's.

    Example:

    ```python
    >>> import numpy as np
    >>> from sage_hf.data.transforms import picture_bands
    >>> [band.size for band in picture_bands(np.zeros((5, 20, 30), dtype=np.uint8), num_channels=5)]
    [(30, 20), (30, 20), (30, 20), (30, 20), (30, 20)]

    ```
    """
    if isinstance(picture, Image.Image):
        if picture.mode not in EIGHT_BIT_MODES:
            raise _too_deep(f"{picture.mode!r} pixels")
        if num_channels in (1, 3):
            mode = "RGB" if num_channels == 3 else "L"
            return [picture if picture.mode == mode else picture.convert(mode)]
        bands = list(picture.split())
        if len(bands) != num_channels:
            raise DataError(
                f"the picture has {len(bands)} channels ({picture.mode}), the model takes {num_channels}. Pictures of "
                "other than one, three or four channels are arrays: store them as datasets.Array3D."
            )
        return bands
    values = np.asarray(picture)
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or num_channels not in (values.shape[0], values.shape[-1]):
        raise DataError(f"the picture is an array of {values.shape}, the model takes {num_channels} channels.")
    if values.dtype != np.uint8:
        if values.dtype.kind not in "iu" or values.min(initial=0) < 0 or values.max(initial=0) > 255:
            raise _too_deep(f"{values.dtype} values from {values.min()} to {values.max()}")
        values = values.astype(np.uint8)
    if values.shape[0] != num_channels:
        values = values.transpose(2, 0, 1)
    if num_channels == 3:
        return [Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0)))]
    return [Image.fromarray(np.ascontiguousarray(band)) for band in values]


def _too_deep(found: str) -> DataError:
    return DataError(
        f"the picture has {found}, more than 8 bits deep. Which of its values are black and white is your choice (a "
        "window, in radiology): make it 8 bits deep first."
    )


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
