"""Maps that a model makes where no human marked anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from ..saliency import DataError, relative_saliency

Kind = Literal["segmentation", "depth", "cam"]
Near = Literal["high", "low"]
TASKS = {"segmentation": "image-segmentation", "depth": "depth-estimation"}

MapsOf = Callable[[list[Image.Image]], list[np.ndarray | None]]
"""Maps of pictures of one size."""


@dataclass(frozen=True)
class MachineSaliency:
    """
    Makes saliency maps with a model of the Hub.

    A stand-in for humans, not their equal: `source` goes with every map, so that a dataset says which are whose. The
    model is loaded at the first picture, once in each process; the settings themselves are small and can be pickled.

    Args:
        model (`str`): id on the Hub, or a folder.
        kind (`str`):
            What the model is, and how it makes a map:

            - `"segmentation"`: any model of the `image-segmentation` pipeline (semantic, instance or panoptic). The
              pixels of the `labels` are salient.
            - `"depth"`: any model of the `depth-estimation` pipeline. The nearest pixel is 1, the farthest 0, linear
              in what the model gives. That near is salient is our own choice.
            - `"cam"`: an image classifier. The class activation map of the `labels`, or of the class that it predicts
              if none are given ([`~sage_hf.evaluation.model_saliency.model_saliency`]). What its image processor
              crops away is not salient.
        labels (`tuple[str, ...]`, *optional*): names of classes of the model; of several, each pixel's highest value
            counts. Needed for `"segmentation"`.
        near (`str`, *optional*): for `"depth"`: whether near pixels have `"high"` values (relative or inverse depth,
            as of MiDaS and Depth Anything) or `"low"` ones (metres). Read from the model's configuration if that says
            which.
        revision (`str`, *optional*): branch, tag or commit on the Hub.
        device (`str`, *optional*): as in `"cuda:0"`; the CPU if not given.

    Raises:
        `ValueError`: unknown or missing settings; when the model is loaded, labels that it doesn't have, or depth of
            an unknown direction.
        [`DataError`]: a picture that the model can't take.

    Example:

    ```python
    >>> from sage_hf.data.annotations import MachineSaliency
    >>> MachineSaliency("nvidia/segformer-b0-finetuned-ade-512-512", "segmentation", labels=("tree",)).source
    'machine: nvidia/segformer-b0-finetuned-ade-512-512'

    ```
    """

    model: str
    kind: Kind
    labels: tuple[str, ...] | None = None
    near: Near | None = None
    revision: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"Unknown kind {self.kind!r}. Choose one of {', '.join(get_args(Kind))}.")
        if self.near is not None and (self.kind != "depth" or self.near not in get_args(Near)):
            raise ValueError(
                f"near is {self.near!r}; for kind 'depth' it may be 'high' or 'low', else it must be None."
            )
        if isinstance(self.labels, str):
            raise ValueError(f"labels is {self.labels!r}, not a tuple of names.")
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(self.labels))  # a list can't be hashed, which the cache needs
        if self.kind == "segmentation" and not self.labels:
            raise ValueError("kind 'segmentation' needs labels: the classes of the model that are salient.")
        if self.kind == "depth" and self.labels is not None:
            raise ValueError("kind 'depth' has no labels.")

    @property
    def source(self) -> str:
        """What a dataset's `saliency_source` says of these maps. Of a folder, only its own name is told."""
        folder = Path(self.model)
        return f"machine: {folder.resolve().name if folder.is_dir() else self.model}"

    def load(self) -> None:
        """Load the model now, so that settings that don't fit it are found before any work is done."""
        _loaded(self)

    def saliency_of(self, image: Image.Image) -> np.ndarray | None:
        """
        The map of a picture.

        Args:
            image (`PIL.Image.Image`): 8 bits deep; an EXIF rotation is applied.

        Returns:
            `numpy.ndarray`: float32, (height, width) of the picture, in [0, 1] with a maximum of 1; `None` if the
            model marks nothing.
        """
        return self.saliency_of_batch([image])[0]

    def saliency_of_batch(self, images: Sequence[Image.Image]) -> list[np.ndarray | None]:
        """
        The maps of several pictures, as [`saliency_of`] makes them.

        Those of the same size go through the model together: others might be padded to a common one, which
        pipelines do not undo.

        Args:
            images (`Sequence[PIL.Image.Image]`): as many as fit into memory at once.
        """
        maps_of = _loaded(self)
        upright = [ImageOps.exif_transpose(image) for image in images]
        found: list[np.ndarray | None] = [None] * len(upright)
        for size in dict.fromkeys(image.size for image in upright):
            members = [index for index, image in enumerate(upright) if image.size == size]
            for index, values in zip(members, maps_of([upright[index] for index in members]), strict=True):
                found[index] = None if values is None else relative_saliency(values)
        return found


@lru_cache(maxsize=2)
def _loaded(settings: MachineSaliency) -> MapsOf:
    if settings.kind == "cam":
        return _Classifier(settings)
    from transformers import pipeline

    task: Any = TASKS[settings.kind]
    loaded: Any = pipeline(task, model=settings.model, revision=settings.revision, device=settings.device or "cpu")
    # The pipelines stretch what comes out over the whole picture, also where the processor has cropped it.
    if getattr(loaded.image_processor, "do_center_crop", False):
        loaded.image_processor.do_center_crop = False
    return _Segmenter(settings, loaded) if settings.kind == "segmentation" else _DepthEstimator(settings, loaded)


def _colours(image: Image.Image) -> Image.Image:
    from ..transforms import picture_bands

    return picture_bands(image, 3)[0]


