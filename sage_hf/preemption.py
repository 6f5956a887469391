"""SIGTERM, which schedulers send before they take a machine away: save between two steps, and end resumable."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.utils import logging

logger = logging.get_logger(__name__)

AGREE_EVERY = 10
"""Steps after which several processes ask each other whether one was told to end: asking waits for the device."""


SAME_SIGNAL = 30
"""Seconds after SIGTERM during which another one says nothing new."""


class Preempted(SystemExit):
    """
    Training was told to end, and has saved where it was.

    A script that doesn't catch it ends with the status that shells give a process that SIGTERM has ended, 143.

    Args:
        step (`int`): optimizer steps done.
        output_dir (`str`): where the checkpoint lies.
    """

    def __init__(self, step: int, output_dir: str):
        super().__init__(128 + signal.SIGTERM)
        self.step, self.output_dir = step, output_dir


@dataclass(frozen=True)
class HearParentAlone:
    """
    Starts a worker of a data loader so that SIGTERM of anyone but its parent is nothing to it.

    A scheduler may send SIGTERM to every process of a job (Slurm, systemd). PyTorch's workers would end, and the
    training that wants to save would end for lack of them.

    Args:
        inner (callable, *optional*): the loader's own `worker_init_fn`, called as well.
    """

    inner: Any

    def __call__(self, worker: int) -> None:
        if hasattr(signal, "sigwaitinfo"):  # not on macOS
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        if self.inner is not None:
            self.inner(worker)


def _end_with(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)  # as PyTorch's own handler does


def spare_workers(loader: DataLoader) -> DataLoader:
    """The same loader, whose workers start as [`HearParentAlone`] says."""
    own: Any = getattr(loader, "base_dataloader", loader)  # accelerate's loaders hold the one with the workers
    if not isinstance(own.worker_init_fn, HearParentAlone):
        own.worker_init_fn = HearParentAlone(own.worker_init_fn)
    return loader


class SaveOnSigterm(TrainerCallback):
    """
    Saves a checkpoint after the step during which SIGTERM came, and ends training with [`Preempted`].

    Not transformers' `enable_jit_checkpoint`, which may save amid a step, when random numbers of it are drawn and
    running statistics have moved, goes on as if training were over, and lets each process save at a step of its own.

    Args:
        accelerator (`Accelerator`): of the processes, which end after the same step.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.requested = self.stopping = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """
        Answer SIGTERM from here on. A handler of the user's own, and any thread but the main one, are left alone.

        A scheduler and a launcher may both send it, so what comes soon after the first counts as the same; one that
        comes later ends the process at once, as it does without this.
        """
        self.requested = self.stopping = False
        self._process, self._told_at = os.getpid(), math.inf
        is_main_thread = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        if not is_main_thread or before not in (signal.SIG_DFL, signal.SIG_IGN):
            yield
            return
        signal.signal(signal.SIGTERM, self._answer)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _answer(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if os.getpid() != self._process or now - self._told_at > SAME_SIGNAL:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self.requested:
            self.requested, self._told_at = True, now

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._agreed(state.global_step):
            logger.warning("SIGTERM: saving after step %d, then ending.", state.global_step)
            self.stopping = True
            control.should_save, control.should_evaluate, control.should_training_stop = True, False, True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stopping:
            logger.warning(
                "Saved checkpoint-%d in %s. Go on with resume_from_checkpoint=True (--resume_from_checkpoint true).",
                state.global_step,
                args.output_dir,
            )
            raise Preempted(state.global_step, str(args.output_dir))

    def _agreed(self, step: int) -> bool:
        if self.accelerator.num_processes == 1:
            return self.requested
        if step % AGREE_EVERY:
            return False
        told = torch.tensor(float(self.requested), device=self.accelerator.device)
        return bool(self.accelerator.reduce(told, reduction="sum").item())
