"""The API reference: a page for each part of the package, with the docstrings of what is public."""

from __future__ import annotations

from collections.abc import Iterator

from .names import NameIndex, load_package

PAGES = {
    "": ("Training", "Trainer, arguments and models: `sage_hf`."),
    "objectives": ("Objectives", "What guides training, one class each: `sage_hf.objectives`."),
    "data": ("Data", "Building, checking, loading and aligning the saliency column: `sage_hf.data`."),
    "data.annotations": (
        "Annotations",
        "What humans leave behind, and the maps it becomes: `sage_hf.data.annotations`.",
    ),
    "data.sources": ("Sources", "Readers of pictures, labels and annotations: `sage_hf.data.sources`."),
    "evaluation": ("Evaluation", "Metrics, intervals, and where a model looks: `sage_hf.evaluation`."),
    "hub": ("Hub", "Cards, pushes and pulls: `sage_hf.hub`."),
}
"""Title and first sentence by the package's path; other packages are named after themselves."""


def api_pages() -> Iterator[tuple[str, str, str]]:
    """
    The pages of the reference.

    Returns:
        `Iterator[tuple[str, str, str]]`: file name, title and Markdown.
    """
    index = NameIndex(load_package())
    documented = index.documented()
    by_page: dict[str, dict[str, str]] = {name: {} for name in PAGES}
    for path, public in documented.items():
        by_page.setdefault(_page_of(path, index), {})[path] = public
    for page, paths in by_page.items():
        title, lead = PAGES.get(page, (page.rpartition(".")[2].capitalize(), f"`sage_hf.{page}`."))
        if paths:
            yield f"{page.replace('.', '-') or 'training'}.md", title, _page(title, lead, paths, index)


def _page_of(path: str, index: NameIndex) -> str:
    """The innermost package that an object lives in and that has a page; a package's own if it has none."""
    parts = path.split(".")[1:]
    packages = [
        ".".join(parts[:end])
        for end in range(len(parts), 0, -1)
        if getattr(index.objects.get("sage_hf." + ".".join(parts[:end])), "is_init_module", False)
    ]
    return next((one for one in packages if one in PAGES), packages[-1] if packages else "")


def _page(title: str, lead: str, paths: dict[str, str], index: NameIndex) -> str:
    order = sorted(paths, key=lambda path: _rank(path, paths[path]))
    rows = [
        f"| [`{_name(path)}`][{path}] | `{paths[path].rpartition('.')[0]}` | {_summary(path, index)} |"
        for path in order
    ]
    lines = [f"# {title}", "", lead, "", "| name | import from | |", "|---|---|---|", *rows, ""]
    for path in order:
        lines += [f"::: {path}", ""]
    return "\n".join(lines)


def _rank(path: str, public: str) -> tuple[bool, int, bool, str]:
    """The place of an object on its page: first what is imported by a short path, and bears the package's name."""
    return public == path, public.count("."), not _name(path).startswith("Sage"), public.lower()


def _name(path: str) -> str:
    return path.rpartition(".")[2]


def _summary(path: str, index: NameIndex) -> str:
    """The first sentence of a docstring, in one line, without references."""
    docstring = index.objects[path].docstring
    paragraph = " ".join((docstring.value if docstring else "").strip().split("\n\n")[0].split())
    sentence = paragraph.split(". ")[0].removesuffix(".")
    return sentence.replace("[`~", "`").replace("[`", "`").replace("`]", "`").replace("|", r"\|") + "."
