"""The texts of the package's errors and warnings, as patterns: what a message in the documentation must match."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from . import ROOT


def message_patterns(folder: Path = ROOT / "sage_hf") -> dict[str, re.Pattern[str]]:
    """
    Every text of a package that a message could be, with anything in the place of what is filled in.

    Args:
        folder (`Path`, *optional*): of the package.

    Returns:
        `dict[str, re.Pattern]`: patterns by the place in the source (`file:line`), only of texts with several words.
    """
    found = {}
    for path in sorted(folder.rglob("*.py")):
        for line, parts in _texts(ast.parse(path.read_text(encoding="utf-8"))):
            words = sum(len(part.split()) for part in parts if part)
            if words >= 4:
                pattern = "".join("(.+?)" if part is None else re.escape(" ".join(part.split(" "))) for part in parts)
                found[f"{path.relative_to(folder.parent)}:{line}"] = re.compile(pattern, re.DOTALL)
    return found


def source_of(message: str, patterns: dict[str, re.Pattern[str]]) -> str | None:
    """The place in the source that a whole message comes from, that which states most of it; `None` without one."""
    matching = {place: found for place, pattern in patterns.items() if (found := pattern.fullmatch(message))}
    filled = {place: sum(map(len, found.groups())) for place, found in matching.items()}
    best = min(filled, key=lambda place: filled[place], default=None)
    return best if best is not None and filled[best] <= len(message) / 2 else None


def _texts(tree: ast.AST) -> Iterator[tuple[int, list[str | None]]]:
    """Line and parts of each text; `None` stands for what is filled in."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, [part.value if isinstance(part, ast.Constant) else None for part in node.values]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, [node.value]
