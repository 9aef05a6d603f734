"""Threads for work that releases the GIL, such as runs of a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from voiceprint._lazy import Lazy

T = TypeVar("T")


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


class Workers:
    """`threads` threads, of which the calling thread is one; 0 for one a core.

    All calling threads share them, so that many at once do not start more threads than there are cores.
    """

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or cores()
        # A forked process starts threads of its own.
        self._pool = Lazy(self._start, inherited=False)

    def _start(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads - 1, thread_name_prefix="voiceprint-encoder")

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """The results of the tasks, in order; raises the first error, after all have ended."""
        if self.threads == 1 or len(tasks) < 2:
            return [task() for task in tasks]
        pool = self._pool.get()
        futures = [pool.submit(task) for task in tasks[1:]]
        try:
            results = [tasks[0]()]
            # The tasks that no thread has begun, because all are busy, run here.
            return results + [
                task() if future.cancel() else future.result()
                for task, future in zip(tasks[1:], futures, strict=True)
            ]
        finally:
            _end(futures)


def _end(futures: Iterable[Future[T]]) -> None:
    for future in futures:
        if not future.cancel():
            future.exception()
