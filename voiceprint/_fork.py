"""The registry of functions that prepare shared objects for a fork of the process, in ordered steps.

A forked process has only the thread that forked. A lock that another thread held is never released there, and
a connection would be used by two processes. docs/forks.md says what a program may do.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - see below
import logging  # noqa: F401
import os
from collections.abc import Callable
from enum import IntEnum


class Step(IntEnum):
    """The order of the steps: ascending before the fork, descending after it."""

    LOADING = 1
    """Nothing is being loaded: an import that another thread began would never end."""
    STORE = 2
    """Stores: no statement is running, and each process opens connections of its own."""
    INDEX = 3
    """Indexes: the child reads or builds its own."""


def _nothing() -> None:
    return None


_Handlers = tuple[Callable[[], None], Callable[[], None], Callable[[], None]]
_steps: dict[Step, list[_Handlers]] = {step: [] for step in Step}


def register(
    step: Step,
    *,
    before: Callable[[], None] = _nothing,
    in_parent: Callable[[], None] = _nothing,
    in_child: Callable[[], None] = _nothing,
) -> None:
    """Call these functions at every fork, in the order of the steps, and within a step of registration."""
    _steps[step].append((before, in_parent, in_child))


def _run(which: int, steps: list[Step]) -> None:
    for step in steps:
        for handlers in _steps[step]:
            handlers[which]()


# Functions called before a fork are called in the reverse order of registration, and logging and
# concurrent.futures hold locks from there on that an import may need. Both are imported above, and so
# registered earlier: the wait for the end of loading comes first.
os.register_at_fork(
    before=lambda: _run(0, [*Step]),
    after_in_parent=lambda: _run(1, [*reversed(Step)]),
    after_in_child=lambda: _run(2, [*reversed(Step)]),
)
