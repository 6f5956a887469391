"""What guides training, one file each."""

from .base import Encoding, Objective
from .sage import SageObjective

__all__ = ["Encoding", "Objective", "SageObjective"]
