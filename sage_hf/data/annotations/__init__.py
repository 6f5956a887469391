"""Annotations of pictures, and the saliency maps they become."""

from .base import Annotation, check_pixels
from .boxes import Boxes
from .coco import CocoRegions
from .combination import Combined, combine_saliency
from .fixations import Fixations, sigma_of_visual_angle
from .granularity import Coarsened
from .machine import MachineSaliency
from .map_file import MapFile

__all__ = [
    "Annotation",
    "Boxes",
    "Coarsened",
    "CocoRegions",
    "Combined",
    "Fixations",
    "MachineSaliency",
    "MapFile",
    "check_pixels",
    "combine_saliency",
    "sigma_of_visual_angle",
]
