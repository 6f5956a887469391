"""Build a dataset folder from pictures, labels and any annotation: parquet files that anyone can load or upload."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets.features.features import generate_from_arrow_type
from huggingface_hub import DatasetCardData
from tqdm.auto import tqdm

from ..problem_types import MULTI_LABEL, REGRESSION
from .annotations import MachineSaliency
from .parquet import ShardedWriter
from .parts import SOURCE, MapSettings, Part, PartSettings, done_parts
from .refusals import Refusal, RefusalPolicy
from .saliency import DataError
from .scratch import Scratch
from .sources import RowReader, Source, SourceReader, SourceRow


@dataclass
class BuildReport:
    """What `build_dataset` kept, and what it refused and why."""

    kept: int = 0
    annotated: int = 0
    refused: list[Refusal] = field(default_factory=list)
    """The rows that were left out, in order."""
    splits: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    """Rows kept of each class."""
    machine_made: int = 0
    """Rows whose map a model has made; they count as annotated."""
    reused: int = 0
    """Rows that an earlier run, which was cut off, had done."""
    unused: list[str] = field(default_factory=list)
    """Annotations of pictures that are no row."""

    def summary(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        return {
            "kept": self.kept,
            "refused": len(self.refused),
            "annotated": self.annotated,
            "machine_made": self.machine_made,
            "splits": self.splits,
            "classes": self.classes,
            "reused": self.reused,
            "unused": len(self.unused),
            "refused_rows": [asdict(refusal) for refusal in self.refused],
        }


def build_dataset(
    source: Source | RowReader,
    out: str | Path,
    *,
    classes: Sequence[str] | None = None,
    annotators: str = "mean",
    granularity: str | None = None,
    metadata: str = "keep",
    machine: MachineSaliency | None = None,
    on_error: str = "raise",
    report: str | Path | None = None,
    num_proc: int = 1,
) -> BuildReport:
    """
    Write a folder that `load_dataset(out)` opens and `hf upload` can publish, with every picture's bytes inside.

    Its columns are `image` (the file as it is), `saliency` (8-bit grey PNG, null for a row without a map or with a
    blank one; a list of them if annotators are kept apart) and `label` (a `ClassLabel`, a list of them, or a number).

    Rows are read as a stream and made in parts, which are kept in `.NAME.parts` beside `out` until all is done: a
    build that was interrupted, or had rows to mend, goes on where it was when it is repeated.

    Args:
        source ([`Source`] or `RowReader`): where pictures, labels and annotations are, or what gives the rows.
        out (`str` or `Path`): folder to write; must not exist or be empty.
        classes (`Sequence[str]`, *optional*): the classes, in the order of their indices; rows of any other are
            refused. Those of `source.dataset`, or all that occur in kept rows, sorted, if not given.
        annotators (`str`, *optional*, defaults to `"mean"`): `"mean"`, `"union"` or `"intersection"` of the maps of
            those who marked anything, or `"keep"` for a list of maps, one an annotator.
        granularity (`str`, *optional*): `"box"`, `"area"` or `"feature"`, see [`~annotations.Coarsened`].
        metadata (`str`, *optional*, defaults to `"keep"`): `"strip"` to remove EXIF but the orientation, XMP, IPTC and
            comments from pictures, see [`~metadata.strip_metadata`].
        machine ([`~annotations.MachineSaliency`], *optional*): a model that makes the maps of rows in which nothing is
            marked; `source.saliency` may be empty then. If it makes any, the column `saliency_source` says of each map
            whether it is `human` or `machine: MODEL`.
        on_error (`str`, *optional*, defaults to `"raise"`): what is done about rows that can't be used: `"raise"`, and
            write nothing; `"skip"`; or `"report"`, to skip them and write a file that names them.
        report (`str` or `Path`, *optional*): that file, JSON Lines; `OUT.refused.jsonl` beside `out` if not given.
        num_proc (`int`, *optional*, defaults to 1): processes. With more than one, a script needs the guard
            `if __name__ == "__main__":`, as for every use of `multiprocessing`.

    Returns:
        [`BuildReport`]

    Raises:
        [`DataError`]: nothing to build from, a column that isn't there, no map at all, rows that can't be used with
            `on_error="raise"`.
        `FileExistsError`: `out` holds something, the report file exists, or another process builds `out`.
        `ChildProcessError`: a process was killed.
        `ValueError`: settings that don't go together.

    Example:

    ```python
    >>> from sage_hf.data import Source, build_dataset
    >>> source = Source(images="photos", saliency=("masks",), labels="labels.csv", label_column="class")
    >>> build_dataset(source, "dataset", num_proc=2)  # doctest: +SKIP

    ```
    """
    out = Path(out).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} already exists and is not empty. Choose another folder, or move it away.")
    policy = RefusalPolicy(on_error, report, out)
    maps = MapSettings(annotators, granularity)
    reader = SourceReader(source, annotated=machine is None) if isinstance(source, Source) else source
    settings = PartSettings(maps, reader.problem_type, metadata, machine, tuple(reader.columns.items()))
    if machine is not None:
        machine.load()
    build = _Build(reader, settings, list(classes or reader.class_names or []), num_proc)
    with Scratch(out) as scratch:
        try:
            build.make_parts(scratch.folder)
        except (KeyboardInterrupt, ChildProcessError) as error:
            how = "Interrupted." if isinstance(error, KeyboardInterrupt) else str(error)
            raise type(error)(
                f"{how} {build.done} rows are done, and kept in {scratch.folder}: repeat to go on."
            ) from None
        scratch.keep_only(build.parts)
        result = build.report
        note = f"What is done is kept in {scratch.folder} for the next try."
        policy.check(result.refused, result.kept, "nothing was written", note)
        if not result.kept:
            scratch.remove()
            raise DataError(f"{reader.where} has no rows.")
        if not result.annotated:
            scratch.remove()
            raise DataError(_nothing_marked(source, build))
        # Written beside its place and moved there when whole: a build that was cut off leaves no half-made dataset.
        partial = scratch.folder / out.name
        build.write(partial)
        policy.write(result.refused)
        if out.exists():
            out.rmdir()
        partial.rename(out)
        scratch.remove()
    return result


class _Build:
    """The state of a build: its parts, and what is known of their rows."""

    def __init__(self, reader: RowReader, settings: PartSettings, classes: list[str], num_proc: int):
        self.reader, self.settings, self.classes, self.num_proc = reader, settings, classes, num_proc
        self.report = BuildReport(classes=dict.fromkeys(classes, 0))
        self.parts: list[Path] = []
        self.done = 0
        self.first_file = ""

    def make_parts(self, folder: Path) -> None:
        """Make the parts, and sum up what is in them."""
        labels: Counter[str] = Counter()
        rows = checked(self.reader.rows(), self._check_class)
        with (
            tqdm(total=self.reader.total, desc="building", unit="row", disable=None) as progress,
            closing(done_parts(rows, self.settings, folder, self.num_proc)) as parts,
        ):
            for part in parts:
                self._sum_up(part)
                labels += part.labels
                progress.update(len(part.rows))
        self.report.unused = self.reader.unused
        if self.settings.problem_type != REGRESSION:
            self.classes = self.classes or sorted(labels)
            self.report.classes = {name: labels[name] for name in self.classes}

    def _sum_up(self, part: Part) -> None:
        refusals, kept = refusals_of(part.rows, part.refused)
        self.report.refused += refusals
        self.report.kept += kept
        self.report.annotated += part.annotated
        self.report.machine_made += part.machine_made
        self.report.reused += kept if part.reused else 0
        self.done += len(part.rows)
        self.first_file = self.first_file or part.rows[0].file
        self.parts.append(part.path)

    def _check_class(self, row: SourceRow) -> None:
        if not self.classes or self.settings.problem_type == REGRESSION:
            return
        for name in row.label if isinstance(row.label, tuple) else (row.label,):
            if name not in self.classes:
                raise DataError(f"class {name!r} is not one of {', '.join(self.classes)}.")

    def write(self, folder: Path) -> None:
        """Write shards and card."""
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was cut off
        features = self._features()
        writer = ShardedWriter(folder / "data", features)
        try:
            for path in self.parts:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(batch_size=writer.ROWS):
                        for split, table in self._encoded(batch, features):
                            writer.write_table(split, table)
            self.report.splits = writer.close()
        finally:
            writer.abort()
        _write_card(folder, features, self.report)

    def _features(self) -> datasets.Features:
        grey: Any = datasets.Image(mode="L")
        label: Any = datasets.ClassLabel(names=self.classes)
        if self.settings.problem_type == REGRESSION:
            label = datasets.Value("float32")
        elif self.settings.problem_type == MULTI_LABEL:
            label = datasets.List(label)
        saliency = datasets.List(grey) if self.settings.maps.annotators == "keep" else grey
        source = {SOURCE: datasets.Value("string")} if self.report.machine_made else {}
        further: Any = {name: generate_from_arrow_type(kind) for name, kind in self.settings.columns}
        return datasets.Features({"image": datasets.Image(), "saliency": saliency, "label": label} | source | further)

    def _encoded(self, batch: pa.RecordBatch, features: datasets.Features) -> Iterator[tuple[str, pa.Table]]:
        """The rows of each split, their classes as indices, which are known now that every part is made."""
        schema = features.arrow_schema
        labels, names = batch["label"], pa.array(self.classes, pa.string())
        if self.settings.problem_type == MULTI_LABEL:
            labels = pa.ListArray.from_arrays(labels.offsets, pc.index_in(labels.values, value_set=names))
        elif self.settings.problem_type != REGRESSION:
            labels = pc.index_in(labels, value_set=names)
        columns = {name: labels if name == "label" else batch[name] for name in schema.names}
        table = pa.table([columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema)
        splits = batch["split"]
        for split in splits.unique().to_pylist():
            yield split, table.filter(pc.equal(splits, split))


def checked(rows: Iterable[SourceRow], check: Callable[[SourceRow], None] | None = None) -> Iterator[SourceRow]:
    """
    Rows with an error where they can't be used, as far as that is known without opening their files.

    Args:
        rows (`Iterable[SourceRow]`): read as they are asked for.
        check (`Callable[[SourceRow], None]`, *optional*): raises [`DataError`] for further reasons.
    """
    seen: dict[str, str] = {}
    for row in rows:
        if row.error is not None:
            yield row
            continue
        try:
            _check_text(row)
            # Pictures inside a dataset are rows of their own, whatever names they have or lack.
            path = str(row.picture) if isinstance(row.picture, Path) else ""
            if path in seen:
                raise DataError(f"the picture is listed in {seen[path] or 'the folder'} already.")
            if check is not None:
                check(row)
            if path:
                seen[path] = row.where
            yield row
        except DataError as error:
            yield replace(row, error=str(error))


def _check_text(row: SourceRow) -> None:
    if not row.split:
        raise DataError("it has no split.")
    if not re.fullmatch(r"\w+(\.\w+)*", row.split) or row.split == "all":
        raise DataError(
            f"{row.split!r} can't be the name of a split: only letters, digits, _ and . can, and not `all`."
        )
    for text in (row.file, *(row.label if isinstance(row.label, tuple) else (row.label,))):
        try:
            str(text).encode()
        except UnicodeEncodeError:
            raise DataError(f"{text!r} can't be written in UTF-8. Rename it.") from None


def refusals_of(rows: Sequence[SourceRow], refused: dict[int, str]) -> tuple[list[Refusal], int]:
    """The refusals among rows, those that were found by their work included, and how many rows are left."""
    refusals, place = [], 0
    for row in rows:
        reason = row.error
        if reason is None:
            reason = refused.get(place)
            place += 1
        if reason is not None:
            refusals.append(Refusal(row.file, row.row, row.where, reason))
    return refusals, len(rows) - len(refusals)


def _nothing_marked(source: Source | RowReader, build: _Build) -> str:
    if not isinstance(source, Source):
        return f"{source.where}: none of the {build.report.kept} pictures has a map that marks anything."
    where = ", ".join(map(str, source.saliency)) or str(source.dataset)
    return (
        f"none of the {build.report.kept} pictures has a map that marks anything. A map is found by its picture's "
        f"path: {build.first_file!r} under {where}, with any extension; other annotations name their pictures."
    )


def _who(report: BuildReport) -> str:
    if not report.machine_made:
        return "a human"
    machine = f"a model (`{SOURCE}`)"
    people = report.annotated - report.machine_made
    return f"a human ({people}) or {machine} ({report.machine_made})" if people else machine


def _write_card(folder: Path, features: datasets.Features, report: BuildReport) -> None:
    """
    A README whose YAML gives the features, so that the folder loads alike from disk and from the Hub.

    Splits are told by the names of the files, not by `configs`: with these, `load_dataset` keys its cache of a local
    folder by the YAML alone, and would give the rows of any earlier folder of the same name.
    """
    from ..hub.sections import BUILT, section

    data = DatasetCardData(task_categories=["image-classification"], tags=["saliency"])
    info = datasets.DatasetInfo(features=features)
    datasets.info.DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    classes = "\n".join(f"| {name} | {count} |" for name, count in report.classes.items())
    table = f"| class | pictures |\n|---|---|\n{classes}\n\n" if classes else ""
    text = (
        f"# {folder.name}\n\n{report.kept} pictures, "
        f"{report.annotated} of them with a saliency map: where {_who(report)} marked what matters.\n\n{table}"
        '```python\nfrom datasets import load_dataset\n\ndataset = load_dataset("PATH_OR_REPO")\n```\n'
    )
    # A push replaces what stands as it was written, and keeps what is changed or added.
    card = f"---\n{data.to_yaml()}\n---\n\n{section(BUILT, text)}\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
