"""The dataset card, written from the figures of a dataset."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import yaml
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData
from jinja2 import Environment, StrictUndefined

from .. import __version__
from .sections import FRONT_MATTER, front_matter, section
from .templates import template_path

SAMPLES = "saliency_samples.png"
TAGS = ["saliency", "sage_hf"]
SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
DATA_FILES = "data/{split}-*"


@dataclass
class DatasetRecord:
    """
    What a dataset card says. Values that were neither measured nor given are `None` or empty, never guessed.

    Args:
        repo_id (`str`): where it is published.
        features (`datasets.Features`): its columns.
        rows (`dict[str, int]`): of each split.
        num_bytes (`dict[str, int]`): of each split, uncompressed.
        download_size (`int`): of all files, in bytes.
        stats (`dict`): [`~sage_hf.data.DatasetStats`] as JSON.
        findings (`list[dict]`): what [`~sage_hf.data.check_dataset`] found: `check`, `severity`, `message`, `count`.
        columns (`dict[str, str]`): names of the columns `image`, `saliency` and `label`.
        sources (`dict[str, int]`): maps by what made them: `human`, `machine: MODEL_ID`; empty if that is not told.
        annotation (`str`, *optional*): how the maps came about, in words.
        granularity (`str`, *optional*): how finely they were marked, in words.
        source (`str`, *optional*): where the pictures come from, in words or as an address.
        license (`str`, *optional*): identifier of the licence.
        citation (`str`, *optional*): BibTeX.
        samples (`str`, *optional*): caption of the sheet of samples, if there is one.
        version (`str`, *optional*): of sage_hf.
    """

    repo_id: str
    features: datasets.Features
    rows: dict[str, int]
    num_bytes: dict[str, int]
    download_size: int
    stats: dict[str, Any]
    findings: list[dict[str, Any]]
    columns: dict[str, str]
    sources: dict[str, int] = field(default_factory=dict)
    annotation: str | None = None
    granularity: str | None = None
    source: str | None = None
    license: str | None = None
    citation: str | None = None
    samples: str | None = None
    version: str = __version__

    @property
    def several_annotators(self) -> bool:
        """Whether the maps of several annotators are kept apart."""
        return isinstance(self.features.get(self.columns["saliency"]), (datasets.List, datasets.LargeList))


def render_dataset_card(record: DatasetRecord, template: str | Path | None = None) -> str:
    """
    The text of a card.

    Args:
        record ([`DatasetRecord`]): what it says.
        template (`str` or `Path`, *optional*): a Jinja template of your own. It is given `record`, `stats`,
            `card_data` (the front matter), `samples` (the picture's file name), the filters `cell` (text in a table)
            and `percent`, and `section(name)` for `{% call section("limits") %} ... {% endcall %}`, which a later push
            may refresh.
    """
    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": cell, "percent": percent}
    path = Path(template) if template is not None else template_path("dataset_card.md")

    def named_section(name: str, caller: Callable[[], str]) -> str:
        return section(name, caller())

    return environment.from_string(path.read_text(encoding="utf-8")).render(
        record=record,
        stats=record.stats,
        card_data=front_matter(card_data(record)).rstrip("\n"),
        samples=SAMPLES,
        section=named_section,
    )


def card_data(record: DatasetRecord) -> dict[str, Any]:
    """The front matter: what the Hub searches by, and what `load_dataset` loads by."""
    total = sum(record.rows.values())
    label = record.features.get(record.columns["label"])
    names = label is not None and "ClassLabel" in repr(label)
    data = DatasetCardData(
        license=record.license,
        task_categories=["image-classification"] if names else None,
        tags=TAGS,
        size_categories=[size_category(total)],
    )
    splits = datasets.SplitDict()
    for name, rows in record.rows.items():
        splits.add(datasets.SplitInfo(name, num_bytes=record.num_bytes[name], num_examples=rows))
    info = datasets.DatasetInfo(
        features=record.features,
        splits=splits,
        download_size=record.download_size,
        dataset_size=sum(record.num_bytes.values()),
    )
    datasets.info.DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    files = [{"split": name, "path": DATA_FILES.format(split=name)} for name in record.rows]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(data)
    return data.to_dict()


def keep_other_configs(generated: str, there: str | None) -> str:
    """
    A generated card with the configurations beside `default` that the one on the Hub has: their files stay too.

    Args:
        generated (`str`): the card anew.
        there (`str`, *optional*): the card on the Hub.
    """
    old, new = _front(there or ""), _front(generated)
    for key in ("configs", "dataset_info"):
        entries = old.get(key) or []
        others = [
            one for one in (entries if isinstance(entries, list) else [entries]) if _config_name(one) != "default"
        ]
        if others:
            own = new[key] if isinstance(new[key], list) else [{"config_name": "default"} | new[key]]
            new[key] = own + others
    found = FRONT_MATTER.match(generated)
    return f"---\n{front_matter(new)}---\n{generated[found.end() :]}" if found else generated


def _front(card: str) -> dict[str, Any]:
    found = FRONT_MATTER.match(card)
    try:
        data = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        raise ValueError(f"The front matter of README.md on the Hub is not YAML: {error}") from None
    return data if isinstance(data, dict) else {}


def _config_name(entry: Any) -> str:
    return str(entry.get("config_name", "default")) if isinstance(entry, dict) else "default"


def size_category(rows: int) -> str:
    """
    The Hub's name for a number of rows.

    Example:

    ```python
    >>> from sage_hf.hub.dataset_card import size_category
    >>> size_category(999), size_category(1000), size_category(250_000)
    ('n<1K', '1K<n<10K', '100K<n<1M')

    ```
    """
    if rows < SIZES[0]:
        return "n<1K"
    for low, high in pairwise(SIZES):
        if rows < high:
            return f"{_short(low)}<n<{_short(high)}"
    return "n>1B" if rows < 10_000_000_000 else "10B<n<100B"


def _short(number: int) -> str:
    for unit, name in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")):
        if number >= unit:
            return f"{number // unit}{name}"
    return str(number)


def cell(text: Any) -> str:
    """Text that stays text, and in its cell of a Markdown table."""
    flat = re.sub(r"\s+", " ", str(text)).strip()
    return re.sub(r"([\\|`*_\[\]<>])", r"\\\1", flat)


def percent(share: float) -> str:
    """A share in [0, 1] as per cent, to one digit; more where there would be none left."""
    return f"{100 * share:.1f} %" if share == 0 or share >= 0.0005 else f"{100 * share:.2g} %"
