"""What a process loads at its first use, such as a network or a module that is slow to import."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")

# Held while anything is loaded. A fork waits for it: a child that was forked off in the middle of another
# thread's import would wait for that import for ever, as the thread is not there to finish it. One for all,
# and re-entrant, as what is loaded may load more, or fork.
_loading = threading.RLock()
os.register_at_fork(
    before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release
)


class Loaded(Generic[V]):
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
