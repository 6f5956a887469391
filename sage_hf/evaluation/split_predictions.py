"""What a model predicts for the rows of several splits, those of known and those of unknown classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import datasets
import numpy as np

from ..data.known_classes import known_and_unknown
from ..data.saliency import DataError
from ..models import output_names
from ..trainer import SageTrainer
from .logit_figures import attack_scores
from .protocols import LeftOut, unknown_rows, values_of


@dataclass
class DividedSplit:
    """
    The rows of a split.

    Args:
        known (`datasets.Dataset`): of the model's classes.
        unknown (`datasets.Dataset`): of other classes, or left out of the model's run.
    """

    known: datasets.Dataset
    unknown: datasets.Dataset


def divide(
    split: datasets.Dataset,
    name: str,
    label_column: str,
    classes: Sequence[str],
    unknown: Sequence[str],
    left_out: LeftOut | None = None,
) -> DividedSplit:
    """
    Tell the rows of a split that a model was trained for from all others.

    Args:
        split (`datasets.Dataset`): with labels.
        name (`str`): what errors call it.
        label_column (`str`): the column.
        classes (`Sequence[str]`): the model's.
        unknown (`Sequence[str]`): classes that it doesn't know.
        left_out ([`LeftOut`], *optional*): what its run left out by another column.

    Raises:
        [`DataError`]: rows of a class that is neither; no row of a known one.
    """
    trained_for, left = (split, None) if left_out is None else unknown_rows(split, left_out)
    known, others = known_and_unknown(trained_for, label_column, classes, unknown, f"{name} split")
    if not len(known):
        raise DataError(f"{name} split: there are no rows of classes that the model knows.")
    return DividedSplit(known, others if left is None else datasets.concatenate_datasets([others, left]))


class SplitPredictions:
    """
    A model's predictions for divided splits. All rows are prepared and checked before the first is predicted.

    Args:
        trainer ([`SageTrainer`]): with the model.
        splits (`dict[str, DividedSplit]`): see [`divide`].
        elsewhere (`dict[str, datasets.Dataset]`): rows of another dataset, by the split that they go with.
        source (`str`): what errors call that dataset.

    Attributes:
        of (`dict[str, PredictionOutput]`): of the known rows.
        unknown (`dict[str, numpy.ndarray]`): logits of the unknown rows, for splits that have any.
        elsewhere (`dict[str, numpy.ndarray]`): logits of the rows of the other dataset.
    """

    def __init__(
        self,
        trainer: SageTrainer,
        splits: Mapping[str, DividedSplit],
        elsewhere: Mapping[str, datasets.Dataset],
        source: str,
    ):
        self.trainer = trainer
        self.classes = output_names(trainer.model_config)
        known = {
            name: trainer.preparation(split.known, name, maps=False, some_classes=True, check=True)
            for name, split in splits.items()
        }
        unknown = {
            name: self._unlabelled(split.unknown, f"{name} split, unknown classes")
            for name, split in splits.items()
            if len(split.unknown)
        }
        other = {name: self._unlabelled(rows, source) for name, rows in elsewhere.items()}
        self.of = {name: trainer.predict(rows, metric_key_prefix=name) for name, rows in known.items()}
        self.unknown = {name: np.asarray(trainer.predict(rows).predictions) for name, rows in unknown.items()}
        self.elsewhere = {name: np.asarray(trainer.predict(rows).predictions) for name, rows in other.items()}

    def _unlabelled(self, rows: datasets.Dataset, name: str) -> datasets.Dataset:
        """Prepared whatever the labels."""
        pictures = rows.select_columns([self.trainer.args.image_column])
        prepared: datasets.Dataset = self.trainer.preparation(pictures, name, maps=False, labelled=False, check=True)
        return prepared

    def logits_and_labels(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows of known classes of a split."""
        return np.asarray(self.of[name].predictions), np.asarray(self.of[name].label_ids)

    def attack_scores(self, name: str, bona_fide: str, *, known_only: bool = False) -> np.ndarray:
        """How much like an attack each row of a split is: the known ones, then the unknown ones."""
        logits, _ = self.logits_and_labels(name)
        if name in self.unknown and not known_only:
            logits = np.concatenate([logits, self.unknown[name]])
        return attack_scores(logits, self.classes.index(bona_fide))


@dataclass
class AttackTypes:
    """
    The types of attack of the rows of splits, in the order of [`SplitPredictions.attack_scores`].

    Args:
        measured (`dict[str, list[str | None]]`): of the splits that have both bona fide rows and attacks; `None` is
            bona fide.
        for_threshold (`list[str | None]`, *optional*): of the known rows of the split that sets the threshold.
    """

    measured: dict[str, list[str | None]]
    for_threshold: list[str | None] | None = None

    @classmethod
    def read(
        cls,
        splits: Mapping[str, DividedSplit],
        label_column: str,
        bona_fide: str,
        type_column: str | None = None,
        threshold_split: str | None = None,
    ) -> AttackTypes:
        """
        Read them from divided splits.

        Args:
            splits (`dict[str, DividedSplit]`): see [`divide`].
            label_column (`str`): the column.
            bona_fide (`str`): the class that is no attack.
            type_column (`str`, *optional*): names the type of each attack; the class, where a split is without it.
            threshold_split (`str`, *optional*): one of the splits, of which only classes are read, of known rows.

        Raises:
            [`DataError`]: no split has both bona fide rows and attacks, or the one that sets the threshold has not.
        """
        types = {
            name: _types(split.known, label_column, bona_fide, type_column)
            + _types(split.unknown, label_column, bona_fide, type_column)
            for name, split in splits.items()
            if name != threshold_split
        }
        measured = {name: kinds for name, kinds in types.items() if _both(kinds)}
        if not measured:
            raise DataError(
                f"bona_fide: none of the splits {', '.join(types)} has both rows of {bona_fide!r} and attacks, which "
                "error rates are of. Name another split with splits."
            )
        if threshold_split is None:
            return cls(measured)
        # What training left out is unknown when a threshold is chosen as well.
        chosen_on = _types(splits[threshold_split].known, label_column, bona_fide)
        if not _both(chosen_on):
            lacking = "attacks that the model knows" if None in chosen_on else f"rows of {bona_fide!r}"
            raise DataError(f"{threshold_split} split: there are no {lacking}, and a threshold needs both kinds.")
        return cls(measured, chosen_on)


def _types(
    rows: datasets.Dataset, label_column: str, bona_fide: str, type_column: str | None = None
) -> list[str | None]:
    classes = values_of(rows, label_column)
    types = classes if type_column not in rows.column_names else values_of(rows, str(type_column))
    return [None if kind == bona_fide else named or kind for kind, named in zip(classes, types, strict=True)]


def _both(kinds: Sequence[str | None]) -> bool:
    return None in kinds and any(kind is not None for kind in kinds)
