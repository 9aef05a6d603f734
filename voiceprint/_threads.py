"""Synchronous methods in worker threads, for event loops."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")


def in_thread(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """The async twin of a method: the same arguments and result, without blocking the event loop."""

    @functools.wraps(method)
    async def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        # By its name, so that a subclass that overrides the method changes the twin too.
        bound: Callable[P, R] = getattr(self, method.__name__)
        return await asyncio.to_thread(bound, *args, **kwargs)

    twin.__name__ = f"a{method.__name__}"
    twin.__qualname__ = f"a{method.__name__}"
    twin.__doc__ = f"`{method.__name__}` without blocking the event loop."
    return twin


async def store_in_thread(work: Callable[[Callable[[], bool]], R]) -> R:
    """Run `work` in a worker thread; a cancellation either prevents that it stores, or waits for it.

    work: calls its argument right before it stores, and stores only if that returns True.

    Once `asyncio.CancelledError` is raised, nothing more happens to the store.
    """
    turn = threading.Lock()  # taken by the thread to store, or before it by the cancellation
    running = asyncio.ensure_future(asyncio.to_thread(work, lambda: turn.acquire(blocking=False)))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if turn.acquire(blocking=False):
            running.cancel()
        else:
            await asyncio.wait([running])
            if not running.cancelled():
                running.exception()  # asyncio logs an exception that nobody retrieved
        raise
