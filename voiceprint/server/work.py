"""`WorkQueue`: runs what embeds, searches and stores in a bounded pool of threads, beside the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from voiceprint.server.metrics import Metrics
from voiceprint.server.problems import ProblemError
from voiceprint.server.settings import ServerSettings

P = ParamSpec("P")
R = TypeVar("R")

_SMOOTHING: Final = 0.1  # weight of the last duration in the mean: of the last ten or so


def in_context(function: Callable[[], R]) -> Callable[[], R]:
    """The function, to be called once in a thread with the context variables of this moment."""
    context = contextvars.copy_context()
    return lambda: context.run(function)


class WorkQueue:
    """A pool of threads, for which at most `VOICE_SERVER_QUEUE` more calls wait.

    Threads and not processes: the network and the search release the interpreter's lock, and processes would
    each hold the index.
    """

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self.threads, self.waiting = settings.thread_count, settings.queue
        self.timeout_s = settings.timeout_s
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="voiceprint-work")
        # Of waits for a disk or a server, not of computation: as many as connections of a database's pool.
        self._light = ThreadPoolExecutor(8, thread_name_prefix="voiceprint-light")
        self._running = 0
        self._mean_s = 0.1  # until the first has ended; that of an identification

    @property
    def size(self) -> int:
        """Calls that run or wait."""
        return self._running

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in a thread of the pool, with the context of the calling task.

        Raises `ProblemError`: 429 with `Retry-After` where the queue is full; 503 where the call has not
        begun after `timeout_s`, and nothing was done; 504 where it has not ended, and its outcome is unknown.
        """
        if self._running >= self.threads + self.waiting:
            self._metrics.refused_requests.labels("queue").inc()
            wait_s = max(1, math.ceil(self._mean_s * self._running / self.threads))
            raise ProblemError(
                429,
                "BusyError",
                f"All threads are busy, and {self.waiting} requests wait: try again in {wait_s} s.",
                {"Retry-After": str(wait_s)},
            )
        self._running += 1
        self._metrics.queue.inc()
        call = partial(self._timed, time.perf_counter(), partial(function, *args, **kwargs))
        future = self._pool.submit(in_context(call))
        waiting = asyncio.wrap_future(future)
        waiting.add_done_callback(self._ended)
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), self.timeout_s)
        except asyncio.TimeoutError:
            if waiting.done() and not waiting.cancelled():  # the function's own error
                return waiting.result()
            if future.cancel():
                raise ProblemError(
                    503,
                    "BusyError",
                    f"The request was not begun within {self.timeout_s:g} s; nothing was done: try again.",
                    {"Retry-After": str(max(1, math.ceil(self._mean_s)))},
                ) from None
            raise ProblemError(
                504,
                "TimeoutError",
                f"The request was not done within {self.timeout_s:g} s. It goes on, and its outcome is not "
                "known: read the caller, or repeat it with the same Idempotency-Key.",
            ) from None
        except asyncio.CancelledError:
            future.cancel()  # if it has not begun; one that runs ends by itself
            raise

    async def run_light(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function that takes few milliseconds of the processor, such as a read of the database.

        In threads beside the pool, so that a key is checked also while all of that is busy.
        """
        return await asyncio.wrap_future(self._light.submit(in_context(partial(function, *args, **kwargs))))

    def _timed(self, queued: float, function: Callable[[], R]) -> R:
        begun = time.perf_counter()
        try:
            with self._metrics.timing():
                self._metrics.stages.labels("queue").observe(begun - queued)
                return function()
        finally:
            self._mean_s += _SMOOTHING * (time.perf_counter() - begun - self._mean_s)

    def _ended(self, future: asyncio.Future[R]) -> None:
        self._running -= 1
        self._metrics.queue.dec()
        if not future.cancelled():
            future.exception()  # asyncio logs an exception that nobody retrieved, as after a timeout

    def close(self) -> None:
        """Wait for the calls that run, and drop those that wait."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._light.shutdown(wait=True)
