"""Rows to a batch: maps where there are maps, and a mask that says where."""

from __future__ import annotations

from typing import Any

import torch

from .finishing import CHANGES


class SaliencyCollator:
    """
    Stacks transformed rows. Rows without a map get zeros there, and the mask tells them apart.

    The batch has `pixel_values` (batch, channels, height, width); `saliency` (batch, 1, height, width) in [0, 1];
    `saliency_mask` (batch,), booleans; `saliency_known` (batch,), booleans, true as well of rows where somebody looked
    and marked nothing; and `labels`, (batch,) or (batch, labels), if the rows have `labels` or `label`. Whether it has
    maps at all depends on the transform, not on the rows: all processes of a distributed run see the same keys.
    Beside pictures that are unfinished it has `row_changes`, see [`~sage_hf.data.finishing.Finish`].

    Raises:
        `ValueError`: pictures of different sizes.

    Example:

    ```python
    >>> import torch
    >>> from sage_hf import SaliencyCollator
    >>> picture = torch.zeros(3, 4, 4)
    >>> row = {"pixel_values": picture, "saliency": torch.ones(1, 4, 4)}
    >>> SaliencyCollator()([row, row | {"saliency": None}])["saliency_mask"].tolist()
    [True, False]

    ```
    """

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pictures = [row["pixel_values"] for row in rows]
        sizes = sorted({tuple(picture.shape) for picture in pictures})
        if len(sizes) > 1:
            raise ValueError(
                f"The pictures of a batch have different sizes: {sizes}. Set a fixed size, or do_center_crop, in the "
                "image processor."
            )
        pixel_values = torch.stack(pictures)
        batch = {"pixel_values": pixel_values}
        if "saliency" in rows[0]:
            maps = [row["saliency"] for row in rows]
            like = next((saliency for saliency in maps if saliency is not None), pixel_values)
            blank = like.new_zeros(1, *pixel_values.shape[-2:])
            batch["saliency"] = torch.stack([blank if saliency is None else saliency for saliency in maps])
            batch["saliency_mask"] = torch.tensor([saliency is not None for saliency in maps])
            known = [row.get("saliency_known", saliency is not None) for row, saliency in zip(rows, maps, strict=True)]
            batch["saliency_known"] = torch.tensor(known)
        if CHANGES in rows[0]:
            batch[CHANGES] = torch.stack([row[CHANGES] for row in rows])
        for name in ("labels", "label"):
            if name in rows[0]:
                labels = torch.stack([torch.as_tensor(row[name]) for row in rows])
                batch["labels"] = labels.float() if labels.is_floating_point() else labels
                break
        return batch
