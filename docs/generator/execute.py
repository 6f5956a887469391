"""
Run notebooks and store their outputs: `make notebooks`, or `python -m docs.generator.execute FILE...`.

A cell that fails, or that writes to stderr (as warnings do), stops it, and the file stays as it was.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import ROOT

TIMEOUT = 300
"""Seconds for a cell."""


def execute(path: Path) -> Any:
    """
    A notebook with the outputs of a run from the top, in a folder of its own.

    Args:
        path (`Path`): of the notebook.

    Raises:
        `nbclient.exceptions.CellExecutionError`: a cell failed.
        `ValueError`: a cell wrote to stderr.
    """
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": f"{folder}/home",
            "CUDA_VISIBLE_DEVICES": "",
            # tqdm's wish for a package that draws its bars, which are off.
            "PYTHONWARNINGS": "ignore:IProgress not found",
        }
        work = Path(folder) / "work"
        work.mkdir()
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(work)}},
            # Other users of the machine can't listen in.
            config=Config(KernelManager={"transport_encryption": "auto"}),
        )
        client.execute(env=environment)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise ValueError(f"{path}: a cell wrote to stderr: {output.text[:2000]}")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "sources": digest(notebook),
    }
    return notebook


def digest(notebook: Any) -> str:
    """Of the code that was run; stored with the outputs, so that they are known to be its own."""
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def main(arguments: list[str]) -> None:
    import nbformat

    for name in arguments:
        notebook = execute(Path(name))
        nbformat.write(notebook, name)
        print(f"{name}: {sum(cell.cell_type == 'code' for cell in notebook.cells)} cells run")


if __name__ == "__main__":
    main(sys.argv[1:])
