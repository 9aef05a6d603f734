"""A lock that many readers hold beside each other, or one writer alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final
from weakref import WeakValueDictionary


class ReadWriteLock:
    """Not reentrant. Readers and writers take turns under any load.

    A writer that waits keeps new readers out, and when it is done the readers that have waited meanwhile
    come before the next writer: otherwise one that writes without a pause would let no reader in.

    A fork waits until it holds every such lock, so that the child finds what they guard as a whole and
    the locks free.
    """

    _all: ClassVar[WeakValueDictionary[int, ReadWriteLock]] = WeakValueDictionary()
    _listing: ClassVar[threading.Lock] = threading.Lock()  # guards `_all`; a fork holds it
    _held_for_fork: ClassVar[list[ReadWriteLock]] = []

    def __init__(self) -> None:
        self._renew()
        with self._listing:
            self._all[id(self)] = self

    def _renew(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._readers_waiting = 0
        self._admitted = 0  # readers that may enter though a writer waits
        self._writing = False
        self._writers_waiting = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Beside other readers."""
        with self._changed:
            self._readers_waiting += 1
            try:
                self._changed.wait_for(self._free_to_read)
                self._readers += 1
            except BaseException:  # KeyboardInterrupt: whoever waits for this one is to look again
                self._changed.notify_all()
                raise
            finally:
                self._readers_waiting -= 1
                self._admitted = min(max(self._admitted - 1, 0), self._readers_waiting)
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    def _free_to_read(self) -> bool:
        return not self._writing and (self._admitted > 0 or not self._writers_waiting)

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
                self._changed.wait_for(lambda: not (self._writing or self._readers or self._admitted))
                self._writing = True
            finally:
                self._writers_waiting -= 1
                self._changed.notify_all()

    def _release(self) -> None:
        with self._changed:
            self._writing = False
            self._admitted = self._readers_waiting
            self._changed.notify_all()

    @classmethod
    def _before_fork(cls) -> None:
        cls._listing.acquire()
        cls._held_for_fork = list(cls._all.values())
        for lock in cls._held_for_fork:
            lock._acquire()

    @classmethod
    def _after_fork_in_parent(cls) -> None:
        while cls._held_for_fork:
            cls._held_for_fork.pop()._release()
        cls._listing.release()

    @classmethod
    def _after_fork_in_child(cls) -> None:
        while cls._held_for_fork:
            cls._held_for_fork.pop()._renew()
        cls._listing = threading.Lock()


COMPUTING: Final = ReadWriteLock()
"""Held for reading while a training computes. OpenBLAS ends its threads before a fork, and a computation that
uses them at that moment waits forever, in the parent: so a fork waits for this lock too."""

os.register_at_fork(
    before=ReadWriteLock._before_fork,
    after_in_parent=ReadWriteLock._after_fork_in_parent,
    after_in_child=ReadWriteLock._after_fork_in_child,
)
