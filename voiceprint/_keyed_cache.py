"""A cache of objects that a process has once for each key, such as the index of a store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class KeyedCache(Generic[K, V]):
    """Returns the one object of a key, for as long as it is in use.

    idle: number of the last used objects that stay without being in use, because the next user may come soon.
    """

    def __init__(self, idle: int) -> None:
        self._idle_count = idle
        self.forget_all()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The object of `key`, made by `make` if there is none. From any thread."""
        with self._lock:
            value = self._used.get(key)
            if value is None:
                value = make()
            self._used[key] = self._recent[key] = value
            self._recent.move_to_end(key)
            while len(self._recent) > self._idle_count:
                self._recent.popitem(last=False)
            return value

    def values(self) -> list[V]:
        """All objects that there are."""
        return list(self._used.values())

    def forget_all(self) -> None:
        """Give new objects from now on."""
        self._used: WeakValueDictionary[K, V] = WeakValueDictionary()
        self._recent: OrderedDict[K, V] = OrderedDict()
        self.renew_lock()

    def renew_lock(self) -> None:
        """After a fork: another thread of the parent may have held the lock, and nobody would release it."""
        self._lock = threading.Lock()
