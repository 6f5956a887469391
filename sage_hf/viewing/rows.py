"""Look at rows of a dataset, with up to two models: figures of every row, pictures of the worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from ..data.annotated import rows_with_map
from ..data.collator import SaliencyCollator
from ..data.dataset import TransformedDataset, check_columns
from ..data.saliency import DataError
from ..data.transforms import AlignedTransform
from ..evaluation.saliency_alignment import alignment_scores
from ..problem_types import REGRESSION
from ..views import DEGRADATIONS, MIXING, make_views
from .pictures import Painter, RowPictures
from .records import RowRecord, model_record, moved, predicted, several_of, stated_label, worst_first
from .subjects import Subject

FIGURES = ("cc", "sim", "kl", "nss", "auc_judd")
BATCH = 16
"""Rows that are looked at together, and shuffled among themselves: a constant, so that a seed says it all."""
SIDE = 224
"""Of the squares that pictures are drawn as without a model, in pixels: what most models take."""


@dataclass
class Embeddings:
    """
    What enters a model's head, of the rows with a map, in the order of the rows.

    Args:
        model (`str`): its name.
        anchors (`numpy.ndarray`): of x, (rows, dimension).
        positives (`numpy.ndarray`): of x+, likewise.
        negatives (`numpy.ndarray`): of x-, likewise.
    """

    model: str
    anchors: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


@dataclass
class Looked:
    """
    What was found.

    Args:
        records (`list[RowRecord]`): of every row looked at, the worst first.
        pictures (`dict[int, RowPictures]`): of the first `count` of them, by row.
        embeddings (`list[Embeddings]`): of each model whose head is found, if any row has a map.
        without (`dict[str, dict[str, str]]`): by model, why there is no `"cam"` or `"embedding"`, where there is none.
        order (`str`): what the rows are sorted by.
        total (`int`): rows of the split.
        with_map (`int`): rows of the split that have a map.
    """

    records: list[RowRecord]
    pictures: dict[int, RowPictures]
    embeddings: list[Embeddings]
    without: dict[str, dict[str, str]]
    order: str
    total: int
    with_map: int


def look_at(
    split: datasets.Dataset,
    subjects: Sequence[Subject] = (),
    *,
    rows: int = 256,
    count: int = 12,
    order: str | None = None,
    degradation: str = "shuffle",
    seed: int = 0,
    image_column: str = "image",
    saliency_column: str = "saliency",
    label_column: str = "label",
    name: str = "dataset",
) -> Looked:
    """
    Look at rows of a split, with the eyes of up to two models.

    Views are made as in training, of [`BATCH`] rows at a time; both models get the same ones.

    Args:
        split (`datasets.Dataset`): with a column of pictures; maps and labels may be missing, in rows or throughout.
        subjects (`Sequence[Subject]`, *optional*): the models.
        rows (`int`, *optional*, defaults to 256): how many to look at, drawn at random, those with a map before those
            without; -1 for all.
        count (`int`, *optional*, defaults to 12): of how many to keep pictures, the worst.
        order (`str`, *optional*): what makes a row bad, see [`~sage_hf.viewing.records.ORDERS`]. If not given,
            `"maps"` with a model and maps, `"labels"` with a model and no map, `"rows"` without a model.
        degradation (`str`, *optional*, defaults to `"shuffle"`): D of the views, as for [`make_views`].
        seed (`int`, *optional*, defaults to 0): of the draw of rows and of the degradations.
        image_column, saliency_column, label_column (`str`, *optional*): names of the columns.
        name (`str`, *optional*): what errors call the split.

    Returns:
        [`Looked`].

    Raises:
        [`DataError`]: no rows, no such column, or a row that can't be read.
        `ValueError`: settings that don't go together.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from PIL import Image
    >>> from sage_hf.viewing import look_at
    >>> maps = [None, Image.new("L", (8, 8), 255)]
    >>> found = look_at(Dataset.from_dict({"image": [Image.new("RGB", (8, 8))] * 2, "saliency": maps}))
    >>> [(record.row, record.has_map) for record in found.records], sorted(found.pictures[1].views)
    ([(0, False), (1, True)], ['negative', 'positive'])

    ```
    """
    annotated = rows_with_map(split, saliency_column)
    order = order or ("rows" if not subjects else "maps" if annotated else "labels")
    _check(len(split), subjects, rows, count, order, name)
    columns = {"image_column": image_column, "saliency_column": saliency_column if annotated else None}
    readers = [_reader(split, subject, name, **columns) for subject in subjects] or [
        _reader(split, None, name, **columns)
    ]
    painter = Painter(readers[0].transform) if count else None
    feature = split.features.get(label_column)
    labels = split.with_format(None)[label_column] if feature is not None else [None] * len(split)
    chosen = chosen_rows(len(split), annotated, rows, seed)
    if len(chosen) == 1 and annotated and degradation in MIXING:
        raise ValueError("One row has no other to be mixed with: look at more, or choose another degradation.")
    key = worst_first(order)
    records: list[RowRecord] = []
    pictures: dict[int, RowPictures] = {}
    embedded: list[list[tuple[np.ndarray, ...]]] = [[] for _ in subjects]
    batches = np.array_split(chosen, -(-len(chosen) // BATCH))
    for number, part in enumerate(tqdm(batches, desc="looking", unit="batch", leave=False, disable=None)):
        batch = [int(row) for row in part]
        names = subjects[0].classes if subjects else []
        found = [RowRecord(row, stated_label(labels[row], feature, names), False) for row in batch]
        seen = [_Batch(reader, batch, degradation, (seed, number)) for reader in readers]
        for place, record in enumerate(found):
            record.has_map = any(place in one.places for one in seen)
        pairs = list(zip(subjects, seen, strict=False))  # without a model, rows are seen all the same
        maps = [subject.looks(one.pixel_values) for subject, one in pairs]
        for (subject, one), collected in zip(pairs, embedded, strict=True):
            embeddings = one.encode(subject)
            if embeddings is not None and one.places:
                collected.append(embeddings)
        # Of all models: what one predicts, a reader wants to see of the other.
        concerned = [
            {name for pair in pairs for name in pair[1].predicted(pair[0], place)} for place in range(len(batch))
        ]
        for (subject, one), looks in zip(pairs, maps, strict=True):
            one.describe(subject, found, looks, concerned)
        _compare(subjects, found, [one.probabilities["anchor"] for _, one in pairs])
        records = sorted([*records, *found], key=key)
        if painter is not None:
            kept = {record.row for record in records[:count]}
            pictures = {row: one for row, one in pictures.items() if row in kept}
            if new := [place for place, row in enumerate(batch) if row in kept]:
                pictures |= {batch[place]: seen[0].paint(painter, place, maps) for place in new}
    return Looked(
        records,
        {record.row: pictures[record.row] for record in records[:count]} if painter is not None else {},
        [
            Embeddings(subject.name, *(np.concatenate(views) for views in zip(*collected, strict=True)))
            for subject, collected in zip(subjects, embedded, strict=True)
            if collected
        ],
        {subject.name: dict(subject.without) for subject in subjects},
        order,
        len(split),
        len(annotated),
    )


def chosen_rows(total: int, annotated: Sequence[int], rows: int, seed: int) -> list[int]:
    """
    Indices of rows drawn at random without replacement, ascending: those with a map first, and others if they are too
    few.

    Args:
        total (`int`): how many there are.
        annotated (`Sequence[int]`): indices of those with a map.
        rows (`int`): how many to draw; -1 for all.
        seed (`int`): of the draw.

    Example:

    ```python
    >>> from sage_hf.viewing.rows import chosen_rows
    >>> chosen_rows(100, annotated=[7, 40], rows=2, seed=0)
    [7, 40]

    ```
    """
    if rows < 0 or rows >= total:
        return list(range(total))
    generator = np.random.default_rng(seed)
    marked = generator.permutation(np.array(annotated, dtype=int))
    others = generator.permutation(np.setdiff1d(np.arange(total), marked))
    return sorted(np.concatenate([marked, others])[:rows].tolist())


def _check(total: int, subjects: Sequence[Subject], rows: int, count: int, order: str, name: str) -> None:
    worst_first(order)
    if not total:
        raise DataError(f"{name}: the dataset is empty.")
    if rows == 0 or rows < -1 or count < 0:
        raise ValueError(f"rows={rows} should be 1 or more, or -1 for all, and count={count} not negative.")
    if len(subjects) > 2:
        raise ValueError(f"One or two models can be looked at, not {len(subjects)}.")
    if order in ("maps", "labels", "views") and not subjects:
        raise ValueError(f"order={order!r} sorts by what a model makes of rows: name a model.")
    if order == "models" and (len(subjects) < 2 or set(subjects[0].classes) != set(subjects[1].classes)):
        raise ValueError("order='models' needs two models with the same classes.")


def _reader(split: datasets.Dataset, subject: Subject | None, name: str, **columns: Any) -> TransformedDataset:
    processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}) if subject is None else subject.processor
    channels = 3 if subject is None else subject.num_channels
    # Labels are read by their names, also those that a model doesn't know. One of several annotators' maps would be
    # drawn at random: what is looked at is compared with all of them.
    transform = AlignedTransform(processor, label_column="", num_channels=channels, annotators="mean", **columns)
    check_columns(split, transform, name, labelled=False)
    return TransformedDataset(split.with_format(None), transform, name)


def _compare(subjects: Sequence[Subject], records: Sequence[RowRecord], outputs: Sequence[np.ndarray]) -> None:
    """How much two models with the same outputs differ."""
    if len(subjects) < 2 or set(subjects[0].classes) != set(subjects[1].classes):
        return
    first, second = subjects
    places = [second.classes.index(name) for name in first.classes]
    for record, one, other in zip(records, *outputs, strict=True):
        record.difference = moved(one, other[places], first.problem_type)


class _Batch:
    """Rows as one model is given them, and their views."""

    def __init__(self, reader: TransformedDataset, rows: Sequence[int], degradation: str, seed: tuple[int, int]):
        batch = SaliencyCollator()([reader[row] for row in rows])
        self.pixel_values, self._seed = batch["pixel_values"], seed
        mask = batch.get("saliency_mask", torch.zeros(len(rows), dtype=torch.bool))
        self.places = mask.nonzero().squeeze(1).tolist()
        """Of the rows with a map, in the batch."""
        self.saliency = batch.get("saliency", self.pixel_values.new_zeros(len(rows), 1, *self.pixel_values.shape[-2:]))
        self.views: dict[str, Tensor] = {}
        self.probabilities: dict[str, np.ndarray] = {}
        if self.places:
            which = torch.tensor(self.places)
            made = make_views(
                self.pixel_values, self.saliency, degradation, rows=which, generator=self._generator(degradation)
            )
            self.views = dict(zip(("positive", "negative"), made, strict=True))

    def _generator(self, degradation: str) -> torch.Generator:
        """Of the seed, the batch and the degradation."""
        entropy = (*self._seed, *degradation.encode())
        return torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))

    def encode(self, subject: Subject) -> tuple[np.ndarray, ...] | None:
        """Keep the probabilities by view; return the embeddings of x, x+ and x- of the rows with a map."""
        embeddings = []
        for view, pictures in {"anchor": self.pixel_values, **self.views}.items():
            self.probabilities[view], embedding = subject.outputs(pictures)
            if embedding is not None:
                embeddings.append(embedding[self.places] if view == "anchor" else embedding)
        return tuple(embeddings) if len(embeddings) == 3 else None

    def predicted(self, subject: Subject, place: int) -> set[str]:
        """The classes that a model predicts for a row or its views."""
        if subject.problem_type == REGRESSION:
            return set()
        said = (predicted(one, subject.classes, subject.problem_type) for one in self._of_row(place).values())
        return {name for prediction in said for name in several_of(prediction.label)}

    def _of_row(self, place: int) -> dict[str, np.ndarray]:
        """The probabilities of a row by view."""
        found = {"anchor": self.probabilities["anchor"][place]}
        if place in self.places:
            found |= {view: self.probabilities[view][self.places.index(place)] for view in self.views}
        return found

    def describe(
        self,
        subject: Subject,
        records: Sequence[RowRecord],
        looks: dict[str, Tensor],
        concerned: Sequence[set[str]],
    ) -> None:
        """Add what a model makes of the rows to their records."""
        alignment: list[dict[str, dict[str, float]]] = [{} for _ in records]
        if self.places:
            references = [self.saliency[place, 0].double().numpy() for place in self.places]
            for method, maps in looks.items():
                scores = alignment_scores([maps[place].double().numpy() for place in self.places], references)
                for index, place in enumerate(self.places):
                    alignment[place][method] = {figure: float(scores[figure][index]) for figure in FIGURES}
        for place, record in enumerate(records):
            record.models.append(
                model_record(
                    subject.name,
                    self._of_row(place),
                    subject.classes,
                    subject.problem_type,
                    record.label,
                    alignment[place],
                    concerned[place],
                )
            )

    def paint(self, painter: Painter, place: int, maps: Sequence[dict[str, Tensor]]) -> RowPictures:
        """The pictures of a row of the batch, and where each model looks in it."""
        marked = place in self.places
        drawn = painter.row(
            self.pixel_values[place],
            self.saliency[place] if marked else None,
            {name: view[self.places.index(place)] for name, view in self.views.items()} if marked else {},
            {name: degraded[place] for name, degraded in self._degraded.items()},
        )
        drawn.looks = [painter.looks(drawn.image, one, place) for one in maps]
        return drawn

    @cached_property
    def _degraded(self) -> dict[str, Tensor]:
        """D(x) by name; a picture alone has no other to be shuffled with."""
        return {
            name: degrade(self.pixel_values, self._generator(name))
            for name, degrade in DEGRADATIONS.items()
            if name != "shuffle" or len(self.pixel_values) > 1
        }
