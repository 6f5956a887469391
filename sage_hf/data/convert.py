"""Any annotation as a folder of grey maps, named like their pictures."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from ..version import __version__
from .build import checked, refusals_of
from .parts import MapSettings, cut, fingerprint, usable
from .pictures import check_picture, encoded_map, read_file
from .refusals import Refusal, RefusalPolicy
from .saliency import DataError
from .sources import Source, SourceReader, SourceRow
from .workers import in_order

RECORD = ".sage_hf_convert.json"
"""File in the folder that says with which settings its maps were made."""
NOTE = "sage_hf"
"""Text in each map's file that says what it was made from."""


@dataclass
class ConvertReport:
    """What `convert_annotations` made, and what it refused and why."""

    pictures: int = 0
    """Pictures that could be read, with annotations or without."""
    annotated: int = 0
    """Pictures with a map."""
    maps: int = 0
    """Map files: more than pictures if annotators are kept apart."""
    reused: int = 0
    """Pictures whose maps were there already, made from the same."""
    refused: list[Refusal] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    """Annotations of pictures that are no row."""

    def summary(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        figures = {name: getattr(self, name) for name in ("pictures", "annotated", "maps", "reused")}
        return figures | {
            "refused": len(self.refused),
            "unused": len(self.unused),
            "refused_rows": [asdict(refusal) for refusal in self.refused],
        }


def convert_annotations(
    source: Source,
    out: str | Path,
    *,
    annotators: str = "mean",
    granularity: str | None = None,
    on_error: str = "raise",
    report: str | Path | None = None,
    num_proc: int = 1,
) -> ConvertReport:
    """
    Write a map of each annotated picture, an 8-bit grey PNG file of the picture's relative path.

    The maps of several annotators that are kept apart are in folders `1/`, `2/`, ...: the first one of each picture,
    the second one, and so on. Repeated with the same settings, it keeps the maps that are there, makes those whose
    picture or annotation has changed, and removes its maps of what is marked no longer, or of pictures that are gone.

    Args:
        source ([`Source`]): where pictures and annotations are; labels are not needed.
        out (`str` or `Path`): folder of the maps; must not exist, be empty, or be of an earlier run.
        annotators (`str`, *optional*, defaults to `"mean"`): see [`build_dataset`].
        granularity (`str`, *optional*): see [`build_dataset`].
        on_error (`str`, *optional*, defaults to `"raise"`): as for [`build_dataset`], but good rows are converted in
            any case before an error is raised.
        report (`str` or `Path`, *optional*): see [`build_dataset`].
        num_proc (`int`, *optional*, defaults to 1): see [`build_dataset`].

    Returns:
        [`ConvertReport`]

    Raises:
        [`DataError`]: nothing to convert, or rows that can't be used with `on_error="raise"`.
        `FileExistsError`: `out` holds something else, or maps of other settings.
        `ChildProcessError`: a process was killed.

    Example:

    ```python
    >>> from sage_hf.data import Source, convert_annotations
    >>> source = Source(images="photos", saliency=("annotations.json",))
    >>> convert_annotations(source, "maps")  # doctest: +SKIP

    ```
    """
    out = Path(out).absolute()
    maps = MapSettings(annotators, granularity)
    policy = RefusalPolicy(on_error, report, out)
    images = None if source.images is None else Path(source.images).absolute()
    if images is not None and (out == images or images in out.parents):
        raise ValueError(f"{out} is inside the folder of the pictures, {images}. Choose another folder.")
    reader = SourceReader(source, labelled=False)
    record = out / RECORD
    made_by = {
        "version": __version__,
        "settings": hashlib.sha256(repr((_absolute(source), maps)).encode()).hexdigest(),
    }
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and _read_record(record) != made_by:
        raise FileExistsError(
            f"{out} already exists, and was not made with these settings. Choose another folder, or move it away."
        )
    out.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(made_by) + "\n", encoding="utf-8")

    result = ConvertReport()
    targets: dict[str, str] = {}

    def check_target(row: SourceRow) -> None:
        target = target_of(row, source.images)
        if target in targets:
            mend = "Rename one of them" if source.images else "Name a column of ids that differ (--id-column)"
            raise DataError(f"its map would be {target}, which is that of {targets[target]}. {mend}.")
        targets[target] = row.file if source.images else f"{row.where}, {row.file}"

    tasks = ((part, (usable(part), maps, source.images, out)) for part in cut(checked(reader.rows(), check_target)))
    done, whole = 0, True
    try:
        with (
            tqdm(total=reader.total, desc="converting", unit="row", disable=None) as progress,
            closing(in_order(tasks, make_maps, num_proc)) as results,
        ):
            for part, (made, refused) in results:
                refusals, kept = refusals_of(part, refused)
                result.refused += refusals
                result.pictures += kept
                result.annotated += made["annotated"]
                result.maps += made["maps"]
                result.reused += made["reused"]
                whole = whole and all(row.error is None for row in part)
                done += len(part)
                progress.update(len(part))
    except (KeyboardInterrupt, ChildProcessError) as error:
        how = "Interrupted." if isinstance(error, KeyboardInterrupt) else str(error)
        raise type(error)(f"{how} {done} rows are done, and stay in {out}: repeat to go on.") from None
    result.unused = reader.unused
    if not whole and reader.pictures is not None:  # rows that were refused may be of any picture
        targets |= {_map_of(name): name for name in reader.pictures.names}
    if result.pictures and (whole or reader.pictures is not None):
        _remove_others(targets, maps, out)
    outcome = f"{result.maps} maps of others are in {out}"
    policy.check(result.refused, result.pictures, outcome, "Maps that are there are not made again.")
    if not result.maps:
        where = ", ".join(map(str, source.saliency)) or str(source.dataset)
        raise DataError(f"{where}: nothing is marked in any of the {result.pictures} pictures.")
    policy.write(result.refused)
    return result


