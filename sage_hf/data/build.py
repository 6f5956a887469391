"""Build a dataset folder from pictures, maps and a table of labels: parquet files that anyone can load or upload."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from huggingface_hub import DatasetCard, DatasetCardData
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from .parquet import ShardedWriter
from .saliency import DataError, covering_saliency

FILE_COLUMNS = ("file_name", "file", "filename", "image", "path", "id")
SPLIT_NAMES = {"val": "validation", "valid": "validation", "dev": "validation"}


@dataclass
class BuildReport:
    """What `build_dataset` kept, and what it refused and why."""

    kept: int = 0
    annotated: int = 0
    refused: list[dict[str, Any]] = field(default_factory=list)
    """`row` (line of the table, the header being 1), `file` and `reason` of each refused row."""
    splits: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    """Rows kept of each class."""

    def summary(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        return {
            "kept": self.kept,
            "refused": len(self.refused),
            "annotated": self.annotated,
            "splits": self.splits,
            "classes": self.classes,
            "refused_rows": self.refused,
        }


def build_dataset(
    images: str | Path,
    saliency: str | Path,
    labels: str | Path,
    label_column: str,
    out: str | Path,
    *,
    file_column: str | None = None,
    split_column: str | None = None,
    classes: Sequence[str] | None = None,
    on_error: str = "raise",
) -> BuildReport:
    """
    Write a folder that `load_dataset(out)` opens and `hf upload` can publish, with every picture's bytes inside.

    Its columns are `image` (the file as it is), `saliency` (8-bit grey PNG, null for a row without a map or with a
    blank one) and `label`. A map is found by its picture's path: the same folder and name under `saliency`, with any
    extension.

    Args:
        images (`str` or `Path`): folder of the pictures.
        saliency (`str` or `Path`): folder of the maps.
        labels (`str` or `Path`): CSV table in UTF-8, with a header.
        label_column (`str`): its column of class names.
        out (`str` or `Path`): folder to write; must not exist or be empty.
        file_column (`str`, *optional*): column of picture paths under `images`, the extension may be missing. Found by
            itself if it is named `file_name`, `file`, `filename`, `image`, `path` or `id`.
        split_column (`str`, *optional*): column of split names; everything is `train` if not given.
        classes (`Sequence[str]`, *optional*): the classes, in the order of their indices; rows of any other are
            refused. All that occur, sorted, if not given.
        on_error (`str`, *optional*, defaults to `"raise"`): `"raise"`, or `"skip"` to leave rows out that can't be
            used.

    Returns:
        [`BuildReport`]

    Raises:
        [`DataError`]: nothing to build from, a column that isn't there, no map at all, rows that can't be used with
            `on_error="raise"`.
        `FileExistsError`: `out` holds something.
    """
    images, saliency, labels, out = Path(images), Path(saliency), Path(labels), Path(out).absolute()
    for folder in (images, saliency):
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} already exists and is not empty. Choose another folder, or move it away.")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"Unknown on_error {on_error!r}. Choose one of raise, skip.")
    table = _read_table(labels, label_column, file_column, split_column)
    names = list(classes) if classes else sorted({row.label for row in table if row.label})
    features = datasets.Features(
        {"image": datasets.Image(), "saliency": datasets.Image(mode="L"), "label": datasets.ClassLabel(names=names)}
    )

    report = BuildReport(classes=dict.fromkeys(names, 0))
    # Written beside its place and moved there when whole: a build that was cut off leaves no half-made dataset.
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    partial = scratch / out.name
    writer = ShardedWriter(partial / "data", features)
    picture_of, map_of = _by_stem(images), _by_stem(saliency)
    lines: dict[str, int] = {}
    try:
        for row in tqdm(table, desc="building", unit="row", disable=None):
            try:
                if row.file in lines:
                    raise DataError(f"the picture is listed in line {lines[row.file]} already.")
                example = _example(row, names, picture_of, map_of)
            except DataError as error:
                report.refused.append({"row": row.line, "file": row.file, "reason": str(error)})
                continue
            lines[row.file] = row.line
            writer.write(row.split, example)
            report.kept += 1
            report.annotated += example["saliency"] is not None
            report.classes[row.label] += 1
        if report.refused and (on_error == "raise" or not report.kept):
            raise DataError(_refusal(labels, report))
        if not report.annotated:
            raise DataError(
                f"none of the {report.kept} pictures has a map that marks anything. A map is found by its "
                f"picture's path: {table[0].file!r} under {saliency}, with any extension."
            )
        report.splits = writer.close()
        _write_card(partial, features, report)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        writer.abort()
        shutil.rmtree(scratch, ignore_errors=True)
    return report


@dataclass
class _TableRow:
    line: int
    file: str
    label: str
    split: str


def _read_table(labels: Path, label_column: str, file_column: str | None, split_column: str | None) -> list[_TableRow]:
    try:
        with labels.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or [])
            records = [(reader.line_num, record) for record in reader]
    except FileNotFoundError:
        raise DataError(f"{labels}: there is no such file.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{labels} is not UTF-8 (byte {error.start}). Save it as CSV in UTF-8.") from None
    if file_column is None:
        file_column = next((column for column in FILE_COLUMNS if column in header), None)
        if file_column is None:
            raise DataError(
                f"{labels}: no column of picture files among {header}. Name it with file_column (--file-column)."
            )
    for column in filter(None, (label_column, file_column, split_column)):
        if column not in header:
            raise DataError(f"{labels}: there is no column {column!r}; the columns are {', '.join(header)}.")
    if not records:
        raise DataError(f"{labels} has no rows.")
    rows = []
    for line, record in records:
        split = (record[split_column] or "").strip() if split_column else "train"
        picture, label = (record[file_column] or "").strip(), (record[label_column] or "").strip()
        rows.append(_TableRow(line, picture, label, SPLIT_NAMES.get(split, split)))
    return rows


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Picture files under a folder by their relative path without extension. Links that lead out of it don't count."""
    root = folder.resolve()
    found: dict[str, list[Path]] = {}
    extensions = Image.registered_extensions()
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in extensions and path.is_file() and path.resolve().is_relative_to(root):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return found