def _class_indices(settings: MachineSaliency, config: Any) -> list[int]:
    """The outputs that have the labels' names."""
    names = dict(config.id2label)
    missing = [label for label in settings.labels or () if label not in names.values()]
    if missing:
        known = list(names.values())
        shown = ", ".join(map(str, known[:20])) + (f", ... ({len(known)})" if len(known) > 20 else "")
        raise ValueError(f"{settings.model} has no label {', '.join(missing)}; it has {shown}.")
    return [int(index) for index, name in names.items() if name in (settings.labels or ())]


class _Segmenter:
    def __init__(self, settings: MachineSaliency, pipeline: Any):
        _class_indices(settings, pipeline.model.config)
        self.labels, self.pipeline = set(settings.labels or ()), pipeline

    def __call__(self, images: list[Image.Image]) -> list[np.ndarray | None]:
        found: list[np.ndarray | None] = []
        for segments in self.pipeline([_colours(image) for image in images], batch_size=len(images)):
            masks = [np.asarray(segment["mask"]) for segment in segments if segment["label"] in self.labels]
            found.append(np.max(masks, axis=0) if masks else None)
        return found


class _DepthEstimator:
    def __init__(self, settings: MachineSaliency, pipeline: Any):
        kind = getattr(pipeline.model.config, "depth_estimation_type", "")
        near = settings.near or {"relative": "high", "metric": "low"}.get(kind)
        if near is None:
            raise ValueError(
                f"{settings.model} does not say whether near pixels have high or low values. Set near='high' "
                "(relative or inverse depth, as of MiDaS) or near='low' (metres)."
            )
        self.sign, self.pipeline = (1 if near == "high" else -1), pipeline

    def __call__(self, images: list[Image.Image]) -> list[np.ndarray | None]:
        # The pipeline also makes a picture, and divides by the range of the depth for that.
        with np.errstate(invalid="ignore", divide="ignore"):
            outputs = self.pipeline([_colours(image) for image in images], batch_size=len(images))
        found = []
        for output in outputs:
            nearness = self.sign * output["predicted_depth"].detach().float().cpu().numpy()
            if not np.isfinite(nearness).all():
                raise DataError("the model gives NaN or infinite depth for this picture.")
            found.append(nearness - nearness.min())
        return found


class _Classifier:
    def __init__(self, settings: MachineSaliency):
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        from ..transforms import AlignedTransform

        model = AutoModelForImageClassification.from_pretrained(settings.model, revision=settings.revision)
        self.model = model.to(settings.device or "cpu").eval()
        # None is the class that the model predicts.
        self.targets: list[int | None] = [*_class_indices(settings, model.config)] or [None]
        processor = AutoImageProcessor.from_pretrained(settings.model, revision=settings.revision)
        self.transform = AlignedTransform(processor, num_channels=getattr(model.config, "num_channels", 3))

    def __call__(self, images: list[Image.Image]) -> list[np.ndarray | None]:
        import torch

        from ...evaluation.model_saliency import model_saliency

        pixel_values = torch.stack([self.transform({"image": image})["pixel_values"] for image in images])
        pixel_values = pixel_values.to(self.model.device)
        rows = len(images)
        targets = [None if index is None else torch.full((rows,), index) for index in self.targets]
        maps = [model_saliency(self.model, pixel_values, targets=target, method="cam") for target in targets]
        return self._upon_pictures(torch.stack(maps).amax(dim=0).float().cpu().numpy(), images[0])

    def _upon_pictures(self, maps: np.ndarray, image: Image.Image) -> list[np.ndarray | None]:
        """Maps of the model's input as maps of pictures of the size of one of them."""
        geometry = self._geometry(image)
        placed = [
            # Fills with 0 what the model has not seen.
            Image.fromarray(values).transform(
                image.size, Image.Transform.AFFINE, geometry, Image.Resampling.BILINEAR, fillcolor=0
            )
            for values in maps
        ]
        return [np.clip(np.asarray(values), 0, 1) for values in placed]

    def _geometry(self, image: Image.Image) -> tuple[float, ...]:
        """
        Where in the model's input the pixels of a picture are: PIL's affine coefficients.

        Told by what the image processor makes of two ramps, so that any resize, crop and pad is undone.
        """
        if min(image.size) < 2:
            raise DataError(
                f"a picture of {image.width}x{image.height} pixels is too small for a class activation map."
            )
        ramp_x, ramp_y = np.meshgrid(*(np.linspace(1, 255, side) for side in image.size))
        scale_x, shift_x = self._axis(image, ramp_x, axis=1)
        scale_y, shift_y = self._axis(image, ramp_y, axis=0)
        return (scale_x, 0, shift_x, 0, scale_y, shift_y)

    def _axis(self, image: Image.Image, ramp: np.ndarray, axis: int) -> tuple[float, float]:
        row = {"image": image, "saliency": Image.fromarray(np.round(ramp).astype(np.uint8))}
        values = self.transform(row)["saliency"][0].numpy() * 255
        # Off the ramp's ends, where resampling bends it, and off padding, which is 0.
        places = np.stack(np.nonzero((values > 10) & (values < 245)))[axis] + 0.5
        inside = values[(values > 10) & (values < 245)]
        side = ramp.shape[axis]
        coordinates = (inside - 1) / 254 * (side - 1) + 0.5
        if len(np.unique(places)) < 2:
            raise DataError(
                f"a picture of {image.width}x{image.height} pixels is too small for a class activation map."
            )
        slope, start = np.polyfit(coordinates, places, 1)
        off = np.abs(slope * coordinates + start - places).max()
        if slope <= 0 or off > 0.05 * values.shape[axis] + 1:
            raise ValueError(
                f"{type(self.transform.processor).__name__} does more to a picture than resize, crop and pad; class "
                "activation maps can't be brought back onto it."
            )
        return float(slope), float(start)
