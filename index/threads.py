"""How many threads faiss may use in a block of code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import faiss


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let faiss use so many threads for the calls that this thread makes in the block.

    OpenMP keeps the number for each calling thread, so others are not disturbed, nor is what the
    application has set for its own use of faiss.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
