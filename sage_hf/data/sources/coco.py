"""COCO JSON: boxes, polygons and run-length masks of many pictures in one file (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import Annotation, Boxes, CocoRegions, Combined
from ..saliency import DataError
from .labels import number_of
from .marks import Marks, MarksByPicture
from .rows import Entry, Found
from .tables import read_json, text_of

Regions = dict[str, list[dict[str, Any]]]
"""A picture's annotations by annotator."""


def is_coco(content: Any) -> bool:
    """Whether parsed JSON has the lists of a COCO file of objects."""
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


class CocoFile:
    """
    The annotations of a COCO file by picture.

    An annotation's `segmentation` marks, or its `bbox` if it has none; all of a picture are united. An `annotator`
    key, which COCO knows nothing of, tells several annotators apart.

    Args:
        path (`Path`): the file; it is held in memory.
        categories (`tuple[str, ...]`, *optional*): names of those that mark; all if not given.

    Raises:
        [`~sage_hf.data.DataError`]: it is no COCO file, or has no such category.
    """

    names_labels = True
    names_pictures = True

    def __init__(self, path: Path, categories: tuple[str, ...] | None = None):
        self.where = str(path)
        content = read_json(path)
        if not is_coco(content) or not all(isinstance(content[key], list) for key in ("images", "annotations")):
            raise DataError(f"{path} is no COCO file: it should hold lists called images and annotations.")
        listed = content.get("categories", [])
        self.names: dict[Any, str] = {
            category["id"]: str(category["name"])
            for category in (listed if isinstance(listed, list) else [])
            if isinstance(category, dict) and _is_id(category.get("id")) and "name" in category
        }
        for name in categories or ():
            if name not in self.names.values():
                raise DataError(f"{path}: there is no category {name!r}; it has {', '.join(self.names.values())}.")
        self.categories = categories
        self.marks: MarksByPicture[tuple[tuple[int, int] | None, Regions]] = MarksByPicture()
        pictures: dict[Any, Marks[tuple[tuple[int, int] | None, Regions]]] = {}
        for number, image in enumerate(content["images"], start=1):
            self._add_image(number, image, pictures)
        for number, annotation in enumerate(content["annotations"], start=1):
            self._add_annotation(number, annotation, pictures)

    def _add_image(self, number: int, image: Any, pictures: dict[Any, Any]) -> None:
        try:
            file = text_of(image.get("file_name")) if isinstance(image, dict) else ""
        except DataError:
            file = ""
        if not file:
            self.marks.nameless.append(Entry(number, "", f"entry {number} of images names no file."))
            if isinstance(image, dict) and _is_id(image.get("id")):
                pictures.setdefault(image["id"], Marks("", number, (None, {})))
            return
        width, height = number_of(image.get("width")), number_of(image.get("height"))
        size = (int(width), int(height)) if width and height and min(width, height) >= 1 else None
        marks = self.marks.add(file, number, (size, {}))
        if marks.row != number:
            marks.error = marks.error or f"{self.where}: it is listed twice, as entries {marks.row} and {number}."
        if not _is_id(image.get("id")) or image["id"] in pictures:
            marks.error = marks.error or f"{self.where}: entry {number} of images has no id of its own."
        else:
            pictures[image["id"]] = marks

    def _add_annotation(self, number: int, annotation: Any, pictures: dict[Any, Any]) -> None:
        image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not _is_id(image_id) or image_id not in pictures:
            reason = f"entry {number} of annotations belongs to none of the images."
            self.marks.nameless.append(Entry(number, "", reason))
            return
        marks = pictures[image_id]
        try:
            category = annotation.get("category_id")
            name = self.names.get(category) if _is_id(category) else None
            if name is None and self.names:
                raise DataError(f"there is no category {str(category)[:80]}.")
            if name is not None:
                marks.labels[name] = None
            if self.categories is None or name in self.categories:
                annotator = text_of(annotation.get("annotator"))
                kept = {key: annotation[key] for key in ("segmentation", "bbox") if annotation.get(key)}
                if not kept:
                    raise DataError("it has neither a segmentation nor a bbox.")
                marks.content[1].setdefault(annotator, []).append(kept)
        except DataError as error:
            marks.error = marks.error or f"{self.where}, entry {number} of annotations: {error}"

    def find(self, file: str) -> Found:
        """The annotations of a picture, one an annotator; see `AnnotationSource`."""
        marks = self.marks.find(file)
        if marks is None:
            return Found()
        if marks.error is not None:
            raise DataError(marks.error)
        size, regions = marks.content
        return Found(tuple(_annotation(listed, size) for listed in regions.values()), tuple(marks.labels))

    def entries(self) -> Iterator[Entry]:
        """Every entry of images."""
        return self.marks.entries()

    def unused(self) -> Iterator[Entry]:
        """The entries of images that were not asked for, and annotations of none of them."""
        return self.marks.unused()


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _annotation(regions: list[dict[str, Any]], size: tuple[int, int] | None) -> Annotation:
    segmentations = tuple(region["segmentation"] for region in regions if "segmentation" in region)
    boxes = tuple(_box(region["bbox"]) for region in regions if "segmentation" not in region)
    made: list[Annotation] = []
    if segmentations:
        if size is None:
            raise DataError("its width and height are missing, which its segmentations refer to.")
        made.append(CocoRegions(segmentations, size))
    if boxes:
        made.append(Boxes(boxes, "xywh", annotated_size=size))
    return made[0] if len(made) == 1 else Combined(tuple(made), "union")


def _box(value: Any) -> tuple[float, float, float, float]:
    numbers = [number_of(number) for number in value] if isinstance(value, list) else []
    if len(numbers) != 4 or None in numbers:
        raise DataError(f"bbox {str(value)[:80]} is not four finite numbers.")
    left, top, width, height = (number for number in numbers if number is not None)
    return left, top, width, height
