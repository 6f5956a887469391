"""Classifiers as they are looked at: what they predict, where they look, how they embed, each in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoImageProcessor

from ..data.paths import check_folder
from ..embeddings import EmbeddingCapture, config_of
from ..evaluation.model_saliency import METHODS, model_saliency
from ..features import undisturbed
from ..forwarding import Encoder
from ..heads import load_image_classifier
from ..models import output_names, unadapted
from ..problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL


class Subject:
    """
    A classifier that pictures are shown to.

    Args:
        model (`torch.nn.Module`): as for [`SageTrainer`].
        processor ([`~transformers.BaseImageProcessor`]): the checkpoint's.
        name (`str`): what it is called.
        path (`str`, *optional*): Hub id or folder that it came from.

    Attributes:
        classes (`list[str]`): names of its outputs.
        without (`dict[str, str]`): why there is no `"cam"` or no `"embedding"`, where there is none; filled in when
            it is asked for.
    """

    def __init__(self, model: torch.nn.Module, processor: Any, name: str, path: str | None = None):
        self.model, self.processor, self.name, self.path = model.eval(), processor, name, path
        trained = getattr(getattr(unadapted(model), "config", None), "sage", None) or {}
        self.interpolate = bool(trained.get("interpolate_pos_encoding"))
        layer = trained.get("embedding_layer")
        config = config_of(model, layer)
        self.classes = output_names(config)
        self.num_channels = int(getattr(config, "num_channels", 3))
        self.problem_type = str(config.problem_type or (REGRESSION if len(self.classes) == 1 else SINGLE_LABEL))
        self.without: dict[str, str] = {}
        capture = None
        try:
            capture = EmbeddingCapture(model, layer)
        except ValueError as error:
            self.without["embedding"] = str(error)
        self._encoder = Encoder(model, capture, interpolate_pos_encoding=self.interpolate)

    @classmethod
    def load(
        cls, path: str | Path, *, revision: str = "main", name: str | None = None, use_cpu: bool = False
    ) -> Subject:
        """
        A published or local classifier, on the accelerator if there is one.

        Args:
            path (`str` or `Path`): Hub id or folder, as for [`load_image_classifier`]; adapters too.
            revision (`str`, *optional*, defaults to `"main"`): branch, tag or commit.
            name (`str`, *optional*): what it is called; the Hub id, or the folder's own name, if not given.
            use_cpu (`bool`, *optional*, defaults to `False`): even where there is an accelerator.
        """
        check_folder(str(path))
        model = load_image_classifier(path, revision=revision)
        device = None if use_cpu or not torch.accelerator.is_available() else torch.accelerator.current_accelerator()
        processor = AutoImageProcessor.from_pretrained(str(path), revision=revision)
        return cls(model.to(device or "cpu"), processor, name or subject_names([path])[0], str(path))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))

    def outputs(self, pixel_values: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """
        What it makes of pictures.

        Args:
            pixel_values (`torch.Tensor`): (rows, channels, height, width), normalised.

        Returns:
            `tuple[numpy.ndarray, numpy.ndarray | None]`: probabilities (rows, labels), of a regression the numbers
            themselves; and embeddings (rows, dimension), `None` if its head can't be found. Both float32 or more.
        """
        with undisturbed(self.model), torch.no_grad():
            inputs = {"pixel_values": pixel_values.to(self.device)}
            if self._encoder.capture is None:
                logits, embedding = self._encoder.logits(self.model, inputs), None
            else:
                (encoding,) = self._encoder.encode(self.model, inputs, (), torch.arange(0))
                logits, embedding = encoding.logits, encoding.embedding.float().cpu().numpy()
        return self._probabilities(logits.float()).cpu().numpy(), embedding

    def looks(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """
        Where it looks for what it predicts, by method: (rows, height, width) in [0, 1], see [`model_saliency`]. A
        model that has no class activation map is asked for its gradient alone; `without["cam"]` says why.
        """
        found = {}
        for method in METHODS:
            if method in self.without:
                continue
            try:
                found[method] = model_saliency(
                    self.model,
                    pixel_values.to(self.device),
                    method=method,
                    interpolate_pos_encoding=self.interpolate,
                ).cpu()
            except ValueError as error:
                if method != "cam":
                    raise
                self.without[method] = str(error)
        if self._encoder.capture is not None:
            self._encoder.capture.clear()  # it would keep these passes' graphs alive
        return found

    def _probabilities(self, logits: Tensor) -> Tensor:
        if self.problem_type == REGRESSION:
            return logits
        return logits.sigmoid() if self.problem_type == MULTI_LABEL else logits.softmax(dim=1)


def subject_names(paths: Sequence[str | Path]) -> list[str]:
    """
    What models are called: by their Hub ids, and folders by as much of their paths' ends as tells them apart.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from sage_hf.viewing.subjects import subject_names
    >>> subject_names(["google/vit-base-patch16-224", "."]) == ["google/vit-base-patch16-224", Path.cwd().name]
    True

    ```
    """
    parts = [Path(path).resolve().parts if Path(path).exists() else tuple(str(path).split("/")) for path in paths]
    least = [1 if Path(path).exists() else len(own) for path, own in zip(paths, parts, strict=True)]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-max(length, short) :]) for own, short in zip(parts, least, strict=True)]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({place})" for place, name in enumerate(names, start=1)]