def _find(file: str, files: dict[str, list[Path]], what: str) -> Path | None:
    """The file of that relative path; its extension may be missing, or be another one if that leaves one candidate."""
    whole, stem = os.path.normpath(file), os.path.splitext(os.path.normpath(file))[0]
    # The whole name first: an id such as `lesion.v2` has no extension, and `lesion.jpg` is another picture.
    for candidates in (files.get(whole, []), files.get(stem, [])):
        exact = [path for path in candidates if path.as_posix().endswith(whole)] or candidates
        if len(exact) > 1:
            raise DataError(f"several {what} fit: {', '.join(path.name for path in exact)}. Keep one.")
        if exact:
            return exact[0]
    return None


def _example(
    row: _TableRow, names: list[str], picture_of: dict[str, list[Path]], map_of: dict[str, list[Path]]
) -> dict[str, Any]:
    if not row.label:
        raise DataError("it has no class.")
    if row.label not in names:
        raise DataError(f"class {row.label!r} is not one of {', '.join(names)}.")
    if not row.split:
        raise DataError("it has no split.")
    if not re.fullmatch(r"\w+(\.\w+)*", row.split) or row.split == "all":
        raise DataError(
            f"{row.split!r} can't be the name of a split: only letters, digits, _ and . can, and not `all`."
        )
    picture = _find(row.file, picture_of, "pictures") if row.file else None
    if picture is None:
        raise DataError("there is no such picture in the folder.")
    image = _open(picture)
    # The size a reader sees: `datasets` applies the EXIF rotation when it decodes.
    size = ImageOps.exif_transpose(image).size
    marked = _find(row.file, map_of, "maps")
    return {
        "image": {"bytes": picture.read_bytes(), "path": picture.name},
        "saliency": _encoded_map(marked, size) if marked else None,
        "label": names.index(row.label),
    }


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except Exception as error:  # decoders raise anything on a damaged file
        raise DataError(f"{path.name} can't be read: {type(error).__name__}: {error}") from error
    return image


def _encoded_map(path: Path, picture_size: tuple[int, int]) -> dict[str, Any] | None:
    try:
        values = covering_saliency(ImageOps.exif_transpose(_open(path)), picture_size)
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from None
    if values is None:
        return None
    buffer = io.BytesIO()
    Image.fromarray(np.round(values * 255).astype(np.uint8)).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": path.with_suffix(".png").name}


def _refusal(labels: Path, report: BuildReport) -> str:
    shown = [f"  line {row['row']}, {row['file']}: {row['reason']}" for row in report.refused[:10]]
    more = len(report.refused) - len(shown)
    shown += [f"  and {more} more"] if more else []
    return "\n".join(
        [
            f"{labels}: {len(report.refused)} of {len(report.refused) + report.kept} rows can't be used; nothing was "
            "written.",
            *shown,
            "Mend them, or leave them out with on_error='skip' (--on-error skip).",
        ]
    )


def _write_card(folder: Path, features: datasets.Features, report: BuildReport) -> None:
    """
    A README whose YAML gives the features, so that the folder loads alike from disk and from the Hub.

    Splits are told by the names of the files, not by `configs`: with these, `load_dataset` keys its cache of a local
    folder by the YAML alone, and would give the rows of any earlier folder of the same name.
    """
    data = DatasetCardData(task_categories=["image-classification"], tags=["saliency"])
    info = datasets.DatasetInfo(features=features)
    datasets.info.DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    classes = "\n".join(f"| {name} | {count} |" for name, count in report.classes.items())
    text = (
        f"---\n{data.to_yaml()}\n---\n\n# {folder.name}\n\n{report.kept} pictures, "
        f"{report.annotated} of them with a saliency map: where a human marked what matters for the class.\n\n"
        f"| class | pictures |\n|---|---|\n{classes}\n\n"
        '```python\nfrom datasets import load_dataset\n\ndataset = load_dataset("PATH_OR_REPO")\n```\n'
    )
    DatasetCard(text).save(folder / "README.md")
