"""A picture of a row as it is stored or decoded, and the map of one or several annotators."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
from PIL import Image

from .annotations import combine_saliency
from .saliency import DataError, saliency_map

ANNOTATORS = ("random", "mean", "union", "intersection")
"""How the maps of several annotators become one."""


def decoded(picture: Any, tokens: dict[str, str | bool | None] | None = None) -> Any:
    """
    The picture that a row holds.

    Args:
        picture: `{"bytes": ..., "path": ...}`, as `datasets` stores it; anything else is returned as it is.
        tokens (`dict`, *optional*): access tokens by Hub repository, for paths that lead there.

    Returns:
        `PIL.Image.Image`: in its own mode, turned upright by its EXIF tag.

    Raises:
        [`DataError`]: it can't be read.
    """
    if not isinstance(picture, dict):
        return picture
    try:
        return datasets.Image().decode_example(picture, token_per_repo_id=tokens)
    except Exception as error:  # any decoder may raise anything on a damaged file
        file = f" ({picture['path']})" if picture.get("path") else ""
        reason = re.sub(r" <_io\.BytesIO object at \w+>", "", str(error))  # PIL's name for what has no file
        raise DataError(
            f"the picture{file} can't be read: {type(error).__name__}: {reason}. Replace or remove it."
        ) from error


def annotators_map(
    maps: Sequence[Any],
    picture_size: tuple[int, int],
    how: str,
    generator: np.random.Generator,
    tokens: dict[str, str | bool | None] | None = None,
) -> Image.Image | None:
    """
    One map of several annotators'. An annotator whose map is missing or blank did not mark the picture, and does not
    count.

    Args:
        maps (`Sequence`): pictures as [`decoded`] takes them, or `None`.
        picture_size (`tuple[int, int]`): (width, height) of their picture.
        how (`str`): `"random"`, the map of one of those who marked something; `"mean"`, `"union"` or
            `"intersection"`, see [`combine_saliency`].
        generator (`numpy.random.Generator`): draws the annotator; used by `"random"` alone.
        tokens (`dict`, *optional*): as for [`decoded`].

    Returns:
        `PIL.Image.Image`: as [`saliency_map`] gives it, of the picture's size; `None` if nobody marked anything, or if
        an intersection is empty.

    Raises:
        [`DataError`]: a map that can't be used; the message says whose, counted from 0.

    Example:

    ```python
    >>> import numpy as np
    >>> from PIL import Image
    >>> from sage_hf.data.row_pictures import annotators_map
    >>> left, right = (Image.frombytes("L", (2, 1), bytes(row)) for row in ([10, 0], [5, 5]))
    >>> list(annotators_map([left, None, right], (2, 1), "mean", np.random.default_rng(0)).tobytes())
    [255, 128]

    ```
    """
    order = generator.permutation(len(maps)) if how == "random" else range(len(maps))
    found: list[np.ndarray] = []
    for annotator in order:
        try:
            picture = decoded(maps[annotator], tokens)
            grey = None if picture is None else saliency_map(picture, picture_size)
        except DataError as error:
            raise DataError(f"annotator {annotator}: {error}") from error.__cause__
        if grey is not None and how == "random":
            return grey
        if grey is not None:
            found.append(np.asarray(grey, dtype=np.float32) / 255)
    combined = combine_saliency(found, how) if found else None  # type: ignore[arg-type]  # random has returned
    return None if combined is None else Image.fromarray(np.round(combined * 255).astype(np.uint8))
