"""What an image processor does to a picture and to its map, by the shortest way that gives the very same values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor

from .jitter import jittered
from .saliency import DataError


def geometry_only(processor: BaseImageProcessor, channels: int, resample: Any) -> dict[str, Any]:
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
        "resample": resample,
    }
    return settings | ({"rescale_offset": False} if hasattr(processor, "rescale_offset") else {})


PROBES = ((61, 37), (37, 61), (640, 400))
"""Sizes at which it is tried what a processor does: wide, tall, small and large."""

CONTRASTS = ((0, 256), (96, 128))
"""Ranges of the noise it is tried on: a processor that looks at a picture's own range treats the second otherwise."""


class Change(NamedTuple):
    """What becomes of a picture besides the processor's work."""

    mirrored: bool = False
    jitter: tuple[float, ...] = ()
    """Factors of brightness, contrast and saturation, see [`~sage_hf.data.jitter.jittered`]."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        if self.mirrored:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return jittered(picture, self.jitter) if self.jitter else picture


UNCHANGED = Change()


class _Parts(NamedTuple):
    """A processor as a geometry, and then a function of each pixel's own value."""

    values: np.ndarray
    """What becomes of each value from 0 to 255 in each channel: float32, (channels, 256)."""
    size: tuple[int, int] | None
    """(width, height), if the geometry is PIL's resize to it; otherwise the processor's own."""


class ProcessorReplay:
    """
    An image processor, applied to pictures and maps.

    Most processors resize, and then change each pixel by its own value. Whether one does is tried on noise, bit for
    bit. Where it does, a picture is resized once, mirrored and jittered at its final size, and its values are looked
    up: equal to the processor's own, without its copies of the whole picture. All others do their own work, after what
    is changed.

    Args:
        processor ([`~transformers.BaseImageProcessor`]): the checkpoint's.
        num_channels (`int`): of the model.

    Example:

    ```python
    >>> import torch
    >>> from PIL import Image
    >>> from sage_hf.data.replay import ProcessorReplay
    >>> from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    >>> processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
    >>> picture = Image.radial_gradient("L").convert("RGB")
    >>> own = processor(picture, return_tensors="pt")["pixel_values"][0]
    >>> torch.equal(ProcessorReplay(processor, 3).pixel_values([picture]), own)
    True

    ```
    """

    def __init__(self, processor: BaseImageProcessor, num_channels: int):
        self.processor, self.num_channels = processor, num_channels

    # ---- Pictures ----

    def pixel_values(self, bands: list[Image.Image], change: Change = UNCHANGED) -> torch.Tensor:
        """
        The model's input, float32, (channels, height, width).

        Args:
            bands (`list[PIL.Image.Image]`): one RGB or grey picture, or a grey one for each channel.
            change ([`Change`], *optional*): what else becomes of the picture.
        """
        if self._parts is not None and (self._parts.size is not None or any(change)):
            return _looked_up(self._parts.values, change(self._placed(bands[0], self._parts.size)))
        bands = [change(band) for band in bands]
        return self._processed(bands[0]) if len(bands) == 1 else self._bands_processed(bands)

    @property
    def values(self) -> torch.Tensor | None:
        """
        What becomes of each value from 0 to 255 in each channel of an unfinished picture: float32, (channels, 256);
        `None` where the processor can't be taken apart.
        """
        return None if self._parts is None else torch.from_numpy(self._parts.values)

    def unfinished(self, picture: Image.Image) -> torch.Tensor:
        """
        A picture at its final size, with values as they were: uint8, (channels, height, width).

        Args:
            picture (`PIL.Image.Image`): RGB or grey, where the processor can be taken apart.
        """
        assert self._parts is not None
        placed = np.array(self._placed(picture, self._parts.size))
        return torch.from_numpy(placed.reshape(*placed.shape[:2], -1)).permute(2, 0, 1).contiguous()

    @cached_property
    def _parts(self) -> _Parts | None:
        """`None` where the processor is more than a geometry and values, or changes a picture's colours or edges."""
        # Code from elsewhere may be random, or look at what noise doesn't have.
        if self.num_channels not in (1, 3) or not type(self.processor).__module__.startswith("transformers."):
            return None
        try:
            ramp = self._picture(np.arange(256, dtype=np.uint8).reshape(16, 16))
            values = self._processed(ramp, do_resize=False, do_center_crop=False, do_pad=False)
            table = values.reshape(self.num_channels, 256).numpy()
            probes = [self._picture(_noise(*size, *contrast)) for size in PROBES for contrast in CONTRASTS]
            expected = [self._processed(probe) for probe in probes]
            height, width = expected[0].shape[-2:]
            for size in ((width, height), None):
                placed = [self._placed(probe, size) for probe in probes]
                same = all(torch.equal(_looked_up(table, one), own) for one, own in zip(placed, expected, strict=True))
                if same and all(map(self._keeps, PROBES, [size] * len(PROBES))):
                    return _Parts(table, size)
        except (IndexError, RuntimeError, TypeError, ValueError):  # it can't be taken apart in this way
            pass
        return None

    def _picture(self, values: np.ndarray) -> Image.Image:
        """A picture of noise or of a ramp, with other values in each channel where these are noise."""
        if self.num_channels == 1:
            return Image.fromarray(values)
        shifted = [values if values.shape == (16, 16) else np.roll(values, 7 * channel) for channel in range(3)]
        return Image.fromarray(np.stack(shifted, axis=-1))

    def _keeps(self, probe: tuple[int, int], size: tuple[int, int] | None) -> bool:
        """Whether a picture of one colour stays one: no padding, no exchange of channels."""
        colour = (40, 90, 200) if self.num_channels == 3 else 90
        placed = self._placed(Image.new("RGB" if self.num_channels == 3 else "L", probe, colour), size)
        return placed.getextrema() == Image.new(placed.mode, (1, 1), colour).getextrema()

    def _placed(self, picture: Image.Image, size: tuple[int, int] | None) -> Image.Image:
        """A picture after the geometry, with values as they were."""
        resample = getattr(self.processor, "resample", None)
        resample = Image.Resampling.BILINEAR if resample is None else resample
        if size is not None:
            return picture.resize(size, resample)
        values = self._processed(picture, **geometry_only(self.processor, self.num_channels, resample))
        # Values between the whole ones would be cut, and so differ from the processor's.
        array = values.clamp(0, 255).byte().permute(1, 2, 0).numpy()
        return Image.fromarray(array[..., 0] if len(values) == 1 else np.ascontiguousarray(array))

    def _bands_processed(self, bands: list[Image.Image]) -> torch.Tensor:
        statistics = {name: getattr(self.processor, name, None) for name in ("image_mean", "image_std")}
        # Of another length only where nothing is normalised.
        each = {
            name: list(values)
            for name, values in statistics.items()
            if isinstance(values, (list, tuple)) and len(values) == len(bands)
        }
        processed = [
            self._processed(band, **{name: [values[index]] for name, values in each.items()})
            for index, band in enumerate(bands)
        ]
        return torch.cat(processed)

    def _processed(self, image: Image.Image, **overrides: Any) -> torch.Tensor:
        # A grey picture goes in as (1, height, width): processors take a bare 2-d array for one with channels last.
        array = np.array(image) if image.mode == "RGB" else np.array(image)[None]  # copies, which torch may write to
        channels = "channels_last" if image.mode == "RGB" else "channels_first"
        output = self.processor(images=array, input_data_format=channels, return_tensors="pt", **overrides)
        return output["pixel_values"][0].float()

    # ---- Maps ----

    def saliency(
        self, grey: Image.Image, size: torch.Size, *, mirrored: bool = False, finish: bool = True
    ) -> torch.Tensor | None:
        """
        A map after its picture's geometry, float32, (1, height, width) in [0, 1]; `None` if nothing marked is left.

        Args:
            grey (`PIL.Image.Image`): the map, 8 bits, of its picture's size; of any, where the processor only resizes.
            size (`torch.Size`): (height, width) of the processed picture.
            mirrored (`bool`, *optional*, defaults to `False`): whether its picture is.
            finish (`bool`, *optional*, defaults to `True`): otherwise, uint8 from 0 to 255 where that is at hand.

        Raises:
            [`DataError`]: the processor treats maps otherwise than pictures.
        """
        late = mirrored and self._parts is not None
        if mirrored and not late:
            grey = grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.only_resizes:
            values = _resized(grey, size)
            if not values.any():
                return None
        else:
            values = self._replayed(grey)
            if values.shape[-2:] != size:
                raise DataError(
                    f"{type(self.processor).__name__} makes pictures of {tuple(size)} but maps of "
                    f"{tuple(values.shape[-2:])}; it can't be replayed on maps."
                )
            if values.max() <= 0:
                return None
        values = values.flip(-1) if late else values
        if not finish and values.dtype == torch.uint8:
            return values
        # In place: with small pictures, what a map costs is memory.
        values = values.float().div_(255)
        return values if self.only_resizes else values.clamp_(0, 1)

    def _replayed(self, saliency: Image.Image, channels: int | None = None) -> torch.Tensor:
        """The processor's own geometry of a map, from 0 to 255."""
        channels = channels or self._map_channels
        image = saliency.convert("RGB") if channels == 3 else saliency
        return self._processed(image, **geometry_only(self.processor, channels, Image.Resampling.BILINEAR))[:1]

    @cached_property
    def only_resizes(self) -> bool:
        """Whether the processor does to a map of noise what a plain resize does, pixel for pixel."""
        return _same_on_noise(self._replayed, lambda noise: _resized(noise, self._replayed(noise).shape[-2:]).float())

    @cached_property
    def _map_channels(self) -> int:
        """One channel where the processor takes one and does to it what it does to three, which costs three times."""
        if self.num_channels != 3:
            return 1
        return 1 if _same_on_noise(partial(self._replayed, channels=1), partial(self._replayed, channels=3)) else 3


