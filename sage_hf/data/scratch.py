"""A folder beside what is being made, that outlives a run which was cut off."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout


class Scratch:
    """
    Held by one run at a time; what another has left in it is found again.

    Args:
        out (`Path`): what is being made; the folder is `.NAME.parts` beside it.

    Raises:
        `FileExistsError`: on entering: another run makes the same.
    """

    def __init__(self, out: Path):
        self.out, self.folder = out, out.with_name(f".{out.name}.parts")
        self._lock = FileLock(self.folder / "lock", timeout=0)

    def __enter__(self) -> Scratch:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise FileExistsError(f"{self.out} is being made by another process.") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Nothing to be found again: a mistake that was noticed before any part was done.
        if not any(self.folder.glob("*.parquet")):
            self.remove()
        self._lock.release()

    def keep_only(self, used: Collection[Path]) -> None:
        """Remove the parts that other settings or rows have left."""
        for path in self.folder.glob("*.parquet*"):
            if path not in used:
                path.unlink()

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
