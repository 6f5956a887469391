"""Rows that were looked at, as one picture."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ..visualization import CELL, HEADERS, grid
from .records import Label, Prediction, RowRecord
from .rows import Looked

VIEW_HEADERS = {"positive": "x+ keeps it", "negative": "x- removes it"}
BLANK = Image.new("L", (CELL, CELL), 235)
"""In place of what a row does not have."""


def sheet(looked: Looked) -> Image.Image:
    """
    The rows of which there are pictures, the worst first: image, map, where each model looks, views, degradations.

    What no row has gets no column; a row's missing pictures are grey.

    Args:
        looked ([`Looked`]): with pictures.

    Raises:
        `ValueError`: there are no pictures.
    """
    if not looked.pictures:
        raise ValueError("There are no pictures to draw: look at rows with count=1 or more.")
    rows = [looked.pictures[record.row] for record in looked.records[: len(looked.pictures)]]
    columns: dict[str, list[Image.Image | None]] = {"image": [one.image for one in rows]}
    columns["marked" if rows[0].looks else "saliency"] = [one.marked if one.looks else one.saliency for one in rows]
    for index in range(len(rows[0].looks)):
        which = f" {index + 1}" if len(rows[0].looks) > 1 else ""
        for method, header in HEADERS.items():
            columns[header + which] = [one.looks[index].get(method) for one in rows]
    for view, header in VIEW_HEADERS.items():
        columns[header] = [one.views.get(view) for one in rows]
    for name in rows[0].degraded:
        columns[name] = [one.degraded.get(name) for one in rows]
    shown = {header: cells for header, cells in columns.items() if any(cell is not None for cell in cells)}
    cells = [[column[place] or BLANK for column in shown.values()] for place in range(len(rows))]
    headers = [title(record) for record in looked.records[: len(rows)]]
    return grid(cells, list(shown), headers)


def title(record: RowRecord) -> str:
    """A row's number, label and first prediction, in a few words."""
    said = f"{record.row}: {in_words(record.label)}" if record.label is not None else str(record.row)
    if not record.models:
        return said
    found = in_words(record.models[0].predictions["anchor"].label)
    return f"{said}, said {found}"


def in_words(label: Label) -> str:
    """A label for a person to read."""
    if isinstance(label, list):
        return ", ".join(in_words(one) for one in label) or "none"
    if isinstance(label, float):
        return f"{label:.4g}"
    return "none" if label is None else label


def said(prediction: Prediction) -> str:
    """A prediction for a person to read."""
    words = in_words(prediction.label)
    return words if prediction.confidence is None else f"{words} ({prediction.confidence:.2f})"


SOFTWARE = "sage_hf"
"""What stands in a sheet's PNG under `Software`, by which its writer knows its own files."""


def save_sheet(image: Image.Image, path: str | Path) -> None:
    """
    Write a sheet as PNG; one that an earlier call wrote is replaced.

    Args:
        image (`PIL.Image.Image`): the sheet.
        path (`str` or `Path`): of the file; its folder is made if missing.

    Raises:
        `FileExistsError`: something else is there, and stays.
    """
    path = Path(path)
    check_own_sheet(path)
    notes = PngInfo()
    notes.add_text("Software", SOFTWARE)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "PNG", pnginfo=notes, optimize=True)


def check_own_sheet(path: str | Path) -> None:
    """
    Make sure that a sheet may be written somewhere, before any work is done for it.

    Raises:
        `FileExistsError`: what is there was not written by [`save_sheet`].
    """
    path = Path(path)
    if not path.exists() and not path.is_symlink():
        return
    if path.is_file() and not path.is_symlink():
        try:
            with Image.open(path, formats=("PNG",)) as found:
                own = found.info.get("Software") == SOFTWARE
        except (UnidentifiedImageError, OSError):
            own = False
        if own:
            return
    raise FileExistsError(f"{path} is there already, and is no grid of sage_hf. Choose another file, or move it away.")
