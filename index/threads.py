"""How many threads faiss may use in a block of code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import faiss

_forked = False


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let faiss use so many threads for the calls that this thread makes in the block.

    OpenMP keeps the number for each calling thread, so others are not disturbed, nor is what the
    application has set for its own use of faiss. In a fork it is one: the threads of OpenMP have stayed
    behind in the parent, and it would wait for them for ever.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if _forked else threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _after_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_after_fork)
