"""A map as a PNG file that is read quickly."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable

import numpy as np
from PIL.PngImagePlugin import PngInfo, putchunk

NO_FILTER, UP = 0, 2
"""Numbers of the filters in PNG's specification (ISO/IEC 15948, 9.2): a row as it is; less the row above it."""


def grey_png(values: np.ndarray, notes: dict[str, str] | None = None) -> bytes:
    """
    A grey picture of 8 bits as a PNG file, with one filter for all of its rows: the smaller of two files.

    Any reader takes it for what it is. PIL's own writer chooses among all filters row by row, which for a smooth heat
    map is mostly the costly Paeth filter: its files are larger and take about twice as long to read, see
    `training/benchmarks/pipeline.json`.

    Args:
        values (`numpy.ndarray`): uint8, (height, width).
        notes (`dict[str, str]`, *optional*): texts to be kept in the file.

    Example:

    ```python
    >>> import io
    >>> import numpy as np
    >>> from PIL import Image
    >>> from sage_hf.data.map_png import grey_png
    >>> file = grey_png(np.array([[0, 7], [255, 3]], dtype=np.uint8))
    >>> np.asarray(Image.open(io.BytesIO(file))).tolist()
    [[0, 7], [255, 3]]

    ```
    """
    height, width = values.shape
    above = np.zeros_like(values)
    above[1:] = values[:-1]
    content = min((_compressed(NO_FILTER, values), _compressed(UP, values - above)), key=len)
    texts = PngInfo()
    for key, text in (notes or {}).items():
        texts.add_text(key, text)
    header = b"".join(number.to_bytes(4, "big") for number in (width, height)) + bytes((8, 0, 0, 0, 0))
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    chunks: Iterable[tuple[bytes, bytes]] = [(b"IHDR", header), *((one[0], one[1]) for one in texts.chunks)]
    for kind, data in (*chunks, (b"IDAT", content), (b"IEND", b"")):
        putchunk(file, kind, data)
    return file.getvalue()


def _compressed(kind: int, rows: np.ndarray) -> bytes:
    return zlib.compress(np.pad(rows, ((0, 0), (1, 0)), constant_values=kind).tobytes())
