"""What a process loads at its first use, such as a network or a module that is slow to import."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - see below
import logging
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")

logger = logging.getLogger(__name__)

# Held while anything is loaded. A fork waits for it: a child that was forked off in the middle of another
# thread's import would wait for that import for ever, as the thread is not there to finish it. One for all,
# and re-entrant, as what is loaded may load more, or fork.
_loading = threading.RLock()
_forking = threading.local()

# No load takes so long; a fork that has waited this long may itself hold what the load is waiting for.
_LONGEST_WAIT_S = 60.0


def _before_fork() -> None:
    _forking.waited = _loading.acquire(timeout=_LONGEST_WAIT_S)
    if not _forking.waited:
        logger.warning("A fork does not wait any longer for the encoder to be loaded.")


def _after_fork() -> None:
    if _forking.waited:
        _loading.release()


def _after_fork_in_child() -> None:
    global _loading
    if not _forking.waited:
        _loading = threading.RLock()  # nobody is left to release the old one
    else:
        _loading.release()


# What runs before a fork runs in the reverse order of registration, and logging and concurrent.futures hold
# locks of theirs from there on that an import may need. They are imported above: ours is waited for first.
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


class Lazy(Generic[V]):
    """Loads at the first `get`, once in a process whatever threads ask; a failure is tried again.

    inherited: whether a forked process goes on with what its parent has loaded. Else it loads its own.
    """

    def __init__(self, load: Callable[[], V], *, inherited: bool) -> None:
        self._load = load
        self._inherited = inherited
        self._held: tuple[int, V] | None = None
        self._outlived: list[tuple[int, V]] = []

    def get(self) -> V:
        """What was loaded. Raises what `load` raises."""
        held = self._held
        if held is None or not self._is_ours(held):
            with _loading:
                held = self._held
                if held is None or not self._is_ours(held):
                    if held is not None:
                        # Kept, as its destructor might wait for locks and threads that only the parent has.
                        self._outlived.append(held)
                    held = self._held = os.getpid(), self._load()
        return held[1]

    def _is_ours(self, held: tuple[int, V]) -> bool:
        return self._inherited or held[0] == os.getpid()
