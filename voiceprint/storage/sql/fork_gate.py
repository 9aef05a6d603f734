"""Delays forks while another thread is inside the database library."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["fork_gate"]


class _ForkGate:
    """A fork waits until no other thread is inside: the locks of the library would stay locked in the child.

    before, in_child: called before a fork, and after it in the child.
    """

    TIMEOUT_S = 10.0

    def __init__(self) -> None:
        self.before: list[Callable[[], None]] = []
        self.in_child: list[Callable[[], None]] = []
        self._reset()

    def _reset(self) -> None:
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
        for hook in self.before:
            hook()

    def after_in_parent(self) -> None:
        with self._condition:
            self._forking = False
            self._condition.notify_all()

    def after_in_child(self) -> None:
        me = threading.get_ident()
        inside = self._inside[me]
        self._reset()
        if inside:
            self._inside[me] = inside
        for hook in self.in_child:
            hook()


fork_gate = _ForkGate()
os.register_at_fork(
    before=fork_gate.before_fork,
    after_in_parent=fork_gate.after_in_parent,
    after_in_child=fork_gate.after_in_child,
)
