"""What guides training, one file each."""

from typing import Any

from .attention import AttentionObjective
from .augment import AugmentObjective
from .base import Encoding, GuidedRows, Objective, Source, TermObjective
from .cyborg import CyborgObjective
from .gradient import GradientObjective
from .harmonization import HarmonizationObjective
from .sage import SageObjective

GUIDANCE: dict[str, Any] = {
    "sage": SageObjective,
    "augment": AugmentObjective,
    "cyborg": CyborgObjective,
    "gradient": GradientObjective,
    "harmonization": HarmonizationObjective,
    "attention": AttentionObjective,
}
"""Objectives by the name that `--guidance` takes; `"none"` is plain fine-tuning."""

__all__ = [
    "GUIDANCE",
    "AttentionObjective",
    "AugmentObjective",
    "CyborgObjective",
    "Encoding",
    "GradientObjective",
    "GuidedRows",
    "HarmonizationObjective",
    "Objective",
    "SageObjective",
    "Source",
    "TermObjective",
]
