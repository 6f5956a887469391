"""Every check: its name, how grave what it finds is, what to do about it, and the function that finds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from . import row_checks, set_checks
from .facts import RowFacts
from .set_checks import SetCheck

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Check:
    """
    A check of each row, or of the dataset as a whole.

    Attributes:
        name (`str`): what `allow` and `--allow` take.
        severity (`str`): `"error"` for what would train wrongly, split wrongly or give away what nobody meant to
            publish; `"warning"` for what may be meant so.
        message (`str`): what was found, and how to mend it.
    """

    name: str
    severity: Severity
    message: str
    of_row: Callable[[RowFacts], Iterator[str]] | None = None
    of_dataset: SetCheck | None = None


def _row(severity: Severity, find: Callable[[RowFacts], Iterator[str]], message: str) -> Check:
    return Check(find.__name__.replace("_", "-"), severity, message, of_row=find)


def _whole(severity: Severity, find: SetCheck, message: str) -> Check:
    return Check(find.__name__.replace("_", "-"), severity, message, of_dataset=find)


CHECKS: tuple[Check, ...] = (
    _whole("error", set_checks.no_rows, "The dataset is empty."),
    _row("error", row_checks.missing_picture, "Rows without a picture. Remove them."),
    _row("error", row_checks.unreadable_picture, "Pictures that can't be decoded. Replace or remove them."),
    _row(
        "error",
        row_checks.picture_depth,
        "Pictures of more than 8 bits, which training refuses. Choose which values are black and white (a window, in "
        "radiology) and store them with 8 bits.",
    ),
    _row("error", row_checks.unreadable_map, "Maps that can't be decoded. Replace them, or leave them out (null)."),
    _row(
        "error",
        row_checks.map_values,
        "Maps whose values can't be used. A map has one value a pixel, finite and not negative; 0 is irrelevant.",
    ),
    _row(
        "error",
        row_checks.map_aspect,
        "Maps of another aspect than their picture, so they can't cover it. Was one of them cropped?",
    ),
    _row(
        "error",
        row_checks.map_rotation,
        "Maps that fit their picture only without its EXIF rotation, which readers apply. Rotate the pictures with "
        "PIL.ImageOps.exif_transpose and save them without the tag, or rotate the maps likewise.",
    ),
    _whole(
        "error",
        set_checks.no_maps,
        "No row has a map that marks anything, so nothing can guide training. Is the column's name right "
        "(--saliency-column)?",
    ),
    _whole("error", set_checks.missing_label, "Rows without a label. Label or remove them."),
    _row("error", row_checks.unknown_label, "Labels that are not one of the classes. Mend them."),
    _whole(
        "error",
        set_checks.class_of_blank_maps,
        "Classes whose stored maps are all blank, while other classes have maps: the map gives the class away to "
        "whoever reads a blank one as 'nothing matters here'. Store null instead, or allow it if that is meant.",
    ),
    _whole(
        "error",
        set_checks.duplicates_across_splits,
        "Pairs of rows of two splits with the same picture: what is tested was trained on. Remove one of each.",
    ),
    _whole(
        "error",
        set_checks.duplicate_labels,
        "Pictures that occur with different labels. Keep the right one.",
    ),
    _row(
        "error",
        row_checks.personal_metadata,
        "Metadata with a place or a person's name, which would be published. Build the dataset with `sage-hf data "
        "build --metadata strip`, or save the files without metadata.",
    ),
    _row(
        "error",
        row_checks.absolute_path,
        "Paths on somebody's computer, which would be published. Store file names alone; remove or shorten such "
        "columns.",
    ),
    _row(
        "warning",
        row_checks.identifying_metadata,
        "Metadata that may point at a person: serial numbers, copyright notices. Strip them (`sage-hf data build "
        "--metadata strip`) unless the licence asks for them.",
    ),
    _row("warning", row_checks.unreadable_metadata, "Metadata that can't be read, so nobody knows what they tell."),
    _row(
        "warning",
        row_checks.orientation_tag,
        "Only one of picture and map has an EXIF orientation tag, or theirs differ, and their sizes can't tell which "
        "way is right. Look at some; save both upright and without the tag.",
    ),
    _row("warning", row_checks.constant_picture, "Pictures of a single colour."),
    _row(
        "warning",
        row_checks.blank_map,
        "Stored maps that mark nothing: they guide nothing, and degradation='background' takes them to say that there "
        "is nothing to mark. Store null where nobody looked.",
    ),
    _row(
        "warning",
        row_checks.constant_map,
        "Maps with the same value everywhere: all of the picture matters, so nothing is left to degrade.",
    ),
    _row(
        "warning",
        row_checks.inverted_map,
        "Maps that look inverted: most of the picture is marked, and the border more than the middle. White should be "
        "what matters.",
    ),
    _row("warning", row_checks.tiny_map, "Maps that mark less than 0.05% of the picture: little is guided by them."),
    _row("warning", row_checks.full_map, "Maps that mark more than 95% of the picture: little is left to degrade."),
    _whole(
        "warning",
        set_checks.class_without_maps,
        "Classes none of whose rows has a map, while other classes have: those rows are never guided, and having a "
        "map tells the class.",
    ),
    _whole(
        "warning",
        set_checks.near_duplicates_across_splits,
        "Pairs of rows of two splits whose pictures look alike (perceptual hash): frames of one film, say, or one "
        "subject twice. Look at them; keep a subject in one split.",
    ),
    _whole("warning", set_checks.duplicates_within_split, "Pairs of rows of a split with the same picture."),
    _whole(
        "warning",
        set_checks.near_duplicates_within_split,
        "Pairs of rows of a split whose pictures look alike (perceptual hash).",
    ),
    _whole("warning", set_checks.rare_class, "Classes with one row or none: nothing can be learnt or tested of them."),
    _whole(
        "warning",
        set_checks.centre_bias,
        "Maps lie in the centre whatever the picture shows. Compare with `--saliency_control shuffled`: a gain that "
        "stays under it did not come from where humans looked.",
    ),
)
