"""A lock that many readers hold beside each other, or one writer alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar
from weakref import WeakSet


class ReadWriteLock:
    """Not reentrant. A writer that waits keeps new readers out, so that it is served under any load.

    A fork waits until it holds every such lock, so that the child finds what they guard as a whole and
    the locks free.
    """

    _all: ClassVar[WeakSet[ReadWriteLock]] = WeakSet()
    _held_for_fork: ClassVar[list[ReadWriteLock]] = []

    def __init__(self) -> None:
        self._renew()
        self._all.add(self)

    def _renew(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writing = False
        self._writers_waiting = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Beside other readers."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._writers_waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Alone."""
        self._acquire()
        try:
            yield
        finally:
            self._release()

    def _acquire(self) -> None:
        with self._changed:
            self._writers_waiting += 1
            try:
                self._changed.wait_for(lambda: not self._writing and not self._readers)
                self._writing = True
            finally:
                self._writers_waiting -= 1
                self._changed.notify_all()

    def _release(self) -> None:
        with self._changed:
            self._writing = False
            self._changed.notify_all()

    @classmethod
    def _before_fork(cls) -> None:
        cls._held_for_fork = list(cls._all)
        for lock in cls._held_for_fork:
            lock._acquire()

    @classmethod
    def _after_fork_in_parent(cls) -> None:
        while cls._held_for_fork:
            cls._held_for_fork.pop()._release()

    @classmethod
    def _after_fork_in_child(cls) -> None:
        while cls._held_for_fork:
            cls._held_for_fork.pop()._renew()


os.register_at_fork(
    before=ReadWriteLock._before_fork,
    after_in_parent=ReadWriteLock._after_fork_in_parent,
    after_in_child=ReadWriteLock._after_fork_in_child,
)
