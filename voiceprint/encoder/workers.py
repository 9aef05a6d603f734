"""Threads that share out work which leaves Python's lock alone, such as the runs of a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from voiceprint._lazy import Lazy

T = TypeVar("T")


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


class Workers:
    """`threads` threads, the caller's own being one of them; 0 for as many as there are cores.

    Shared by all callers, so that many of them at once do not start more threads than there are cores.
    """

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or cores()
        # A forked process has none of its parent's threads, and starts its own.
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
            # What no thread has begun, because all are busy with other callers' work, is done here.
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
