"""
Hugging Face's docstrings as griffe reads them: a griffe extension.

Arguments are written ``name (`type`, *optional*, defaults to `x`):``, references [`name`] or [`~path.name`]. Griffe
reads Google's form, in which the type is bare and the default comes from the signature; links are [`name`][path].
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import Any

import griffe

from .names import NameIndex

SECTIONS = {"Args", "Returns", "Raises", "Yields", "Attributes"}
ARGUMENT = re.compile(r"^(?P<name>\*{0,2}\w+) \((?P<type>[`\[].+?|callable.*?)\):(?=\s|$)(?P<text>.*)$")
TYPED = re.compile(r"^(?P<type>\[?`[^`]+`\]?(?: or \[?`[^`]+`\]?)*):(?=\s|$)(?P<text>.*)$")
SEVERAL = re.compile(r"^(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)+)(?P<rest> \(.+?\):|:)(?=\s|$)")
REFERENCE = re.compile(r"\[`(?P<path>~?[\w.]+)`\](?!\[|\()")
MATH = re.compile(r"\\\((.+?)\\\)")
SYMBOLS = {r"\alpha": "\N{GREEK SMALL LETTER ALPHA}", r"\lambda": "λ", r"\in": "∈"}


class HuggingFaceDocstrings(griffe.Extension):
    """Rewrites every docstring of the package as it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Called by griffe with the whole package."""
        index = NameIndex(pkg)
        for one in index.objects.values():
            if one.docstring is not None:
                one.docstring.value = rewrite(one.docstring.value, lambda path, one=one: index.find(path, one))


def rewrite(docstring: str, find: Callable[[str], str | None]) -> str:
    """
    A docstring in the form that griffe's parser for Google's docstrings takes.

    Args:
        docstring (`str`): in Hugging Face's form.
        find (`Callable`): the path of what a reference names, `None` if it is of another package.
    """
    lines: list[str] = []
    section, indent, fenced = None, 0, False
    for line in _one_argument_a_line(docstring.splitlines()):
        text, depth = line.strip(), len(line) - len(line.lstrip())
        if text.startswith("```"):
            fenced = not fenced
        if fenced or text.startswith("```"):
            lines.append(line)
            continue
        if text.removesuffix(":") in SECTIONS and text.endswith(":"):
            section, indent = text.removesuffix(":"), depth
            lines.append(line)
            continue
        if text and depth <= indent:
            section = None
        entry = " " * depth + _entry(text, section) if text and section and depth == indent + 4 else line
        if _begins_list(text, lines):
            lines.append("")
        # What is indented outside a section is code.
        lines.append(entry if text and depth >= indent + 4 and section is None else _inline(entry, find))
    return _as_session("\n".join(lines))


def _one_argument_a_line(lines: list[str]) -> Iterator[str]:
    """Arguments that share a description, `a, b (`str`): names`, each with a copy of its first line."""
    inside = False
    for line in lines:
        inside = (inside and (not line.strip() or line.startswith(" "))) or line == "Args:"
        found = SEVERAL.match(line.strip()) if inside else None
        if found is None:
            yield line
            continue
        indent, text = line[: len(line) - len(line.lstrip())], line.strip()[found.end("names") :]
        yield from (f"{indent}{name}{text}" for name in found["names"].split(", "))


def _entry(text: str, section: str) -> str:
    """The first line of an argument, return value or error: its type bare, or left to the signature."""
    pattern = ARGUMENT if section in ("Args", "Attributes") else TYPED
    if (found := pattern.match(text)) is None:
        return text
    kind = bare_type(found["type"])
    if section in ("Args", "Attributes"):
        return f"{found['name']}{f' ({kind})' if kind else ''}:{found['text']}"
    return f"{kind}:{found['text']}" if kind else text


def bare_type(text: str) -> str | None:
    """
    The type that a docstring states, as an expression; `None` if it is no expression.

    Example:

    ```python
    >>> from docs.generator.docstrings import bare_type
    >>> bare_type('`list[str]`, *optional*, defaults to `"x"`')
    'list[str]'
    >>> bare_type("[`~sage_hf.SageTrainer`] or `None`")
    'SageTrainer | None'

    ```
    """
    text = re.split(r", (?:\*optional\*|defaults to)", text)[0]
    text = re.sub(r"\[`~?(?:[\w.]+\.)?(\w+)`\]", r"\1", text).replace("`", "").replace(" or ", " | ")
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return None
    return text


def _begins_list(text: str, before: list[str]) -> bool:
    """Markdown wants an empty line above a list."""
    if not text.startswith("- ") or not before or not before[-1].strip():
        return False
    previous = next((line.strip() for line in reversed(before) if not line.startswith(" " * 6)), "")
    return not previous.startswith("- ")


def _inline(line: str, find: Callable[[str], str | None]) -> str:
    def link(found: re.Match[str]) -> str:
        path = found["path"]
        shown = path.rpartition(".")[2] if path.startswith("~") else path
        target = find(path.removeprefix("~"))
        return f"[`{shown}`][{target}]" if target else f"`{path.removeprefix('~')}`"

    return MATH.sub(lambda found: mathematics(found[1]), REFERENCE.sub(link, line))


def mathematics(formula: str) -> str:
    r"""
    A short formula as HTML. Raises `ValueError` for a command that is not among `SYMBOLS`.

    Example:

    ```python
    >>> from docs.generator.docstrings import mathematics
    >>> mathematics("s \\in [0, 1]"), mathematics("z^+")
    ('<i>s ∈ [0, 1]</i>', '<i>z<sup>+</sup></i>')

    ```
    """
    for command, symbol in SYMBOLS.items():
        formula = re.sub(rf"{re.escape(command)}(?![a-z])", symbol, formula)
    formula = re.sub(r"\^(\w|[+-])", r"<sup>\1</sup>", formula)
    if "\\" in formula:
        raise ValueError(f"docs/generator/docstrings.py knows no symbol for {formula!r}; add it to SYMBOLS.")
    return f"<i>{formula}</i>"


def _as_session(text: str) -> str:
    """Examples are highlighted as sessions, without the empty line that doctest needs in the end."""
    text = re.sub(r"```python\n(?=\s*>>>)", "```pycon\n", text)
    text = re.sub(r"\n\s*\n(\s*```)(?=\n|$)", r"\n\1", text)
    return re.sub(r"^(\s*)Examples?:$", r"\1**Example**", text, flags=re.MULTILINE)
