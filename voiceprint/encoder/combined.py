"""Calls of several threads that are answered together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")


class _Call(Generic[T, R]):
    def __init__(self, item: T) -> None:
        self.item = item
        self.done = False
        self.result: R | None = None
        self.error: Exception | None = None


class CombinedCalls(Generic[T, R]):
    """Answers a call at once if the resource is free; calls that wait for it are answered together.

    A lone call waits for nothing, and many calls take few turns on a device that answers a hundred items as
    fast as one.

    work: answers a list of items, in order. Its error is the error of each of their calls.
    size, most: a turn takes waiting calls until the sizes of their items reach `most`, and at least one call.
    turn: lock of the resource, which several objects may share.
    """

    def __init__(
        self, work: Callable[[list[T]], list[R]], size: Callable[[T], int], most: int, turn: threading.Lock
    ) -> None:
        self._work, self._size, self._most, self._turn = work, size, most, turn
        self._waiting: deque[_Call[T, R]] = deque()

    def __call__(self, item: T) -> R:
        """The answer to one item; raises the error of `work`."""
        call: _Call[T, R] = _Call(item)
        self._waiting.append(call)
        with self._turn:
            while not call.done:
                self._answer(call)
        if call.error is not None:
            raise call.error
        return cast(R, call.result)

    def _answer(self, own: _Call[T, R]) -> None:
        calls = self._take()
        try:
            results = self._work([call.item for call in calls])
            for call, result in zip(calls, results, strict=True):
                call.result, call.done = result, True
        except Exception as error:  # noqa: BLE001 - the error of the other threads' calls too
            for call in calls:
                call.error, call.done = error, True
        except BaseException:  # an interrupt of this thread, which is none of the others
            self._waiting.extendleft(call for call in reversed(calls) if call is not own)
            raise

    def _take(self) -> list[_Call[T, R]]:
        calls = [self._waiting.popleft()]
        room = self._most - self._size(calls[0].item)
        while self._waiting and (room := room - self._size(self._waiting[0].item)) >= 0:
            calls.append(self._waiting.popleft())
        return calls
