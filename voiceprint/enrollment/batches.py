"""Threads that process long lists in small batches, with little of the list in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class BatchRunner(Generic[T, R]):
    """Calls `work` with batches of items in `threads` threads, and `take` with each result, in order.

    work: returns a result for each item of a batch. most, largest: a batch ends with its `most`-th item, or
    when the `cost` of its items reaches `largest`. At most `ahead` + 1 batches, or four times `largest`,
    are in progress at once, those included that wait for a slower one before them: the list may be larger
    than the memory. ahead: None is `threads`; more keeps all threads busy where batches take unequal times.

    The thread that calls `run` calls `take`. `work` runs in its context, such as that of `acting_as`.
    """

    def __init__(
        self,
        work: Callable[[list[T]], list[R]],
        take: Callable[[R], None],
        *,
        cost: Callable[[T], float],
        most: int,
        largest: float,
        threads: int,
        ahead: int | None = None,
    ) -> None:
        self._work, self._take, self._cost = work, take, cost
        self._most, self._largest, self._threads = most, largest, threads
        self._ahead = threads if ahead is None else ahead
        self._begun: deque[tuple[Future[list[R]], float]] = deque()

    def run(self, items: Iterable[T]) -> None:
        """Process all items. Where `items` fails midway, the items before are processed first.

        An error of `work` or `take`, or an interrupt, ends the run after the results of the items before.
        """
        with ThreadPoolExecutor(self._threads, thread_name_prefix="voiceprint") as pool:
            batch: list[T] = []
            cost = 0.0
            try:
                for item in items:
                    batch.append(item)
                    cost += self._cost(item)
                    if len(batch) >= self._most or cost >= self._largest:
                        # Reset first, so that an error of `_begin` does not begin the batch twice.
                        full, spent, batch, cost = batch, cost, [], 0.0
                        self._begin(pool, full, spent)
            finally:
                if batch:
                    self._begin(pool, batch, cost)
                self._finish(0, 0.0)

    def _begin(self, pool: ThreadPoolExecutor, batch: list[T], cost: float) -> None:
        self._begun.append((pool.submit(copy_context().run, self._work, batch), cost))
        self._finish(self._ahead, 4 * self._largest)

    def _finish(self, batches: int, cost: float) -> None:
        """Wait until at most `batches` batches, of at most `cost` together, are left."""
        try:
            while self._begun and (len(self._begun) > batches or sum(c for _, c in self._begun) > cost):
                for result in self._begun.popleft()[0].result():
                    self._take(result)
        except BaseException:
            for future, _ in self._begun:
                future.cancel()
            self._begun.clear()
            raise
