"""Which rows of a dataset have a map."""

from __future__ import annotations

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def rows_with_map(split: datasets.Dataset, saliency_column: str) -> list[int]:
    """
    Indices of the rows that have a map, or a list with any; without decoding one, for there may be few maps among
    many pictures.

    Args:
        split (`datasets.Dataset`): any.
        saliency_column (`str`): the column; without it, no row has a map.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from sage_hf.data.annotated import rows_with_map
    >>> rows_with_map(Dataset.from_dict({"saliency": ["map.png", None, "other.png"]}), "saliency")
    [0, 2]

    ```
    """
    if saliency_column not in split.column_names:
        return []
    batches = split.select_columns([saliency_column]).with_format("arrow").iter(1000)
    return [
        1000 * batch + row
        for batch, table in enumerate(batches)
        for row, held in enumerate(_holds_map(table.column(saliency_column)))
        if held
    ]


def _holds_map(column: pa.ChunkedArray) -> list[bool]:
    """For each row; of lists, one map an annotator, whether any is there."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return column.is_valid().to_pylist()
    held = np.zeros(len(column), dtype=bool)
    lists = column.combine_chunks()
    held[
        pc.list_parent_indices(lists).to_numpy()[pc.list_flatten(lists).is_valid().to_numpy(zero_copy_only=False)]
    ] = True
    return held.tolist()
