"""Objects that a process loads at their first use, such as a network or a module that is slow to import."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from voiceprint import _fork

if TYPE_CHECKING:
    from functools import cached_property as cached_property
else:

    class cached_property:  # noqa: N801 - a decorator, as in functools
        """`functools.cached_property` of Python 3.12, which has no lock.

        The one of 3.10 and 3.11 holds a lock of the whole class while it computes: threads with different
        recordings wait for each other, and a child that is forked meanwhile waits for ever. Without it, two
        threads may compute the same value twice.
        """

        def __init__(self, compute: Callable[[Any], Any]) -> None:
            self._compute = compute
            self.__doc__ = compute.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            # Called only while the instance's dictionary has no value of this name.
            if instance is None:
                return self
            value = instance.__dict__[self._name] = self._compute(instance)
            return value


V = TypeVar("V")

logger = logging.getLogger(__name__)

# Held while anything is loaded. A fork waits for it: a child that was forked in the middle of another
# thread's import would wait for ever for that import, as the thread is not there to finish it. One lock for
# all, and re-entrant: loading one thing may load another, or fork.
_loading = threading.RLock()
_forking = threading.local()

# No load takes so long; a fork that has waited this long may itself hold what the load is waiting for.
_LONGEST_WAIT_S = 60.0


def _before_fork() -> None:
    _forking.waited = _loading.acquire(timeout=_LONGEST_WAIT_S)
    if not _forking.waited:
        logger.warning("A fork does not wait any longer for the encoder to be loaded.")


def _in_parent() -> None:
    if _forking.waited:
        _loading.release()


def _in_child() -> None:
    global _loading
    if not _forking.waited:
        _loading = threading.RLock()  # nobody is left to release the old one
    else:
        _loading.release()


_fork.register(_fork.Step.LOADING, before=_before_fork, in_parent=_in_parent, in_child=_in_child)


class Lazy(Generic[V]):
    """Loads an object at the first `get`, once in a process, whichever thread asks; a failure is tried again.

    inherited: whether a forked process uses the object of its parent. If not, it loads its own.
    """

    def __init__(self, load: Callable[[], V], *, inherited: bool) -> None:
        self._load = load
        self._inherited = inherited
        self._held: tuple[int, V] | None = None
        self._outlived: list[tuple[int, V]] = []

    def get(self) -> V:
        """The object. Raises what `load` raises."""
        held = self._held
        if held is None or not self._is_ours(held):
            with _loading:
                held = self._held
                if held is None or not self._is_ours(held):
                    if held is not None:
                        # Its destructor might wait for locks and threads that only the parent has.
                        self._outlived.append(held)
                    held = self._held = os.getpid(), self._load()
        return held[1]

    def _is_ours(self, held: tuple[int, V]) -> bool:
        return self._inherited or held[0] == os.getpid()
