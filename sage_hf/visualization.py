"""Pictures of pictures: what a map marks, and what the views keep and remove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

MARGIN, HEADER, CELL = 8, 26, 128
PAPER, INK = (255, 255, 255), (20, 20, 20)


def picture(pixel_values: Tensor, image_mean: Sequence[float], image_std: Sequence[float]) -> Image.Image:
    """
    Undo an image processor's normalisation.

    Args:
        pixel_values (`torch.Tensor`): (channels, height, width).
        image_mean (`Sequence[float]`): of each channel, pictures being in [0, 1].
        image_std (`Sequence[float]`): of each channel.

    Returns:
        `PIL.Image.Image`: RGB, or grey for one channel.
    """
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (image_mean, image_std))
    values = ((pixel_values.cpu().float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    return Image.fromarray(values[0] if len(values) == 1 else np.moveaxis(values, 0, -1))


def heat_map(saliency: Tensor) -> Image.Image:
    """A map (1, height, width) in [0, 1] as a grey picture."""
    return Image.fromarray((saliency[0].cpu() * 255).round().to(torch.uint8).numpy())


def view_grid(
    pixel_values: Tensor,
    saliency: Tensor,
    views: Sequence[Tensor],
    image_mean: Sequence[float],
    image_std: Sequence[float],
    view_headers: Sequence[str] = ("x+ keeps it", "x- removes it"),
) -> Image.Image:
    """
    Pictures, their maps and their views, a row for each picture.

    Args:
        pixel_values (`torch.Tensor`): (rows, channels, height, width), normalised; one or three channels.
        saliency (`torch.Tensor`): (rows, 1, height, width) in [0, 1].
        views (`Sequence[torch.Tensor]`): each as `pixel_values`; as many as there are headers for them are shown.
        image_mean (`Sequence[float]`): as for [`picture`].
        image_std (`Sequence[float]`): as for [`picture`].
        view_headers (`Sequence[str]`, *optional*): what the views are called.
    """
    shown = list(views)[: len(view_headers)]
    cells = [
        [
            picture(x, image_mean, image_std),
            heat_map(s),
            *(picture(view[row], image_mean, image_std) for view in shown),
        ]
        for row, (x, s) in enumerate(zip(pixel_values, saliency, strict=True))
    ]
    return grid(cells, ["image", "saliency", *view_headers])


HEADERS = {"cam": "activation map", "gradient": "input gradient"}


def overlaid(image: Image.Image, saliency: Tensor) -> Image.Image:
    """
    A picture in grey, dimmed where a map is 0 and tinted from yellow to red where it is not.

    Args:
        image (`PIL.Image.Image`): of the map's size.
        saliency (`torch.Tensor`): (height, width) in [0, 1].
    """
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255
    strength = saliency.cpu().float().numpy()[..., None]
    colour = np.concatenate([np.ones_like(strength), 1 - strength, np.zeros_like(strength)], axis=2)
    opacity = 0.6 * strength
    painted: np.ndarray = 255 * ((1 - opacity) * (0.15 + 0.6 * grey) + opacity * colour)
    return Image.fromarray(painted.astype(np.uint8))


def visible(saliency: Tensor, method: str) -> Tensor:
    """
    A model's map as it is drawn: in [0, 1], a gradient as far as its 99th percentile. A gradient has single pixels
    that are far larger than all others, which would leave these black.

    Args:
        saliency (`torch.Tensor`): (height, width), not negative.
        method (`str`): `"cam"` or `"gradient"`, see [`model_saliency`].
    """
    if method == "gradient" and (most := saliency.float().quantile(0.99)) > 0:
        saliency = saliency / most
    return saliency.clamp(0, 1)


def alignment_grid(
    pixel_values: Tensor,
    saliency: Tensor,
    looked: Mapping[str, Tensor],
    image_mean: Sequence[float],
    image_std: Sequence[float],
) -> Image.Image:
    """
    Pictures, what humans marked in them, and where a model looks, a row for each picture.

    Args:
        pixel_values (`torch.Tensor`): as for [`view_grid`].
        saliency (`torch.Tensor`): as for [`view_grid`].
        looked (`Mapping[str, torch.Tensor]`): (rows, height, width) in [0, 1], by the method of [`model_saliency`].
        image_mean (`Sequence[float]`): as for [`picture`].
        image_std (`Sequence[float]`): as for [`picture`].
    """
    cells = []
    for row, (x, s) in enumerate(zip(pixel_values, saliency, strict=True)):
        image = picture(x, image_mean, image_std)
        cells.append([image, overlaid(image, s[0]), *(overlaid(image, maps[row]) for maps in looked.values())])
    return grid(cells, ["image", "marked", *(HEADERS[method] for method in looked)])


def grid(
    rows: Sequence[Sequence[Image.Image]], headers: Sequence[str], row_headers: Sequence[str] = ()
) -> Image.Image:
    """
    Pictures in rows and columns under headers, each drawn 128 pixels wide with its own pixels visible.

    Args:
        rows (`Sequence[Sequence[PIL.Image.Image]]`): as many pictures in each row as there are headers.
        headers (`Sequence[str]`): one a column.
        row_headers (`Sequence[str]`, *optional*): one a row, drawn on its left; long ones are cut.

    Example:

    ```python
    >>> from PIL import Image
    >>> from sage_hf.visualization import grid
    >>> grid([[Image.new("L", (32, 32))] * 2], ["image", "saliency"]).size
    (280, 170)

    ```
    """
    font = ImageFont.load_default(size=14)
    texts = [_cut(text, font) for text in row_headers]
    left = MARGIN + round(max((font.getlength(text) for text in texts), default=-MARGIN)) + MARGIN
    columns = len(headers)
    cells = [[_drawn(cell) for cell in row] for row in rows]
    heights = [max(cell.height for cell in row) for row in cells]
    tops = [HEADER + MARGIN + sum(heights[:y]) + y * MARGIN for y in range(len(rows) + 1)]
    size = (left + columns * (CELL + MARGIN), tops[-1])
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, header in enumerate(headers):
        centre = left + column * (CELL + MARGIN) + CELL // 2
        draw.text((centre, (HEADER + MARGIN) // 2), header, fill=INK, font=font, anchor="mm")
    for y, text in enumerate(texts):
        draw.text((MARGIN, tops[y] + heights[y] // 2), text, fill=INK, font=font, anchor="lm")
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            corner = (left + x * (CELL + MARGIN), tops[y])
            sheet.paste(cell, (corner[0] + (CELL - cell.width) // 2, corner[1] + (heights[y] - cell.height) // 2))
    return sheet


def _drawn(cell: Image.Image) -> Image.Image:
    scale = CELL / max(cell.size)
    size = (max(1, round(cell.width * scale)), max(1, round(cell.height * scale)))
    return cell.convert("RGB").resize(size, Image.Resampling.NEAREST)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """A text no wider than a picture."""
    if font.getlength(text) <= CELL:
        return text
    while text and font.getlength(text + "...") > CELL:
        text = text[:-1]
    return text + "..."
