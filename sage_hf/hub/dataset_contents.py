"""One pass over what is about to be published: secrets, sizes, where the maps come from, and rows for the card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from PIL import Image

from ..data.labels import class_names_of
from ..data.saliency import DataError, saliency_array
from ..visualization import CELL, grid
from .dataset_files import DatasetFiles, is_picture, leaves
from .secrets import check_text, holds_token

SOURCE_COLUMN = "saliency_source"
MAX_CLASSES = 12
"""Rows of the sheet of samples."""
OVERLAY = (230, 30, 60)


@dataclass
class Contents:
    """
    What the pass found.

    Args:
        rows (`dict[str, int]`): of each split.
        bytes (`dict[str, int]`): of each split, uncompressed.
        sources (`dict[str, int]`): maps of each value of the column `saliency_source`; empty without it.
        samples (`dict[str, list]`): stored pictures with their stored maps, of each class.
    """

    rows: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[tuple[Any, list[Any]]]] = field(default_factory=dict)


def inspect(
    files: DatasetFiles, image_column: str, saliency_column: str, label_column: str, samples_a_class: int
) -> Contents:
    """
    Read everything once.

    Args:
        files ([`DatasetFiles`]): what will be published.
        image_column (`str`): pictures.
        saliency_column (`str`): maps.
        label_column (`str`): classes.
        samples_a_class (`int`): how many annotated rows of each class to keep: the first ones.

    Raises:
        [`DataError`]: a string or a picture holds a Hub token, or a string the path of the home folder.
    """
    contents = Contents()
    names = class_names_of(files.features[label_column]) if label_column in files.features else None
    if names is not None and samples_a_class:
        contents.samples = {name: [] for name in names[:MAX_CLASSES]}
    for split, start, table in files.batches():
        contents.rows[split] += len(table)
        contents.bytes[split] += table.nbytes
        for column in table.column_names:
            for where, array in leaves(column, table[column]):
                _check_secrets(f"{split}, rows {start} to {start + len(table) - 1}, column {where!r}", array)
        if SOURCE_COLUMN in table.column_names:
            values = table[SOURCE_COLUMN].to_pylist()
            # Of several annotators, one for each map.
            each = (one for value in values for one in (value if isinstance(value, list) else [value]))
            contents.sources.update(one for one in each if one is not None)
        open_classes = {name for name, rows in contents.samples.items() if len(rows) < samples_a_class}
        if open_classes and saliency_column in table.column_names:
            assert names is not None
            _add_samples(contents, table, (image_column, saliency_column, label_column), names, samples_a_class)
    return contents


def _check_secrets(where: str, array: pa.Array) -> None:
    if is_picture(array.type):
        # Names and bytes; a home folder of five letters may stand in compressed bytes by chance, a token can't.
        _check_secrets(f"{where}, the pictures' names", array.field("path"))
        array = array.field("bytes")
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        try:
            check_text(where, "\n".join(text for text in array.to_pylist() if text is not None).encode())
        except ValueError as error:
            raise DataError(str(error)) from None
    elif (pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)) and any(
        value.is_valid and holds_token(value.as_py()) for value in array
    ):
        raise DataError(f"{where} holds a Hub token, in a file's metadata. Remove it, and revoke the token.")


def _add_samples(
    contents: Contents, table: pa.Table, columns: tuple[str, str, str], names: list[str], count: int
) -> None:
    image_column, saliency_column, label_column = columns
    labels = table[label_column].to_pylist()
    for index, label in enumerate(labels):
        classes = {
            names[one] for one in (label if isinstance(label, list) else [label]) if one is not None and one >= 0
        }
        wanted = [name for name in classes if name in contents.samples and len(contents.samples[name]) < count]
        if not wanted:
            continue
        maps = table[saliency_column][index].as_py()
        maps = [one for one in (maps if isinstance(maps, list) else [maps]) if one is not None]
        if any(_values(one) is not None for one in maps):
            contents.samples[sorted(wanted)[0]].append((table[image_column][index].as_py(), maps))


def _values(stored: Any) -> np.ndarray | None:
    """A map in [0, 1]; `None` for one that can't be read, which the checks tell about."""
    try:
        return saliency_array(datasets.Image().decode_example(stored))
    except (DataError, OSError, ValueError):
        return None


def sample_sheet(contents: Contents, samples_a_class: int) -> Image.Image | None:
    """
    Pictures, and paler with their maps in red, a row a class; `None` if there are none.

    Several annotators' maps are averaged for it.
    """
    rows, labels = [], []
    blank = Image.new("RGB", (CELL, 1), (255, 255, 255))
    for name, samples in contents.samples.items():
        cells: list[Image.Image] = []
        for stored, maps in samples:
            cells.extend(_pair(stored, maps))
        if cells:
            rows.append(cells + [blank] * (2 * samples_a_class - len(cells)))
            labels.append(name)
    return grid(rows, ["image", "with its map"] * samples_a_class, labels) if rows else None


def _pair(stored: Any, maps: list[Any]) -> Iterator[Image.Image]:
    picture = datasets.Image().decode_example(stored).convert("RGB")
    picture.thumbnail((CELL, CELL))
    values = [
        np.asarray(Image.fromarray(one).resize(picture.size, Image.Resampling.BILINEAR))
        for one in map(_values, maps)
        if one is not None
    ]
    opacity = 0.75 * np.mean(values, axis=0)[..., None]
    grey = (
        0.5 * np.asarray(picture.convert("L"), dtype=np.float32)[..., None] + 110
    )  # pale, so that the red stands out
    drawn = (1 - opacity) * grey + opacity * np.array(OVERLAY, dtype=np.float32)
    yield picture
    yield Image.fromarray(drawn.round().clip(0, 255).astype(np.uint8))