def _noise(width: int, height: int, lowest: int, end: int) -> np.ndarray:
    return np.random.default_rng(0).integers(lowest, end, (height, width), dtype=np.uint8)


def _same_on_noise(way: Callable[[Image.Image], torch.Tensor], other: Callable[[Image.Image], torch.Tensor]) -> bool:
    try:
        return all(
            torch.equal(way(picture), other(picture))
            for picture in (Image.fromarray(_noise(*size, *CONTRASTS[0])) for size in PROBES)
        )
    except (IndexError, RuntimeError, TypeError, ValueError):  # one of the ways can't be gone
        return False


def _looked_up(table: np.ndarray, picture: Image.Image) -> torch.Tensor:
    """A picture's values by a table (channels, 256), as (channels, height, width)."""
    pixels = np.asarray(picture).reshape(picture.height, picture.width, -1)
    values = np.empty((len(table), picture.height, picture.width), dtype=np.float32)
    for channel, row in enumerate(table):
        # No index is out of range; "clip" alone writes to `out` without a copy.
        np.take(row, pixels[..., channel], out=values[channel], mode="clip")
    return torch.from_numpy(values)


def _resized(grey: Image.Image, size: torch.Size) -> torch.Tensor:
    """A grey picture at (height, width), as (1, height, width) of whole numbers from 0 to 255."""
    height, width = size
    return torch.from_numpy(np.array(grey.resize((width, height), Image.Resampling.BILINEAR)))[None]
