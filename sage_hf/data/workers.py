"""Work in several processes: bounded, in order, and over when this process is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Task = TypeVar("Task")


def in_order(
    tasks: Iterable[tuple[Task, tuple[Any, ...] | None]], function: Callable[..., Any], num_proc: int
) -> Generator[tuple[Task, Any], None, None]:
    """
    Call a function for each task, and give the results in the order of the tasks.

    No more than twice `num_proc` tasks are under way, so that memory stays flat however many there are.

    Args:
        tasks (`Iterable[tuple[Task, tuple | None]]`): what comes back with the result, and the function's arguments;
            `None` for what needs no work.
        function (`Callable`): defined in a module, so that another process can find it.
        num_proc (`int`): processes; with 1, the work is done in this one.

    Raises:
        `ValueError`: `num_proc` below 1.
        `ChildProcessError`: a process was killed.
    """
    if num_proc < 1:
        raise ValueError(f"num_proc is {num_proc}; it must be 1 or more.")
    if num_proc == 1:
        for task, arguments in tasks:
            yield task, None if arguments is None else function(*arguments)
        return
    # Not forked from here: threads of pyarrow and torch would be cut off halfway.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_proc, mp_context=context, initializer=_start_worker) as pool:
        waiting: deque[tuple[Task, Future[Any] | None]] = deque()
        try:
            for task, arguments in tasks:
                waiting.append((task, None if arguments is None else pool.submit(function, *arguments)))
                while len(waiting) > 2 * num_proc or (waiting and _is_done(waiting[0][1])):
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        except BrokenProcessPool:
            raise ChildProcessError("A worker process was killed, perhaps for want of memory.") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _is_done(future: Future[Any] | None) -> bool:
    return future is None or future.done()


def _result(task: Task, future: Future[Any] | None) -> tuple[Task, Any]:
    return task, None if future is None else future.result()


def _start_worker() -> None:
    """Ctrl-C is the parent's to answer; a worker ends with its parent, even if that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
