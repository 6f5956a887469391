"""What a saliency map is: reading one from a picture file's values, whatever their format."""

from __future__ import annotations

import numpy as np
from PIL import Image


class DataError(ValueError):
    """Something in a dataset that training can't use; the message says where it is and how to mend it."""


def saliency_array(image: Image.Image) -> np.ndarray | None:
    """
    The values of a saliency map, relative to its own maximum.

    Saliency is relative: 0 is irrelevant, the map's maximum is 1. So 8-bit, 16-bit and floating-point files come out
    alike; PIL's own `convert("L")` would saturate 16 bits and turn floats in [0, 1] into zeros.

    Args:
        image (`PIL.Image.Image`):
            One channel of any depth (modes `1`, `L`, `I`, `I;16`, `F`), or a grey picture stored as colours or
            palette.

    Returns:
        `numpy.ndarray`: float32, (height, width), in [0, 1] with a maximum of 1; `None` for a blank map, which marks
        nothing and so says as much as no map.

    Raises:
        [`DataError`]: NaN, infinite or negative values, or colours (a heat map drawn with a colour scale has lost the
            order of its values).

    Example:

    ```python
    >>> from PIL import Image
    >>> from sage_hf.data import saliency_array
    >>> saliency_array(Image.frombytes("L", (3, 1), bytes([0, 50, 100]))).tolist()
    [[0.0, 0.5, 1.0]]

    ```
    """
    values = np.asarray(image.convert("RGBA") if image.mode in ("P", "PA") else image)
    if values.ndim == 3:
        if image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa") and (values[..., -1] != values[0, 0, -1]).any():
            raise DataError(
                f"the map is partly transparent (mode {image.mode}). Put it on a black ground, without alpha."
            )
        colours = values[..., : 1 if image.mode in ("LA", "La") else 3]
        if (colours != colours[..., :1]).any():
            raise DataError(
                f"the map has colours (mode {image.mode}); a saliency map has one value a pixel. Save the map's "
                "values as a grey picture."
            )
        values = colours[..., 0]
    return relative_saliency(values)


def relative_saliency(values: np.ndarray) -> np.ndarray | None:
    """
    Values of any scale, relative to their own maximum.

    Args:
        values (`numpy.ndarray`): (height, width), boolean, whole or floating-point numbers from 0 on.

    Returns:
        `numpy.ndarray`: float32, (height, width), in [0, 1] with a maximum of 1; `None` if all are 0.

    Raises:
        [`DataError`]: NaN, infinite or negative values.

    Example:

    ```python
    >>> import numpy as np
    >>> from sage_hf.data.saliency import relative_saliency
    >>> relative_saliency(np.array([[0, 1, 4]])).tolist()
    [[0.0, 0.25, 1.0]]

    ```
    """
    # 64 bits hold what 32 would round to zero or infinity; they are not spent on files that have no more than 32.
    with np.errstate(over="ignore"):
        values = values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)
    if not np.isfinite(values).all():
        raise DataError("the map has NaN or infinite values. Replace them (0 is irrelevant).")
    highest, lowest = values.max(initial=0.0), values.min(initial=0.0)
    if lowest < 0:
        raise DataError(f"the map has negative values (lowest {lowest:g}). Shift it so that 0 is irrelevant.")
    return (values / highest).astype(np.float32) if highest > 0 else None


def same_aspect(map_size: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """
    Whether a map covers its picture: the same shape at any resolution, up to a rounding of one pixel of the smaller.

    Args:
        map_size (`tuple[int, int]`): (width, height) in pixels.
        image_size (`tuple[int, int]`): (width, height) in pixels.
    """
    (map_width, map_height), (width, height) = map_size, image_size
    return abs(map_width * height - map_height * width) <= max(width, height, map_width, map_height)


def covering_saliency(image: Image.Image, picture_size: tuple[int, int]) -> np.ndarray | None:
    """
    [`saliency_array`] of a map that must cover a picture of (width, height) pixels after EXIF rotation.

    Raises:
        [`DataError`]: as [`saliency_array`], and where the map's aspect differs from the picture's.
    """
    _check_aspect(image.size, picture_size)
    return saliency_array(image)


def _check_aspect(size: tuple[int, int], picture_size: tuple[int, int]) -> None:
    if not same_aspect(size, picture_size):
        raise DataError(
            f"the map is {size[0]}x{size[1]}, its image {picture_size[0]}x{picture_size[1]}: their aspects "
            "differ, so the map can't cover the image. Was one of them cropped, or rotated by an EXIF tag that the "
            "other lacks?"
        )


def _stretched(image: Image.Image) -> Image.Image | None:
    """
    A grey picture of 8 bits with 255 at its maximum, `None` if it is black: what [`saliency_array`] gives, rounded to
    8 bits, by a table of 256 values in place of a computation for each pixel.
    """
    highest = int(np.asarray(image.getextrema()).max())
    if highest in (0, 255):
        return image if highest else None
    values = np.arange(256, dtype=np.float32) / highest
    return image.point(np.round(values.clip(max=1) * 255).astype(np.uint8).tolist())


def saliency_map(image: Image.Image, picture_size: tuple[int, int], *, stretch: bool = True) -> Image.Image | None:
    """
    A map as an 8-bit picture of the size of its image, ready to go through the image's own geometry.

    Args:
        image (`PIL.Image.Image`): the map, see [`saliency_array`].
        picture_size (`tuple[int, int]`): (width, height) of its image, after EXIF rotation.
        stretch (`bool`, *optional*, defaults to `True`): to the size of its image; if not, the map's own resolution.

    Returns:
        `PIL.Image.Image`: mode `L`, 255 at the map's maximum; `None` for a blank map.

    Raises:
        [`DataError`]: as [`covering_saliency`].
    """
    if image.mode == "L":
        _check_aspect(image.size, picture_size)
        grey = _stretched(image)
    else:
        values = covering_saliency(image, picture_size)
        grey = None if values is None else Image.fromarray(np.round(values * 255).astype(np.uint8))
    if grey is None or not stretch or grey.size == picture_size:
        return grey
    return grey.resize(picture_size, Image.Resampling.BILINEAR)
