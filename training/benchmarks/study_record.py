"""Runs of a comparison in one JSON file, which goes on where it stopped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def matching(runs: Sequence[dict[str, Any]], key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The runs of a key, in their order."""
    return [run for run in runs if all(run[name] == value for name, value in key.items())]


class Record:
    """
    Runs in one JSON file, with what they were computed on, so that an interrupted comparison goes on where it stopped.

    For comparisons that are no [`Study`]: without a search, and without tests.
    """

    def __init__(self, path: Path):
        self.path = path
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": []}

    @property
    def runs(self) -> list[dict[str, Any]]:
        """All that were done."""
        runs: list[dict[str, Any]] = self.content["runs"]
        return runs

    def todo(self, keys: Iterable[dict[str, Any]], minutes: float = math.inf) -> Iterator[dict[str, Any]]:
        """Those of the keys that no run has, one after the other, until that time has passed."""
        started = time.perf_counter()
        for key in keys:
            if matching(self.runs, key):
                continue
            if time.perf_counter() - started > 60 * minutes:
                print("Time is up. The same command goes on.\n")
                return
            yield key

    def add(self, run: dict[str, Any]) -> None:
        """Append a run, and write the file."""
        self.runs.append(run)
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")
