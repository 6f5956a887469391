"""Pascal VOC: an XML file of boxes a picture (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ..annotations import Boxes
from ..saliency import DataError
from .files import FileIndex
from .labels import number_of
from .rows import Entry, Found

XML_BYTES = 16_000_000
"""Largest file of annotations of one picture."""


class VocFolder:
    """
    The objects of the XML file that has its picture's relative path; an annotator draws a folder.

    Corners are pixels counted from 1, both inside the box, as VOC has it: pixel 1 to pixel 1 is one pixel wide.

    Args:
        folder (`Path`): folder of the XML files.
        categories (`tuple[str, ...]`, *optional*): names of the objects that mark; all if not given.

    Raises:
        [`~sage_hf.data.DataError`]: there is no such folder.
    """

    names_labels = True
    names_pictures = True

    def __init__(self, folder: Path, categories: tuple[str, ...] | None = None):
        self.where, self.categories = str(folder), categories
        self.files = FileIndex(folder, (".xml",), "annotations")

    def find(self, file: str) -> Found:
        """The boxes of a picture; see `AnnotationSource`."""
        name = self.files.find(file)
        if name is None:
            return Found()
        try:
            root = _parsed(self.files.path(name))
            size = _size(root)
            labels: dict[str, None] = {}
            boxes = []
            for element in root.findall("object"):
                label = (element.findtext("name") or "").strip()
                if not label:
                    raise DataError("an object has no name.")
                labels[label] = None
                if self.categories is None or label in self.categories:
                    boxes.append(_box(element))
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        return Found((Boxes(tuple(boxes), "xyxy", annotated_size=size),) if boxes else (), tuple(labels))

    def entries(self) -> Iterator[Entry]:
        """Every XML file."""
        return (Entry(None, name) for name in self.files.names)

    def unused(self) -> Iterator[Entry]:
        """The XML files without a picture."""
        return (Entry(None, name) for name in self.files.unused())


def _parsed(path: Path) -> Element:
    try:
        if path.stat().st_size > XML_BYTES:
            raise DataError(f"it is larger than {XML_BYTES} bytes.")
        root: Element = fromstring(path.read_bytes())
    except (ParseError, DefusedXmlException, ValueError, LookupError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"it can't be read as XML: {type(error).__name__}: {error}") from None
    if root.tag != "annotation":
        raise DataError(f"its root is <{root.tag}>, not <annotation>.")
    return root


def _size(root: Element) -> tuple[int, int] | None:
    sides = [number_of(root.findtext(f"size/{side}")) for side in ("width", "height")]
    width, height = (int(side) if side else 0 for side in sides)
    return (width, height) if width > 0 and height > 0 else None


def _box(element: Element) -> tuple[float, float, float, float]:
    values: dict[str, Any] = {side: element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")}
    corners = {side: number_of(value) for side, value in values.items()}
    for side, number in corners.items():
        if number is None:
            raise DataError(f"{side} {str(values[side])[:80]!r} of an object is no finite number.")
    left, top, right, bottom = (number for number in corners.values() if number is not None)
    return left - 1, top - 1, right, bottom
