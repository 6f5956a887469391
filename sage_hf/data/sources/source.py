"""Where pictures, labels and annotations are."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from ..annotations import sigma_of_visual_angle
from .labels import check_problem_type

FORMATS = ("auto", "maps", "coco", "voc", "boxes", "fixations")
LABEL_SOURCES = ("folder", "annotation")
BOX_FORMATS = ("xyxy", "xywh", "cxcywh")


@dataclass(frozen=True)
class Source:
    """
    Where pictures, labels and annotations are.

    Pictures are those of a folder or of a dataset. Labels come from a table; without one from the pictures' folders
    (`CLASS/x.jpg`, or `train/CLASS/x.jpg` with any usual name of a split) if every picture is in one; otherwise from
    what the annotations say was marked. Whatever gives the labels says which pictures become rows, and in which order.

    Args:
        images (`str` or `Path`, *optional*): folder of the pictures.
        dataset (`str`, *optional*): in place of it, a Hub id or a folder that `load_dataset` reads. If `saliency` is
            empty, its own maps are taken.
        saliency (`tuple[str | Path, ...]`): folders of maps that mirror the pictures' folder; COCO files; Pascal VOC
            folders; tables of boxes or fixations. Several are several annotators.
        annotation_format (`str`, *optional*, defaults to `"auto"`): `"maps"`, `"coco"`, `"voc"`, `"boxes"`,
            `"fixations"`; told by the content if not given.
        labels (`str` or `Path`, *optional*): table with a row a picture, CSV, TSV, JSON, JSON Lines or Parquet.
        label_column (`str`, *optional*): its column of labels, or that of `dataset` (`"label"` if not given).
        label_from (`str`, *optional*): `"folder"` or `"annotation"`, where labels come from without a table.
        file_column (`str`, *optional*): column of picture paths under `images`, in all tables; the extension may be
            missing. Found by itself if it is named `file_name`, `file`, `filename`, `image`, `path` or `id`.
        split_column (`str`, *optional*): column of split names in `labels`; everything is `train` if not given.
        problem_type (`str`, *optional*): see [`~sage_hf.tasks.Task`]; single-label classification if not given, or
            what the label column of `dataset` is made for.
        id_column (`str`, *optional*): column of `dataset` that annotations are joined by, as `file_column`.
        image_column (`str`, *optional*, defaults to `"image"`): of `dataset`.
        dataset_name (`str`, *optional*): configuration of `dataset`.
        dataset_revision (`str`, *optional*): branch, tag or commit of `dataset`.
        mask_classes (`tuple[int | str, ...]`, *optional*): values, palette indices or colours (`"#rrggbb"`) of
            multi-class masks that mark.
        categories (`tuple[str, ...]`, *optional*): COCO categories, VOC names or labels of boxes that mark.
        box_format (`str`, *optional*): `"xyxy"`, `"xywh"` or `"cxcywh"`; told by the columns' names if not given.
        normalised (`bool`, *optional*, defaults to `False`): whether coordinates in tables are shares of width and
            height, in [0, 1], as YOLO writes them.
        sigma (`float`, *optional*): of the Gaussian around a fixation, in pixels.
        visual_angle (`float`, *optional*): in place of it, in degrees, with `viewing_distance` and `pixel_pitch`.
        viewing_distance (`float`, *optional*): from eye to screen, in the unit of `pixel_pitch`.
        pixel_pitch (`float`, *optional*): side of a pixel.
    """

    images: str | Path | None = None
    dataset: str | None = None
    saliency: tuple[str | Path, ...] = ()
    annotation_format: str = "auto"
    labels: str | Path | None = None
    label_column: str | None = None
    label_from: str | None = None
    file_column: str | None = None
    split_column: str | None = None
    problem_type: str | None = None
    id_column: str | None = None
    image_column: str = "image"
    dataset_name: str | None = None
    dataset_revision: str | None = None
    mask_classes: tuple[int | str, ...] | None = None
    categories: tuple[str, ...] | None = None
    box_format: str | None = None
    normalised: bool = False
    sigma: float | None = None
    visual_angle: float | None = None
    viewing_distance: float | None = None
    pixel_pitch: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.saliency, (str, Path)):
            object.__setattr__(self, "saliency", (self.saliency,))
        for option in fields(self):  # lists come from the command line and from YAML
            if isinstance(value := getattr(self, option.name), list):
                object.__setattr__(self, option.name, tuple(value))
        choices = {
            "annotation_format": FORMATS,
            "label_from": (None, *LABEL_SOURCES),
            "box_format": (None, *BOX_FORMATS),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                known = ", ".join(filter(None, allowed))
                raise ValueError(f"Unknown {name} {getattr(self, name)!r}. Choose one of {known}.")
        if (self.images is None) == (self.dataset is None):
            raise ValueError("Give either images, a folder, or dataset, a Hub id or folder of a dataset.")
        if self.dataset is not None and (self.labels is not None or self.label_from is not None):
            raise ValueError("A dataset has its own labels: labels and label_from go with images.")
        if self.labels is not None and self.label_from is not None:
            raise ValueError("label_from says where labels come from without a table: leave out it or labels.")
        if self.problem_type is not None:
            check_problem_type(self.problem_type)

    @property
    def sigma_in_pixels(self) -> float | None:
        """
        The width of a fixation's Gaussian.

        Raises:
            `ValueError`: it is given twice, or half.
        """
        viewing = (self.visual_angle, self.viewing_distance, self.pixel_pitch)
        if all(value is None for value in viewing):
            return self.sigma
        angle, distance, pitch = viewing
        if self.sigma is not None or angle is None or distance is None or pitch is None:
            raise ValueError(
                "Give either sigma in pixels, or all of visual_angle, viewing_distance and pixel_pitch (the last two "
                "in the same unit)."
            )
        return sigma_of_visual_angle(angle, distance, pitch)
