"""The parts of this package that a module needs, to stand beside it where sage_hf can't be installed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
STUB = '"""Only the parts of sage_hf that this app needs are here."""\n'


def needed_files(*modules: str) -> dict[str, str]:
    """
    Source files that modules import at their top, and these in turn, as they are; and in place of packages that are
    only passed through, an empty one, so that importing a part does not import what the package is all about.

    Args:
        *modules (`str`): names, such as `"sage_hf.space.demo"`.

    Returns:
        `dict[str, str]`: contents by path relative to the folder that holds the package.

    Example:

    ```python
    >>> from sage_hf.space.parts import needed_files
    >>> sorted(needed_files("sage_hf.data.saliency"))
    ['sage_hf/__init__.py', 'sage_hf/data/__init__.py', 'sage_hf/data/saliency.py']

    ```
    """
    waiting, found = list(modules), {}
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if name in found or path is None:
            continue
        found[name] = path.read_text(encoding="utf-8")
        waiting += [inner for inner, _ in _imports(name, path) if inner.split(".")[0] == PACKAGE.name]
    files = {_relative(_existing(name)): text for name, text in found.items()}
    for name in found:
        parts = name.split(".")
        for length in range(1, len(parts)):
            files.setdefault(_relative(_existing(".".join(parts[:length]))), STUB)
    return dict(sorted(files.items()))


def third_party(files: dict[str, str]) -> set[str]:
    """
    The packages beside the standard library that source files import at their top.

    Args:
        files (`dict[str, str]`): as [`needed_files`] gives them.
    """
    roots: set[str] = set()
    for text in files.values():
        for node in _top(ast.parse(text)):
            if isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                roots.add(str(node.module).split(".")[0])
    return roots - set(sys.stdlib_module_names) - {PACKAGE.name}


def _top(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run on import; those for type checkers alone are inside of an `if`."""
    for node in tree.body:
        yield from node.body if isinstance(node, ast.Try) else [node]


def _imports(name: str, path: Path) -> Iterator[tuple[str, ast.stmt]]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _top(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [base, node.module]))
            inner = [f"{source}.{alias.name}" for alias in node.names]
            # `from . import part` asks for modules, `from .part import name` for what is in one.
            modules = [one for one in inner if _file(one) is not None]
            yield from ((one, node) for one in modules)
            if len(modules) < len(inner):
                yield source, node


def _file(name: str) -> Path | None:
    parts = name.split(".")
    if parts[0] != PACKAGE.name:
        return None
    base = PACKAGE.parent.joinpath(*parts)
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def _existing(name: str) -> Path:
    path = _file(name)
    assert path is not None
    return path


def _relative(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()
