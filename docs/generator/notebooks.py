"""Notebooks as pages: their cells and the outputs that are stored with them."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def notebook_page(notebook: Path, pictures: Path) -> str:
    """
    A notebook in Markdown.

    Args:
        notebook (`Path`): executed, in version 4 of the format.
        pictures (`Path`): folder for its figures, beside the page.

    Raises:
        `ValueError`: a code cell has never been run, or a figure has no description.
    """
    lines: list[str] = []
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
            continue
        if cell["execution_count"] is None:
            raise ValueError(f"{notebook}: cell {number} has no outputs; run `make notebooks`.")
        lines += ["```python", source, "```", ""]
        for place, output in enumerate(cell["outputs"]):
            lines += _output(output, pictures, f"{notebook.stem}-{number}-{place}", notebook)
    lines += [f"[Download this notebook]({notebook.name}){{ .md-button download }}", ""]
    return "\n".join(lines)


def _output(output: dict[str, Any], pictures: Path, name: str, notebook: Path) -> list[str]:
    if output["output_type"] == "stream":
        return _text("".join(output["text"]))
    if output["output_type"] == "error":
        raise ValueError(f"{notebook}: a cell failed with {output['ename']}; mend it, and run `make notebooks`.")
    data = output["data"]
    if "image/png" in data:
        alt = output["metadata"].get("alt") or output["metadata"].get("image/png", {}).get("alt")
        if not alt:
            raise ValueError(f"{notebook}: a figure has no description; show it with `figure(picture, alt)`.")
        (pictures / f"{name}.png").write_bytes(base64.b64decode("".join(data["image/png"])))
        return [f"![{alt}]({pictures.name}/{name}.png){{ .figure }}", ""]
    if "text/markdown" in data:
        return ["".join(data["text/markdown"]), ""]
    return _text("".join(data["text/plain"]))


def _text(text: str) -> list[str]:
    return ["``` { .text .output .no-copy }", ESCAPES.sub("", text).rstrip("\n"), "```", ""]
