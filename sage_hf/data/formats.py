"""The picture formats that are read."""

from __future__ import annotations

from functools import cache

from PIL import Image

PROGRAMS = ("EPS", "WMF")
"""Formats that Pillow hands to an interpreter: Postscript is a program, which can read any file."""


@cache
def picture_formats() -> tuple[str, ...]:
    """The formats that Pillow reads by itself, by its names of them."""
    Image.init()
    return tuple(name for name in Image.OPEN if name not in PROGRAMS)


def picture_extensions() -> set[str]:
    """The extensions of their files, lower case, with their dots."""
    formats = picture_formats()
    return {extension for extension, name in Image.registered_extensions().items() if name in formats}
