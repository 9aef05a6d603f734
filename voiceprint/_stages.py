"""The durations of the stages of an operation, for who measures them; nothing is timed without a listener.

Stages: "speech" (segments and quality), "embed", "index" (to follow the store), "search", "read" (records)
and "score". A context variable, so that operations of other threads and tasks do not mix.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_listener: ContextVar[Callable[[str, float], None] | None] = ContextVar("voiceprint_stages", default=None)


@contextmanager
def stages_to(listener: Callable[[str, float], None]) -> Iterator[None]:
    """Within it, `listener` is called with the name and the seconds of each stage that ends."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time the block as a stage."""
    listener = _listener.get()
    if listener is None:
        yield
        return
    begun = time.perf_counter()
    try:
        yield
    finally:
        listener(name, time.perf_counter() - begun)


def timed(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Time each call of a function as a stage."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def staged(*args: P.args, **kwargs: P.kwargs) -> R:
            with stage(name):
                return function(*args, **kwargs)

        return staged

    return decorate