def _read_record(record: Path) -> Any:
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def target_of(row: SourceRow, images: str | Path | None) -> str:
    """
    The relative path of a row's map.

    Raises:
        [`DataError`]: the id of a dataset's row that would lead out of the folder.
    """
    if isinstance(row.picture, Path) and images is not None:
        return _map_of(row.picture.relative_to(images))
    path = os.path.normpath(row.file.replace("\\", "/"))
    if os.path.isabs(path) or path.split("/")[0] in ("..", ".") or "\0" in path:
        raise DataError(f"its id {row.file[:80]!r} can't be the name of a file.")
    # Ids of a dataset may have dots of their own.
    stem, extension = os.path.splitext(path)
    return f"{stem if extension.lower() in Image.registered_extensions() else path}.png"


def _map_of(name: str | Path) -> str:
    return Path(name).with_suffix(".png").as_posix()


def make_maps(
    rows: list[SourceRow], settings: MapSettings, images: str | Path | None, out: Path
) -> tuple[dict[str, int], dict[int, str]]:
    """
    Write the maps of rows, but those that are there already.

    Returns:
        `tuple[dict[str, int], dict[int, str]]`: how many, and why rows were found unusable by their place.
    """
    made = {"annotated": 0, "maps": 0, "reused": 0}
    folders = _folders(settings, out)
    refused: dict[int, str] = {}
    for index, row in enumerate(rows):
        try:
            count, reused = _make(row, settings, target_of(row, images), out, folders)
        except DataError as error:
            refused[index] = str(error)
            continue
        except Exception as error:  # no row may cost the others, whatever is found in it
            refused[index] = f"{type(error).__name__}: {error}"
            continue
        made["annotated"] += count > 0
        made["maps"] += count
        made["reused"] += reused
    return made, refused


def _make(row: SourceRow, settings: MapSettings, target: str, out: Path, folders: list[Path]) -> tuple[int, bool]:
    """The number of a row's maps, and whether they were there."""
    assert row.picture is not None
    key = fingerprint(settings, [row])
    there = [path for folder in folders if os.path.lexists(path := folder / target)]
    found = [_note_of(path) for path in there]
    if found and all(note == f"{key} {len(found)}" for note in found):
        return len(found), True
    for path, note in zip(there, found, strict=True):
        if note is None:
            raise DataError(f"{path} is there already, and is no map that was made here. Move it away.")
    content = row.picture if isinstance(row.picture, bytes) else read_file(row.picture)
    maps = settings.maps(row, check_picture(content, os.path.basename(row.file)))
    paths = [_path_of(target, settings, index, out) for index in range(len(maps))]
    for path, values in zip(paths, maps, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        scratch.write_bytes(encoded_map(values, {NOTE: f"{key} {len(maps)}"}))
        os.replace(scratch, path)
    for path in set(there) - set(paths):
        path.unlink()  # what was marked has been withdrawn
    return len(maps), False


def _absolute(source: Source) -> Source:
    """The same, wherever it is asked from: relative paths may be those of other files elsewhere."""
    paths: dict[str, Any] = {"saliency": tuple(str(Path(path).absolute()) for path in source.saliency)}
    for name in ("images", "labels", "dataset"):
        path = getattr(source, name)
        if path is not None and (name != "dataset" or Path(path).exists()):  # or it is the id of one on the Hub
            paths[name] = str(Path(path).absolute())
    return replace(source, **paths)


def _path_of(target: str, settings: MapSettings, index: int, out: Path) -> Path:
    return out / str(index + 1) / target if settings.annotators == "keep" else out / target


def _folders(settings: MapSettings, out: Path) -> list[Path]:
    """Where a picture's maps may be: annotators that are kept apart may have been more in an earlier run."""
    if settings.annotators != "keep":
        return [out]
    return [out / number for number in sorted(os.listdir(out)) if number.isdecimal() and (out / number).is_dir()]


def _remove_others(targets: dict[str, str], settings: MapSettings, out: Path) -> None:
    """Remove maps that were made here of pictures that are no row any more."""
    for folder in _folders(settings, out):
        for parent, below, names in os.walk(folder):
            below[:] = [name for name in below if not Path(parent, name, RECORD).exists()]  # maps of another run
            for name in names:
                path = Path(parent, name)
                of_a_row = path.relative_to(folder).as_posix() in targets
                if name.endswith(".png") and not of_a_row and _note_of(path):
                    path.unlink()


def _note_of(path: Path) -> str | None:
    """What a map was made from, empty if it is damaged, `None` if it is none of ours."""
    note = None
    try:
        with Image.open(path, formats=["PNG"]) as image:
            note = image.info.get(NOTE)
            image.load()
    except Exception:  # decoders raise anything on a damaged file
        return None if note is None else ""
    return note
