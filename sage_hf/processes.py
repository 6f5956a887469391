"""Leaving the process group of a distributed run."""

from __future__ import annotations

import gc

import torch.distributed as dist


def leave_processes() -> None:
    """
    Destroy the process group, if it is one over gloo. Call it last, when trainer and wrapped model are out of scope.

    A wrapped model keeps its group, and so its threads, beyond `destroy_process_group`. Over gloo, one of these may
    hold a tensor that it frees while the interpreter ends, which aborts the process: "terminate called without an
    active exception" ([pytorch#179291](https://github.com/pytorch/pytorch/pull/179291)). Trainers refer to
    themselves, so what they hold is collected first.

    Example:

    ```python
    >>> from sage_hf.processes import leave_processes
    >>> leave_processes()

    ```
    """
    # NCCL's own may wait for the first process, which still writes and pushes.
    if dist.is_available() and dist.is_initialized() and dist.get_backend() == "gloo":
        gc.collect()
        dist.destroy_process_group()
