"""A model's first guess, made for the picture that is shown."""

from __future__ import annotations

from threading import Lock

import numpy as np

from ..data.annotations import MachineSaliency
from ..data.pictures import open_picture as decoded_picture
from .pictures import Opened

REMEMBERED = 8


class Guesser:
    """
    Asks a model, one picture at a time, and remembers its last answers.

    Args:
        machine ([`~sage_hf.data.annotations.MachineSaliency`]): the model, loaded now so that settings that don't fit
            it are found before the page opens.
    """

    def __init__(self, machine: MachineSaliency):
        machine.load()
        self.machine = machine
        self._lock = Lock()
        self._answers: dict[str, np.ndarray | None] = {}

    @property
    def source(self) -> str:
        """What a dataset's `saliency_source` says of its maps."""
        return self.machine.source

    def map_of(self, picture: Opened) -> np.ndarray | None:
        """
        The model's map of a picture.

        Returns:
            `numpy.ndarray`: float32, (height, width) of the picture, in [0, 1]; `None` if it marks nothing.
        """
        with self._lock:
            if picture.sha256 not in self._answers:
                while len(self._answers) >= REMEMBERED:
                    del self._answers[next(iter(self._answers))]
                self._answers[picture.sha256] = self.machine.saliency_of(decoded_picture(picture.content))
            return self._answers[picture.sha256]
