"""Check a saliency dataset, or count what is in it, in one pass over its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
from tqdm.auto import tqdm

from .checks import CHECKS, Severity
from .reading import Source, open_source
from .set_checks import EXAMPLES, Whole
from .stats import DatasetStats, stats_of
from .survey import Survey

PHASH_DISTANCE = 6
"""Bits of 64 in which the hashes of pictures that look alike may differ."""


@dataclass(frozen=True)
class Finding:
    """
    What a check found.

    Attributes:
        check (`str`): its name, as `allow` takes it.
        severity (`str`): `"error"` or `"warning"`.
        message (`str`): what was found, and how to mend it.
        count (`int`): of rows, maps, pairs or classes, as the message says.
        examples (`list[str]`): up to five of them.
    """

    check: str
    severity: Severity
    message: str
    count: int
    examples: list[str]


@dataclass(frozen=True)
class CheckReport:
    """
    What came of a check.

    Attributes:
        findings (`list[Finding]`): errors first.
        stats ([`DatasetStats`]): the figures of the dataset.
        allowed (`list[str]`): checks whose errors don't count.
    """

    findings: list[Finding]
    stats: DatasetStats
    allowed: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether there is no error but those allowed."""
        return not any(one.severity == "error" and one.check not in self.allowed for one in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "passed": self.passed,
            "findings": [asdict(finding) for finding in self.findings],
            "allowed": self.allowed,
            "stats": self.stats.to_dict(),
        }


def check_dataset(
    dataset: str
    | Path
    | datasets.DatasetDict
    | datasets.Dataset
    | datasets.IterableDatasetDict
    | datasets.IterableDataset,
    *,
    allow: Sequence[str] = (),
    num_proc: int = 1,
    image_column: str = "image",
    saliency_column: str = "saliency",
    label_column: str = "label",
    name: str | None = None,
    revision: str | None = None,
    splits: Sequence[str] | None = None,
    rows: int | None = None,
    phash_distance: int = PHASH_DISTANCE,
) -> CheckReport:
    """
    Read a dataset once and report what would train wrongly, and what would be published that nobody meant to.

    A damaged row is a finding, and never stops the reading. The checks are listed in
    `sage_hf.data.checking.checks.CHECKS`, and by `sage-hf data check --list`; their thresholds are our own.

    Args:
        dataset (`str`, `Path` or a dataset of `datasets`): whatever [`load_saliency_dataset`] opens, or an opened
            dataset or its splits. Pictures and maps are read as they are stored; maps may be missing, null, one a row,
            or a list with one an annotator.
        allow (`Sequence[str]`, *optional*): names of checks whose errors don't fail the dataset.
        num_proc (`int`, *optional*, defaults to 1): threads that decode pictures: they help with photographs of some
            megapixels, and gain nothing on small pictures. The report doesn't depend on it.
        image_column (`str`, *optional*, defaults to `"image"`): name of the picture column.
        saliency_column (`str`, *optional*, defaults to `"saliency"`): name of the saliency column.
        label_column (`str`, *optional*, defaults to `"label"`): name of the label column.
        name (`str`, *optional*): configuration of the dataset.
        revision (`str`, *optional*): branch, tag or commit on the Hub.
        splits (`Sequence[str]`, *optional*): those to read; all if not given.
        rows (`int`, *optional*): read only so many, evenly spread over the dataset (the first ones of streams).
            Duplicates of rows that are left out are not found.
        phash_distance (`int`, *optional*, defaults to 6): pictures count as near duplicates if their perceptual hashes
            (`imagehash.phash`) differ in at most so many of 64 bits, 0 to 16, and 16x16 thumbnails
            correlate by 0.975 or more.

    Returns:
        [`CheckReport`]

    Raises:
        [`DataError`]: the dataset can't be opened, or a column doesn't hold pictures.
        `ValueError`: an unknown name in `allow`, or a number out of its range.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from PIL import Image
    >>> from sage_hf.data import check_dataset
    >>> rows = {"image": [Image.new("RGB", (64, 48))], "saliency": [Image.new("L", (64, 64), 255)], "label": ["a"]}
    >>> report = check_dataset(Dataset.from_dict(rows))
    >>> report.passed, report.findings[0].check, report.findings[0].examples
    (False, 'map-aspect', ['train row 0: the map is 64x64, the picture 64x48'])

    ```
    """
    known = {check.name for check in CHECKS}
    if unknown := sorted(set(allow) - known):
        raise ValueError(f"There is no check {unknown[0]!r} to allow; the checks are {', '.join(sorted(known))}.")
    if not 0 <= phash_distance <= 16:
        raise ValueError(f"phash_distance={phash_distance} should be 0 to 16 bits.")
    source = open_source(
        dataset,
        image_column=image_column,
        saliency_column=saliency_column,
        label_column=label_column,
        name=name,
        revision=revision,
        splits=splits,
        rows=rows,
    )
    counts = {check.name: 0 for check in CHECKS}
    examples: dict[str, list[str]] = {check.name: [] for check in CHECKS}
    survey = Survey(source.measure.class_names)
    for facts in _facts(source, num_proc, "checking"):
        survey.add(facts)
        for check in CHECKS:
            for text in check.of_row(facts) if check.of_row else ():
                counts[check.name] += 1
                if len(examples[check.name]) < EXAMPLES:
                    examples[check.name].append(text)
    stats = stats_of(survey, source.sampled)
    whole = Whole(survey, stats, survey.exact_duplicates(), survey.near_duplicates(phash_distance))
    for check in CHECKS:
        if check.of_dataset is not None:
            found = check.of_dataset(whole)
            counts[check.name], examples[check.name] = found.count, found.examples[:EXAMPLES]
    findings = [
        Finding(check.name, check.severity, check.message, counts[check.name], examples[check.name])
        for check in CHECKS
        if counts[check.name]
    ]
    return CheckReport(findings, stats, sorted(set(allow)))


