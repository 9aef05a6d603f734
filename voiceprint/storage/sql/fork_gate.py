"""Delays forks while another thread is inside the database library."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from voiceprint import _fork

__all__ = ["fork_gate"]


class _ForkGate:
    """A fork waits until no other thread is inside: the library's locks would stay locked in the child."""

    TIMEOUT_S = 10.0

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside: Counter[int] = Counter()
        self._forking = False

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within it, this thread uses the database library."""
        me = threading.get_ident()
        with self._condition:
            while self._forking and me not in self._inside:
                self._condition.wait()
            self._inside[me] += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                    self._condition.notify_all()

    def before_fork(self) -> None:
        me = threading.get_ident()
        with self._condition:
            self._forking = True
            self._condition.wait_for(lambda: set(self._inside) <= {me}, timeout=self.TIMEOUT_S)

    def after_in_parent(self) -> None:
        with self._condition:
            self._forking = False
            self._condition.notify_all()

    def after_in_child(self) -> None:
        me = threading.get_ident()
        inside = self._inside[me]
        self.__init__()  # type: ignore[misc]
        if inside:
            self._inside[me] = inside


fork_gate = _ForkGate()
_fork.register(
    _fork.Step.STORE,
    before=fork_gate.before_fork,
    in_parent=fork_gate.after_in_parent,
    in_child=fork_gate.after_in_child,
)
