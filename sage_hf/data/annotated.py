"""Which rows of a dataset have a map."""

from __future__ import annotations

import datasets


def rows_with_map(split: datasets.Dataset, saliency_column: str) -> list[int]:
    """
    Indices of the rows that have a map; without decoding any, for there may be few maps among many pictures.

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
        for row, valid in enumerate(table.column(saliency_column).is_valid().to_pylist())
        if valid
    ]