def dataset_stats(
    dataset: str
    | Path
    | datasets.DatasetDict
    | datasets.Dataset
    | datasets.IterableDatasetDict
    | datasets.IterableDataset,
    *,
    num_proc: int = 1,
    image_column: str = "image",
    saliency_column: str = "saliency",
    label_column: str = "label",
    name: str | None = None,
    revision: str | None = None,
    splits: Sequence[str] | None = None,
    rows: int | None = None,
) -> DatasetStats:
    """
    Count what is in a dataset: rows and annotated rows by split and class, annotators, sizes, coverage, centre bias.

    Args: as [`check_dataset`].

    Returns:
        [`DatasetStats`]

    Raises:
        [`DataError`]: the dataset can't be opened, or a column doesn't hold pictures.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from PIL import Image
    >>> from sage_hf.data import dataset_stats
    >>> rows = {"image": [Image.new("RGB", (64, 48))] * 2, "saliency": [Image.new("L", (64, 48), 255), None]}
    >>> dataset_stats(Dataset.from_dict(rows)).splits
    {'train': {'rows': 2, 'annotated': 1}}

    ```
    """
    source = open_source(
        dataset,
        image_column=image_column,
        saliency_column=saliency_column,
        label_column=label_column,
        name=name,
        revision=revision,
        splits=splits,
        rows=rows,
    )
    survey = Survey(source.measure.class_names)
    for facts in _facts(source, num_proc, "counting"):
        survey.add(facts)
    return stats_of(survey, source.sampled)


def _facts(source: Source, num_proc: int, what: str) -> Any:
    if num_proc < 1:
        raise ValueError(f"num_proc={num_proc} should be 1 or more.")
    total = source.rows if source.sampled else source.total
    return tqdm(source.facts(num_proc), desc=what, unit="row", total=total, disable=None)
