"""From whatever dataset the Trainer was given to one that it can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import datasets
import numpy as np
import torch
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedConfig

from ..models import output_names
from ..tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from ..training_args import SageTrainingArguments
from .dataset import Augmentation, TransformedDataset, check_columns
from .labels import LabelReader, balanced_weights, class_names_of, lists_classes, problem_type_of
from .saliency import DataError
from .streams import StreamedDataset
from .transforms import AlignedTransform


class Preparation:
    """
    Gives raw datasets the aligned transform of an image processor, and leaves every other dataset as it is.

    A dataset is raw if it comes from `datasets`, has no transform of its own, and no `pixel_values` column.

    Args:
        config ([`~transformers.PreTrainedConfig`]): the model's; takes over the class names of the first dataset that
            has names while its own are still `LABEL_0`, `LABEL_1`, ..., and the problem type if it has none.
        args ([`SageTrainingArguments`]): names of the columns, augmentation, how much to check.
        processor ([`~transformers.BaseImageProcessor`], *optional*): needed as soon as a dataset is raw.

    Attributes:
        guided (`bool`): whether training reads maps.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        args: SageTrainingArguments,
        processor: BaseImageProcessor | None,
    ):
        self.config, self.args, self.processor, self.guided = config, args, processor, True
        self.augmentation = Augmentation(args.seed if args.data_seed is None else args.data_seed)

    def all(self, dataset: Any, name: str, **settings: Any) -> Any:
        """As a call, for each split of a dictionary of datasets, too."""
        if isinstance(dataset, dict):
            return {split: self(rows, split, **settings) for split, rows in dataset.items()}
        return self(dataset, name, **settings)

    def __call__(
        self,
        dataset: Any,
        name: str,
        *,
        training: bool = False,
        maps: bool | None = None,
        labelled: bool = True,
        some_classes: bool = False,
        check: bool = False,
    ) -> Any:
        """
        The dataset as the Trainer reads it. Guided training needs the saliency column; otherwise maps are not even
        decoded.

        Args:
            dataset: anything the Trainer takes.
            name (`str`): what errors call it.
            training (`bool`, *optional*, defaults to `False`): augment.
            maps (`bool`, *optional*): read maps; if not given, as guided training does, and it alone.
            labelled (`bool`, *optional*, defaults to `True`): insist on a label column.
            some_classes (`bool`, *optional*, defaults to `False`): take a dataset that doesn't have just the model's
                classes; rows of any other class are errors.
            check (`bool`, *optional*, defaults to `False`): read `args.check_rows` rows now.

        Raises:
            [`DataError`]: it can't be trained on; the message says where and why.
            `ValueError`: it is raw, and there is no image processor.
        """
        if not self._is_raw(dataset):
            if check and isinstance(dataset, datasets.Dataset):
                self._check_own(dataset, _describe(dataset, name))
            return dataset
        if isinstance(dataset, datasets.Dataset):
            dataset = dataset.with_format(None)  # numbers and tensors in place of pictures, say
        if self.processor is None:
            raise ValueError(
                f"The {name} dataset holds raw pictures: pass the checkpoint's image processor as processing_class, "
                "or a dataset with pixel_values."
            )
        args = self.args
        random: dict[str, Any] = {}
        if training:
            random = {
                "random_crop_scale": args.random_crop_scale,
                "horizontal_flip": args.horizontal_flip,
                "color_jitter": args.color_jitter,
            }
        transform = AlignedTransform(
            self.processor,
            image_column=args.image_column,
            saliency_column=args.saliency_column if (training and self.guided if maps is None else maps) else None,
            label_column=args.label_column,
            require_label=labelled,
            num_channels=getattr(self.config, "num_channels", 3),
            # Drawing one is an augmentation: what is evaluated is compared with all of them.
            annotators="mean" if args.annotators == "random" and not training else args.annotators,
            **random,
        )
        described = _describe(dataset, name)
        check_columns(dataset, transform, described, labelled=labelled)
        feature = (dataset.features or {}).get(self.args.label_column)
        if not some_classes:
            self._adopt_class_names(feature, described)
        transform.read_label = LabelReader(
            args.label_column,
            self.problem_type(dataset),
            output_names(self.config),
            num_labels=self._outputs,
            stored=class_names_of(feature),
            lists=None if feature is None else lists_classes(feature),
        )
        on_error = args.on_error if training else None
        if isinstance(dataset, datasets.IterableDataset):
            split: dict[str, Any] = {}
            if training:
                split = {
                    "augmentation": self.augmentation,
                    "shuffle_buffer_size": args.shuffle_buffer_size,
                    "process_index": args.process_index,
                    "num_processes": args.world_size,
                    "on_error": on_error,
                }
            prepared: Any = StreamedDataset(dataset, transform, described, **split)
        else:
            prepared = TransformedDataset(dataset, transform, described, self.augmentation, on_error)
        if check and args.check_rows:
            prepared.check(args.check_rows, process_index=args.process_index, num_processes=args.world_size)
        return prepared

    def problem_type(self, *given: Any) -> str:
        """
        The model's problem type; one that was not set is inferred from the model's outputs and the labels of the first
        dataset that is given, as transformers infers it from a batch.
        """
        if self.config.problem_type is None:
            dataset = next((one for one in given if one is not None), None)
            if isinstance(dataset, dict):
                dataset = next(iter(dataset.values()), None)
            if self._outputs == 1:
                found = REGRESSION
            elif self._is_raw(dataset):
                feature = (dataset.features or {}).get(self.args.label_column)
                found = MULTI_LABEL if problem_type_of(feature) == MULTI_LABEL else SINGLE_LABEL
            else:
                found = MULTI_LABEL if _first_labels(dataset).ndim > 0 else SINGLE_LABEL
            self.config.problem_type = found  # type: ignore[assignment]  # one of the names it takes
        return str(self.config.problem_type)

    def unmarked_classes(self) -> Tensor:
        """
        Indices of the classes that the arguments say have nothing to mark.

        Raises:
            `ValueError`: one that is none of the model's; or a model that does not predict one class a picture.
        """
        asked = self.args.unmarked_classes or []
        if asked and self.problem_type() != SINGLE_LABEL:
            raise ValueError("unmarked_classes is for one label a picture: give such pictures a blank map instead.")
        names = output_names(self.config)
        if unknown := [name for name in asked if name not in names]:
            raise ValueError(f"unmarked_classes holds {unknown}, and the classes are {', '.join(map(repr, names))}.")
        return torch.tensor([names.index(name) for name in asked], dtype=torch.long)

    def class_weights(self, dataset: Any) -> tuple[float, ...] | None:
        """
        The weights that the arguments ask for; those that balance the labels of a prepared dataset for `"balanced"`.

        Raises:
            [`DataError`]: labels that can't be balanced, or can't be read beforehand.
        """
        weights = self.args.class_weights
        if weights is None:
            return None
        if weights != ["balanced"]:
            return tuple(map(float, weights))
        if (found := self._labels(dataset)) is None:
            raise DataError(
                "class_weights='balanced' needs a map-style dataset whose labels can be read beforehand. Give the "
                "weights as numbers."
            )
        return balanced_weights(found, self.problem_type(), self._outputs)

    def scaled_weights(self, weights: tuple[float, ...] | None, dataset: Any) -> tuple[float, ...] | None:
        """
        Weights of a single label with a mean of 1 over the rows of a prepared dataset, or over the classes if labels
        can't be read beforehand. Their own scale says nothing, as the task divides by them; but it would be that of
        other terms, which don't. Those of several labels are no weights of rows, and stay.
        """
        if weights is None or self.problem_type() != SINGLE_LABEL or len(weights) != self._outputs:
            return weights
        try:
            labels = np.asarray(self._labels(dataset))
        except DataError:  # training names the row
            labels = np.array(None)
        known = labels[(labels >= 0) & (labels < len(weights))] if labels.dtype.kind in "iu" else labels
        rows = known if labels.dtype.kind in "iu" and len(known) else np.arange(len(weights))
        mean = float(np.asarray(weights)[rows].mean())
        return tuple(weight / mean for weight in weights)

    def _labels(self, dataset: Any) -> Any:
        """
        Of a prepared dataset, (rows,) or (rows, labels), but for rows that are skipped; `None` if they can't be read
        beforehand.
        """
        if isinstance(dataset, TransformedDataset):
            found = []
            for label in dataset.dataset[self.args.label_column]:
                try:
                    found.append(dataset.transform.read_label(label))
                except DataError:
                    if self.args.on_error != "skip":
                        raise
            return found
        if not isinstance(dataset, datasets.Dataset) or dataset.format["type"] == "custom":
            return None  # a transform of the user's own may make other labels
        if {"labels", "label"} & set(dataset.column_names):
            return dataset.with_format(None)["labels" if "labels" in dataset.column_names else "label"]
        return None

    @staticmethod
    def _is_raw(dataset: Any) -> TypeGuard[datasets.Dataset | datasets.IterableDataset]:
        if isinstance(dataset, datasets.Dataset):
            return dataset.format["type"] != "custom" and "pixel_values" not in dataset.column_names
        if isinstance(dataset, datasets.IterableDataset):
            names = dataset.column_names or list(next(iter(dataset), {}))
            return "pixel_values" not in names
        return False

    def _check_own(self, dataset: datasets.Dataset, name: str) -> None:
        """What the user's own transform gives must be what a model takes."""
        if len(dataset) == 0:
            raise DataError(f"{name}: the dataset is empty.")
        found = list(dataset[0])
        if "pixel_values" not in found:
            raise DataError(
                f"{name}: its transform gives {found}, but no 'pixel_values'. Return 'pixel_values' and 'labels', and "
                "'saliency' (1, height, width) or None; or pass the dataset without a transform."
            )

    def _adopt_class_names(self, feature: Any, name: str) -> None:
        own, names = output_names(self.config), class_names_of(feature)
        if names is None:
            return
        if own == [f"LABEL_{index}" for index in range(len(names))]:
            self.config.id2label = dict(enumerate(names))
            self.config.label2id = {label: index for index, label in enumerate(names)}
        elif set(names) != set(own) and not own[0].startswith("LABEL_"):
            raise DataError(
                f"{name}: its classes are {_few(names)}, the model's {_few(own)}. Load the model with "
                f"num_labels={len(names)} and ignore_mismatched_sizes=True, so that it gets a head for these."
            )

    @property
    def _outputs(self) -> int:
        return int(self.config.num_labels or 0)


def _first_labels(dataset: Any) -> np.ndarray:
    """The labels of the first row of a dataset that needs no preparation; nothing if it can't be looked into."""
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or not len(dataset):
        return np.array(0)
    row = dataset[0]
    label = row.get("labels", row.get("label")) if isinstance(row, Mapping) else None
    return np.array(0) if label is None else np.asarray(label)


def _describe(dataset: datasets.Dataset | datasets.IterableDataset, name: str) -> str:
    """As in `train dataset (train split of coffee_leaf)`: what it is used for, and where it comes from."""
    source = getattr(dataset.info, "dataset_name", None)
    return f"{name} dataset ({dataset.split} split of {source})" if source else f"{name} dataset"


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")
