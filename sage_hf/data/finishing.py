"""The last steps of training pictures and maps, in whole batches, on the device: mirroring, jitter, normalising."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHANGES = "row_changes"
"""Key of a row, and of a batch, whose pictures are unfinished: (1,) or (4,), see [`Finish`]."""


class Finish:
    """
    Finishes batches of unfinished pictures: values from 0 to 255 at their final size, as [`AlignedTransform`] leaves
    them where it is asked to. They are a quarter of the finished ones to collate, to pin and to send to a device.

    What comes out is what the transform would have made of each row, bit for bit. That holds for the arithmetic of
    PIL's blending as well, whose values are cut to whole numbers: products and sums are rounded one by one.

    Args:
        values (`torch.Tensor`): what becomes of each value from 0 to 255 in each channel: float32, (channels, 256).

    Example:

    ```python
    >>> import torch
    >>> from sage_hf.data.finishing import CHANGES, Finish
    >>> finish = Finish(torch.arange(256.0)[None] / 255)
    >>> pictures = torch.tensor([[[[0, 100]]], [[[0, 100]]]], dtype=torch.uint8)
    >>> mirrored_and_brighter = torch.tensor([[1, 1.5, 1, 1], [0, 1.0, 1, 1]])
    >>> (finish({"pixel_values": pictures, CHANGES: mirrored_and_brighter})["pixel_values"] * 255).flatten().tolist()
    [150.0, 0.0, 0.0, 100.0]

    ```
    """

    def __init__(self, values: Tensor):
        # A device may multiply by the inverse of 255 where the processor divides: the last bit differs.
        self._tables = torch.cat([values, torch.arange(256.0)[None] / 255])

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """
        A batch with `pixel_values`, float32, (batch, channels, height, width), and `saliency`, if it has any, float32,
        (batch, 1, height, width) in [0, 1]; one whose pictures are finished stays as it is.

        Args:
            batch (`dict`): `pixel_values`, uint8, (batch, channels, height, width); `saliency`, uint8 or finished but
                for the mirroring; and what is to become of each row, float32, (batch, 1 or 4): above 0 to mirror it,
                and factors of brightness, contrast and saturation, see [`~sage_hf.data.jitter.jittered`].
        """
        if CHANGES not in batch:
            return batch
        finished = {name: value for name, value in batch.items() if name != CHANGES}
        changes, pictures = batch[CHANGES], batch["pixel_values"]
        pictures = _mirrored(pictures, changes)
        if changes.shape[1] > 1:
            pictures = jitter(pictures, changes[:, 1:])
        self._tables = self._tables.to(pictures.device)
        finished["pixel_values"] = _looked_up(self._tables[:-1], pictures)
        if "saliency" in batch:
            maps = _mirrored(batch["saliency"], changes)
            finished["saliency"] = maps if maps.is_floating_point() else _looked_up(self._tables[-1:], maps)
        return finished


def _looked_up(tables: Tensor, pictures: Tensor) -> Tensor:
    """Values (batch, channels, height, width) by a table for each channel, (channels, 256)."""
    found = torch.empty(pictures.shape, device=pictures.device)
    for channel, values in enumerate(tables):  # one by one: indices take four times the pictures' memory
        one = pictures[:, channel]
        found[:, channel] = values.index_select(0, one.flatten().int()).view(one.shape)
    return found


def _mirrored(pictures: Tensor, changes: Tensor) -> Tensor:
    """Those rows mirrored whose first change is above 0."""
    return torch.where(changes[:, :1, None, None] > 0, pictures.flip(-1), pictures)


def jitter(pictures: Tensor, factors: Tensor) -> Tensor:
    """
    As [`~sage_hf.data.jitter.jittered`], of a whole batch.

    Args:
        pictures (`torch.Tensor`): uint8, (batch, channels, height, width), of one channel or of red, green and blue.
        factors (`torch.Tensor`): of brightness, contrast and saturation, float32, (batch, 3).
    """
    brightness, contrast, saturation = factors.view(-1, 3, 1, 1, 1).unbind(dim=1)
    pictures = _blended(pictures.new_zeros(()), pictures, brightness)
    grey = _grey(pictures).flatten(1).long()
    pixels = grey.shape[1]
    mean = (2 * grey.sum(dim=1) + pixels) // (2 * pixels)  # halves go up
    pictures = _blended(mean.view(-1, 1, 1, 1), pictures, contrast)
    return pictures if pictures.shape[1] == 1 else _blended(_grey(pictures), pictures, saturation)


def _blended(start: Tensor, end: Tensor, factor: Tensor) -> Tensor:
    """As `PIL.Image.blend`: from start to end by a factor, and beyond; cut to whole numbers from 0 to 255."""
    start, end = start.float(), end.float()
    return (start + factor * (end - start)).clamp_(0, 255).byte()


def _grey(pictures: Tensor) -> Tensor:
    """(batch, 1, height, width), as PIL converts to grey: by weights of ITU-R 601-2 in units of 1 / 65,536."""
    if pictures.shape[1] == 1:
        return pictures
    red, green, blue = pictures.int().unbind(dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).byte().unsqueeze(1)
