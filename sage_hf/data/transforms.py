"""A picture and its map through the very same geometry: random crop and flip, then the checkpoint's own processing."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance
from transformers import BaseImageProcessor

from .labels import LabelReader
from .row_pictures import annotators_map, decoded
from .saliency import DataError, saliency_map


def geometry_only(processor: BaseImageProcessor, channels: int) -> dict[str, Any]:
    """
    What leaves only the geometry of an image processor: rescaling by one, no normalisation.

    Mean and deviation are neutral as well, because EfficientNet's processor divides by the deviation a second time,
    whatever `do_normalize` says; and it is rescaled, because it wants floating-point numbers for that.
    """
    settings = {
        "do_rescale": True,
        "rescale_factor": 1.0,
        "do_normalize": False,
        "image_mean": [0.0] * channels,
        "image_std": [1.0] * channels,
        "resample": Image.Resampling.BILINEAR,
    }
    return settings | ({"rescale_offset": False} if hasattr(processor, "rescale_offset") else {})


EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Pictures that PIL converts without clipping; it would cut 16-bit values off at 255."""

PROBES = ((61, 37), (37, 61), (640, 400))
"""Sizes at which it is tried what a processor does: wide, tall, small and large."""


class AlignedTransform:
    """
    Turns a row with a picture, a map and a label into model inputs, keeping map and picture aligned.

    Picture and map get the same random crop and mirroring, then both go through the checkpoint's image processor: the
    picture as it is configured, the map with bilinear sampling and without rescaling and normalisation. So any resize,
    crop, pad or crop percentage that a processor knows is replayed exactly. Randomness is torch's global generator,
    which data-loader workers seed.

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
        self.image_column, self.saliency_column, self.label_column = image_column, saliency_column, label_column
        self.read_label, self.require_label = read_label or LabelReader(label_column), require_label
        self.random_crop_scale = random_crop_scale
        self.horizontal_flip = horizontal_flip
        self.color_jitter = color_jitter
        self.annotators = annotators
        self.tokens: dict[str, str | bool | None] | None = None

    def __call__(self, row: dict[str, Any], generator: np.random.Generator | None = None) -> dict[str, Any]:
        """
        Model inputs of one row: `pixel_values` (channels, height, width); `labels`, as [`LabelReader`] gives them, if
        the row has any; `saliency`, unless maps are left out: float32 (1, height, width) in [0, 1], or `None` for a
        row without a map, with a blank map, or whose marked region the random crop has cut away.

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
        try:
            if isinstance(saliency, (list, tuple)):
                generator = generator or _from_torch()
                saliency = annotators_map(saliency, bands[0].size, self.annotators, generator, self.tokens)
            elif saliency is not None:
                picture = decoded(saliency, self.tokens)
                saliency = saliency_map(picture, bands[0].size, stretch=not self._only_resizes)
        except DataError as error:
            raise DataError(f"column {self.saliency_column!r}: {error}") from error.__cause__
        bands, saliency = self._augment(bands, saliency, generator)

        inputs: dict[str, Any] = {"pixel_values": self._process(bands)}
        if self.saliency_column is not None:
            inputs["saliency"] = (
                None if saliency is None else self._process_map(saliency, inputs["pixel_values"].shape)
            )
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

    def _process(self, bands: list[Image.Image]) -> torch.Tensor:
        if len(bands) == 1:
            return self._process_band(bands[0])
        statistics = {name: getattr(self.processor, name, None) for name in ("image_mean", "image_std")}
        # Of another length only where nothing is normalised.
        each = {
            name: list(values)
            for name, values in statistics.items()
            if isinstance(values, (list, tuple)) and len(values) == len(bands)
        }
        processed = [
            self._process_band(band, **{name: [values[index]] for name, values in each.items()})
            for index, band in enumerate(bands)
        ]
        return torch.cat(processed)

    def _process_band(self, image: Image.Image, **overrides: Any) -> torch.Tensor:
        # A grey picture goes in as (1, height, width): processors take a bare 2-d array for one with channels last.
        array = np.array(image) if image.mode == "RGB" else np.array(image)[None]  # copies, which torch may write to
        channels = "channels_last" if image.mode == "RGB" else "channels_first"
        output = self.processor(images=array, input_data_format=channels, return_tensors="pt", **overrides)
        return output["pixel_values"][0].float()

    def _process_map(self, saliency: Image.Image, shape: torch.Size) -> torch.Tensor | None:
        size = shape[-2:]
        if self._only_resizes:
            values = _resized(saliency, size)
            # In place: with small pictures, what a map costs is memory.
            return values.float().div_(255) if values.any() else None
        values = self._replayed(saliency)
        if values.shape[-2:] != size:
            raise DataError(
                f"{type(self.processor).__name__} makes pictures of {tuple(size)} but maps of "
                f"{tuple(values.shape[-2:])}; it can't be replayed on maps."
            )
        return values.div_(255).clamp_(0, 1) if values.max() > 0 else None

    def _replayed(self, saliency: Image.Image, channels: int | None = None) -> torch.Tensor:
        """The processor's own geometry of a map, from 0 to 255."""
        channels = channels or self._map_channels
        image = saliency.convert("RGB") if channels == 3 else saliency
        return self._process_band(image, **geometry_only(self.processor, channels))[:1]

    @cached_property
    def _only_resizes(self) -> bool:
        """Whether the processor does to noise what a plain resize does, pixel for pixel."""
        return self._same_on_noise(
            self._replayed, lambda noise: _resized(noise, self._replayed(noise).shape[-2:]).float()
        )

    @cached_property
    def _map_channels(self) -> int:
        """One channel where the processor takes one and does to it what it does to three, which costs three times."""
        if self.num_channels != 3:
            return 1
        return (
            1 if self._same_on_noise(partial(self._replayed, channels=1), partial(self._replayed, channels=3)) else 3
        )

    @staticmethod
    def _same_on_noise(
        way: Callable[[Image.Image], torch.Tensor], other: Callable[[Image.Image], torch.Tensor]
    ) -> bool:
        noise = np.random.default_rng(0).integers(0, 256, (640, 640), dtype=np.uint8)
        try:
            return all(
                torch.equal(way(picture), other(picture))
                for picture in (Image.fromarray(noise[:height, :width].copy()) for width, height in PROBES)
            )
        except (IndexError, RuntimeError, TypeError, ValueError):  # one of the ways can't be gone
            return False

    def _augment(
        self, bands: list[Image.Image], saliency: Image.Image | None, generator: np.random.Generator | None
    ) -> tuple[list[Image.Image], Image.Image | None]:
        if self.random_crop_scale is None and not self.horizontal_flip and not self.color_jitter:
            return bands, saliency
        if generator is None:
            generator = _from_torch()
        if self.random_crop_scale is not None:
            box = random_box(bands[0].size, self.random_crop_scale, generator)
            saliency = saliency and crop_map(saliency, box, bands[0].size)
            bands = [band.crop(box) for band in bands]
        if generator.random() < self.horizontal_flip:
            mirror = Image.Transpose.FLIP_LEFT_RIGHT
            bands, saliency = [band.transpose(mirror) for band in bands], saliency and saliency.transpose(mirror)
        if self.color_jitter:
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                factor = 1 + generator.uniform(-self.color_jitter, self.color_jitter)
                bands = [enhance(band).enhance(factor) for band in bands]
        return bands, saliency


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


def _resized(grey: Image.Image, size: torch.Size) -> torch.Tensor:
    """A grey picture at (height, width), as (1, height, width) of whole numbers from 0 to 255."""
    height, width = size
    return torch.from_numpy(np.array(grey.resize((width, height), Image.Resampling.BILINEAR)))[None]


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
            return [picture.convert("RGB" if num_channels == 3 else "L")]
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
