"""The rows of a dataset that exists already, streamed, with the picture files' bytes as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets.utils.file_utils import xopen
from huggingface_hub.errors import RepositoryNotFoundError

from ...problem_types import MULTI_LABEL
from ..labels import class_names_of, inner_feature, problem_type_of
from ..paths import check_folder
from ..saliency import DataError
from .annotation_tables import FILE_COLUMNS
from .tables import text_of


@dataclass(frozen=True)
class DatasetRow:
    """A row before annotations are joined to it."""

    split: str
    number: int
    identity: str
    picture: Path | bytes | None
    label: Any
    saliency: list[bytes]
    """The map files that it has already."""
    error: str | None = None


class ExistingDataset:
    """
    A dataset of the Hub or a folder, whose other columns than picture, label and maps are left behind.

    Labels that are lists of 0 or 1 for each class become lists of the classes that are present, called `LABEL_0`, ...
    as training calls them. Lists of whole numbers are told apart as training does: by all of them, read beforehand.

    Args:
        path (`str`): Hub id, or folder that `load_dataset` or `load_from_disk` reads.
        name (`str`, *optional*): configuration.
        revision (`str`, *optional*): branch, tag or commit on the Hub.
        id_column (`str`, *optional*): column that annotations are joined by; found by itself if it has a usual name.
        image_column (`str`, *optional*, defaults to `"image"`): column of pictures.
        label_column (`str`, *optional*, defaults to `"label"`): column of labels.
        labelled (`bool`, *optional*, defaults to `True`): whether labels are needed.
        with_saliency (`bool`, *optional*, defaults to `False`): whether its own column `saliency` is read.

    Raises:
        [`~sage_hf.data.DataError`]: there is no such dataset or column.
    """

    def __init__(
        self,
        path: str,
        *,
        name: str | None = None,
        revision: str | None = None,
        id_column: str | None = None,
        image_column: str = "image",
        label_column: str | None = None,
        labelled: bool = True,
        with_saliency: bool = False,
    ):
        self.path, self.image_column, self.label_column = path, image_column, label_column or "label"
        self.splits = _opened(path, name, revision)
        first = next(iter(self.splits.values()))
        self.features = datasets.Features(first.features or {})
        for column in (image_column, *([self.label_column] if labelled else []), *([id_column] if id_column else [])):
            if column not in self.features:
                raise DataError(f"{path}: there is no column {column!r}; the columns are {', '.join(self.features)}.")
        if not isinstance(self.features[image_column], datasets.Image):
            raise DataError(f"{path}: column {image_column!r} holds {self.features[image_column]}, not pictures.")
        usual = (column for column in FILE_COLUMNS if column in self.features and column != image_column)
        self.id_column = id_column or next(usual, None)
        self.saliency_column = "saliency" if with_saliency and "saliency" in self.features else None
        self.label_feature = self.features.get(self.label_column) if labelled else None
        self.class_names = class_names_of(self.label_feature)
        self.problem_type = problem_type_of(self.label_feature)
        self.numbered = self._numbered()
        if self.numbered:
            self.class_names = [f"LABEL_{index}" for index in range(self.numbered)]
        self.root = Path(path).resolve() if Path(path).is_dir() else None

    def _numbered(self) -> int:
        """How many numbers each label is a list of; 0 if it is anything else."""
        dtype = getattr(inner_feature(self.label_feature), "dtype", "")
        if self.problem_type != MULTI_LABEL or self.class_names is not None:
            return 0
        if not dtype.startswith(("int", "uint", "float", "bool")):
            return 0
        # Imported here: it loads torch, which few datasets need this for.
        from ..loading import _numbers_for_each_label as numbers_for_each_label

        labels = self._labels()
        first = next(labels, [])
        if not numbers_for_each_label([first]):
            return 0
        # Floating-point numbers are no classes; whole ones are looked at to the end.
        told = dtype.startswith("float") or all(numbers_for_each_label([first, label]) for label in labels)
        return len(first) if told else 0

    def _labels(self) -> Iterator[list[Any]]:
        """Every label that can be read; what can't is refused where rows are made."""
        for rows in self.splits.values():
            for shard in _shards(rows.select_columns([self.label_column])):
                with suppress(Exception):
                    yield from (row[self.label_column] for row in shard if row[self.label_column] is not None)

    def __iter__(self) -> Iterator[DatasetRow]:
        for split, rows in self.splits.items():
            number = 0
            for shard in _shards(self._raw(rows)):
                try:
                    for row in shard:
                        number += 1
                        yield self._row(split, number, row)
                except Exception as error:  # whatever a reader of damaged files raises; other shards may be whole
                    reason = f"it and the rest of its file can't be read: {type(error).__name__}: {error}"
                    number += 1
                    yield DatasetRow(split, number, "", None, None, [], reason)

    def _raw(self, rows: Any) -> Any:
        """The columns that are read, with files as bytes and paths: decoding would cost time and change the bytes."""
        kept = [self.image_column, self.id_column, self.saliency_column]
        kept += [self.label_column] if self.label_feature is not None else []
        if isinstance(rows, datasets.IterableDataset):
            # The files of a repository are decoded by threads, which a cast comes too late for.
            rows = rows.decode(False)
        rows = rows.select_columns(list(dict.fromkeys(filter(None, kept))))
        rows = rows.cast_column(self.image_column, datasets.Image(decode=False))
        if self.saliency_column:
            feature: Any = datasets.Image(decode=False)
            if isinstance(self.features[self.saliency_column], datasets.List):
                feature = datasets.List(feature)
            rows = rows.cast_column(self.saliency_column, feature)
        return rows

    def _row(self, split: str, number: int, row: dict[str, Any]) -> DatasetRow:
        identity, label, error = "", None, None
        picture: Path | bytes | None = None
        saliency: list[bytes] = []
        try:
            stored = row[self.image_column] or {}
            identity = text_of(row[self.id_column]) if self.id_column else Path(stored.get("path") or "").name
            identity = identity or f"row {number}"
            picture = self._file(stored)
            label = self._label(row.get(self.label_column))
            maps = row[self.saliency_column] if self.saliency_column else None
            listed = maps if isinstance(maps, list) else [maps]
            saliency = [self._bytes(one) for one in listed if one]
        except DataError as failure:
            error = str(failure)
        except Exception as failure:  # no row may cost the others, whatever is found in it
            error = f"{type(failure).__name__}: {failure}"
        return DatasetRow(split, number, identity, picture, label, saliency, error)

    def _label(self, label: Any) -> Any:
        """Class indices by their names; -1 is how the Hub's hidden labels are written."""
        if self.class_names is None or label is None:
            return label
        if self.numbered:
            if len(label) != self.numbered:
                raise DataError(f"its label is {len(label)} numbers, and that of the first row {self.numbered}.")
            if not all(number in (0, 1) for number in label):
                raise DataError(
                    f"its label {label} holds other numbers than 0 and 1, and a dataset that is built lists the "
                    "classes that are present. Round the column, or train on this dataset as it is."
                )
            return [name for name, number in zip(self.class_names, label, strict=True) if number]
        if isinstance(label, list):
            return [self.class_names[index] for index in label]
        return self.class_names[label] if 0 <= label < len(self.class_names) else None

    def _bytes(self, stored: dict[str, Any]) -> bytes:
        picture = self._file(stored)
        return picture if isinstance(picture, bytes) else picture.read_bytes()

    def _file(self, stored: dict[str, Any]) -> Path | bytes:
        if stored.get("bytes"):
            return bytes(stored["bytes"])
        path = str(stored.get("path") or "")
        if not path:
            raise DataError("it has no picture.")
        if self.root is None and path.startswith(f"hf://datasets/{self.path}"):
            with xopen(path, "rb") as file:
                return bytes(file.read())
        if self.root is None or "://" in path or not Path(path).resolve().is_relative_to(self.root):
            raise DataError(f"its picture is not inside the dataset, but at {path}. Save it with the files embedded.")
        return Path(path)


def _opened(path: str, name: str | None, revision: str | None) -> dict[str, Any]:
    check_folder(path)
    folder = Path(path)
    try:
        if (folder / "dataset_dict.json").is_file():
            return dict(datasets.load_from_disk(path))
        if (folder / "state.json").is_file():
            return {"train": datasets.load_from_disk(path)}
        splits = datasets.load_dataset(path, name, revision=revision, streaming=True)
        return {split: rows if rows.features else rows._resolve_features() for split, rows in splits.items()}
    except (FileNotFoundError, datasets.exceptions.DatasetNotFoundError, RepositoryNotFoundError) as error:
        raise DataError(
            f"{path!r} is neither a folder here nor a dataset on the Hub that you can read: {error}"
        ) from error
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{path!r} can't be opened as a dataset: {type(error).__name__}: {error}") from error


def _shards(rows: Any) -> Iterator[Any]:
    if isinstance(rows, datasets.Dataset):
        yield rows
        return
    for index in range(rows.num_shards):
        yield rows.shard(rows.num_shards, index)
