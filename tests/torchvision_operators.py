"""Let torchvision be imported beside a CPU build of torch, for which it has no build of its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_LIBRARIES: list[torch.library.Library] = []  # operators live as long as the library that declares them


def declare_operators() -> None:
    """
    Declare the compiled operators that torchvision asks for when it is imported.

    Its transforms, and timm's models, are written in Python; the compiled part (non-maximum suppression and the like)
    needs CUDA's libraries, even where it runs on a CPU. Without it, torchvision fails on import, because it describes
    two operators that are then not there. Does nothing where torchvision is missing or whole.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or _LIBRARIES:
        return
    try:
        torch.ops.load_library(Path(found.origin).with_name("_C.so"))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)


declare_operators()
