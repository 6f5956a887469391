"""Which kind of annotations a file or folder holds."""

from __future__ import annotations

from pathlib import Path

from ..saliency import DataError
from .annotation_tables import POINT_COLUMNS, AnnotationTable, box_columns
from .coco import CocoFile, is_coco
from .files import FileIndex, check_file
from .folders import MapFolder
from .rows import AnnotationSource
from .source import Source
from .tables import Table, read_json
from .voc import VocFolder


def annotation_source(path: Path, source: Source) -> AnnotationSource:
    """
    Open annotations, as the kind that `source.annotation_format` names or the content tells.

    Raises:
        [`~sage_hf.data.DataError`]: nothing is there, or what is there is of no known kind.
    """
    kind = source.annotation_format
    if path.is_dir():
        if kind not in ("auto", "maps", "voc"):
            raise DataError(f"{path} is a folder, and {kind} annotations are a file.")
        maps = MapFolder(path, source.mask_classes)
        if kind == "maps" or (kind == "auto" and (maps.files.names or not FileIndex(path, (".xml",), "files").names)):
            return maps
        return VocFolder(path, source.categories)
    check_file(path)
    if kind in ("maps", "voc"):
        raise DataError(f"{path} is a file, and {kind} annotations are a folder.")
    if kind == "coco" or (kind == "auto" and path.suffix.lower() == ".json" and is_coco(read_json(path))):
        return CocoFile(path, source.categories)
    table = Table(path)
    if kind == "auto":
        kind = _kind_of_table(table, source.box_format)
    return AnnotationTable(
        table,
        kind,
        file_column=source.file_column or source.id_column,
        box_format=source.box_format,
        normalised=source.normalised,
        sigma=source.sigma_in_pixels,
        categories=source.categories,
    )


def _kind_of_table(table: Table, box_format: str | None) -> str:
    # Boxes first: x, y, width and height hold an x and a y as well.
    if box_columns(table.columns, box_format) is not None:
        return "boxes"
    if any(set(group) <= set(table.columns) for group in POINT_COLUMNS):
        return "fixations"
    raise DataError(
        f"{table.path}: neither boxes nor fixations among the columns {', '.join(table.columns) or '(none)'}. Boxes "
        "are called x_min y_min x_max y_max, x y width height or cx cy w h; fixations x and y."
    )
