"""Long lists worked through in small groups, by several threads, without holding much of the list."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class BatchRunner(Generic[T, R]):
    """Calls `work` with groups of items from `threads` threads; gives the results to `take`, in order.

    work: a result for each item of a group. most, largest: a group ends with its `most`-th item, or as soon
    as the `cost` of its items comes to `largest`. No more than a group for each thread and one, or a few
    times `largest`, wait or are worked on at once: the list may be longer than the memory.

    `take` is called by the thread that calls `run`, and no two calls overlap.
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
    ) -> None:
        self._work, self._take, self._cost = work, take, cost
        self._most, self._largest, self._threads = most, largest, threads
        self._begun: deque[tuple[Future[list[R]], float]] = deque()

    def run(self, items: Iterable[T]) -> None:
        """Work through all items. Where `items` fails midway, what it gave before is done first.

        An error of `work` or `take`, or an interrupt while waiting, ends it: the results taken are then those
        of the items before.
        """
        with ThreadPoolExecutor(self._threads, thread_name_prefix="voiceprint") as pool:
            group: list[T] = []
            cost = 0.0
            try:
                for item in items:
                    group.append(item)
                    cost += self._cost(item)
                    if len(group) >= self._most or cost >= self._largest:
                        # Handed over before it is begun, so that an error from there does not begin it again.
                        full, spent, group, cost = group, cost, [], 0.0
                        self._begin(pool, full, spent)
            finally:
                if group:
                    self._begin(pool, group, cost)
                self._finish(0, 0.0)

    def _begin(self, pool: ThreadPoolExecutor, group: list[T], cost: float) -> None:
        self._begun.append((pool.submit(self._work, group), cost))
        self._finish(self._threads, 4 * self._largest)

    def _finish(self, groups: int, cost: float) -> None:
        """Wait until no more than so many groups, of so much cost together, are left."""
        try:
            while self._begun and (len(self._begun) > groups or sum(c for _, c in self._begun) > cost):
                for result in self._begun.popleft()[0].result():
                    self._take(result)
        except BaseException:
            for future, _ in self._begun:
                future.cancel()
            self._begun.clear()
            raise
