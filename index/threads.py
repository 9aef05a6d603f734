"""The threads and the memory that faiss may use."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import faiss

_forked = False


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let faiss use this many threads for the calls of this thread in the block.

    OpenMP stores the number for each calling thread, so neither other threads nor the application's own use
    of faiss are affected. In a forked process the number is 1: the threads of OpenMP stay behind in the
    parent, and the child would wait for them forever.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if _forked else threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def give_back_memory() -> None:
    """Return freed memory to the system: glibc keeps the blocks that a thread has freed."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none, and need none
    if trim is not None:
        trim(0)


def _after_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_after_fork)
