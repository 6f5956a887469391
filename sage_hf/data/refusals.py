"""Rows that can't be used: named, counted, and never at the cost of the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .saliency import DataError

ON_ERROR = ("raise", "skip", "report")


@dataclass(frozen=True)
class Refusal:
    """
    A row that was left out.

    Args:
        file (`str`): its picture, or the file that is damaged.
        row (`int`, *optional*): its line or number in what lists it.
        where (`str`): the same in words.
        reason (`str`): what is wrong.
    """

    file: str
    row: int | None
    where: str
    reason: str

    def __str__(self) -> str:
        return ": ".join([", ".join(filter(None, (self.where, self.file))), self.reason])


class RefusalPolicy:
    """
    What is done about rows that can't be used.

    Args:
        on_error (`str`): `"raise"`, `"skip"`, or `"report"`: skip, and write a file of what was refused and why.
        report (`str` or `Path`, *optional*): that file, JSON Lines; `OUT.refused.jsonl` beside `out` if not given.
        out (`Path`): what is being made.

    Raises:
        `ValueError`: an unknown `on_error`, or a report file without `on_error="report"`.
        `FileExistsError`: the report file exists.
    """

    def __init__(self, on_error: str, report: str | Path | None, out: Path):
        if on_error not in ON_ERROR:
            raise ValueError(f"Unknown on_error {on_error!r}. Choose one of {', '.join(ON_ERROR)}.")
        if report is not None and on_error != "report":
            raise ValueError("A report file is written with on_error='report' (--on-error report).")
        self.on_error = on_error
        self.report = Path(report or out.with_name(f"{out.name}.refused.jsonl")) if on_error == "report" else None
        if self.report is not None and self.report.exists():
            raise FileExistsError(
                f"{self.report} already exists. Choose another report file (--report), or move it away."
            )

    def check(self, refused: Sequence[Refusal], kept: int, outcome: str, note: str) -> None:
        """
        Args:
            refused (`Sequence[Refusal]`): the rows that can't be used.
            kept (`int`): how many others there are.
            outcome (`str`): what has become of those.
            note (`str`): how to go on.

        Raises:
            [`DataError`]: there are refused rows, and `on_error` is `"raise"`, or nothing else is left.
        """
        if not refused or (self.on_error != "raise" and kept):
            return
        shown = [f"  {refusal}" for refusal in refused[:10]]
        more = len(refused) - len(shown)
        shown += [f"  and {more} more"] if more else []
        raise DataError(
            "\n".join(
                [
                    f"{len(refused)} of {len(refused) + kept} rows can't be used; {outcome}.",
                    *shown,
                    "Mend them, or leave them out with on_error='skip' or 'report' (--on-error skip). " + note,
                ]
            )
        )

    def write(self, refused: Sequence[Refusal]) -> None:
        """
        Write the report file, an object a line with `file`, `row`, `where` and `reason`.

        Raises:
            `FileExistsError`: somebody else has written it meanwhile.
        """
        if self.report is None:
            return
        self.report.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.report.open("x", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(refusal)) + "\n" for refusal in refused)
        except FileExistsError:
            raise FileExistsError(f"{self.report} already exists, and was left as it is.") from None
