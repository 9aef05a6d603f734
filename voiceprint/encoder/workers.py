"""Threads for work that releases the GIL, such as runs of a network."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from voiceprint._lazy import Lazy

T = TypeVar("T")


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


class _Pool:
    """The threads of a process beside the calling ones, and how many calls use them now."""

    def __init__(self, threads: int) -> None:
        self.executor = ThreadPoolExecutor(max(1, threads), thread_name_prefix="voiceprint-encoder")
        self.calls = 0
        self.lock = threading.Lock()


class Workers:
    """`threads` threads, of which the calling thread is one; 0 for one a core.

    All calling threads share them, so that many at once do not start more threads than there are cores.
    """

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or cores()
        # A forked process starts threads of its own.
        self._pool = Lazy(self._start, inherited=False)

    def _start(self) -> _Pool:
        return _Pool(self.threads - 1)

    @contextmanager
    def share(self) -> Iterator[int]:
        """The number of threads for a call within the block: fewer while others run.

        Calls that already take all cores would only hand work to each other: two at once on two cores, of
        6 s each, are 9 % faster with a thread each (`python -m benchmarks.server_throughput`).
        """
        pool = self._pool.get()
        with pool.lock:
            others = pool.calls
            pool.calls += 1
        try:
            yield max(1, self.threads - others)
        finally:
            with pool.lock:
                pool.calls -= 1

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """The results of the tasks, in order; raises the first error, after all have ended."""
        if self.threads == 1 or len(tasks) < 2:
            return [task() for task in tasks]
        pool = self._pool.get().executor
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
