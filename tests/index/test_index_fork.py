"""A fork amid searches, changes and a training gets a whole index that works."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from processes import in_child
from vectors import vectors

from voiceprint.index import VectorIndex

N = 1_500


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_fork_amid_everything_gets_a_whole_index_that_works(threads: int) -> None:
    matrix = vectors(0, N, 32)
    index = VectorIndex(32, exact_up_to=300, threads=threads)
    index.add(np.arange(N), matrix)
    index.wait(60)
    index.search(matrix, 3)  # of many queries: starts the threads of OpenMP
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            some = np.random.default_rng().integers(0, N, 20)
            index.add(some, matrix[some])
            index.remove(some[:3])
            index.add(some[:3], matrix[some[:3]])

    def search() -> None:
        while not done.is_set():
            index.search(matrix[:2], 3)
            index.search(matrix[:2], 3, allowed=range(50))

    def train() -> None:
        while not done.is_set():
            index.train()

    def child() -> None:
        assert index.check() == []
        ids = index.ids()
        assert N - 3 <= len(ids) <= N
        assert np.array_equal(index.vectors_of(ids)[1], matrix[ids])
        index.add(np.arange(N, 3 * N), vectors(1, 2 * N, 32))  # trains, in a thread of the child
        assert index.wait(15)
        assert index.status().trained_on >= N
        index.train()
        assert index.remove(np.arange(N)) == len(ids)
        assert index.check() == []
        query = vectors(1, 2 * N, 32)[:200]
        scores, found = index.search(query, 1, allowed=range(N, N + 200))
        assert np.array_equal(found[:, 0], np.arange(N, N + 200))
        assert np.allclose(scores, 1, atol=1e-3)  # vectors of float16
        other = VectorIndex(32, threads=2)
        other.add(np.arange(2 * N), vectors(1, 2 * N, 32))
        assert np.array_equal(other.search(query, 1)[1][:, 0], np.arange(200))

    with ThreadPoolExecutor(3) as pool:
        working = [pool.submit(work) for work in (write, search, train)]
        try:
            for _ in range(2):
                in_child(child)
        finally:
            done.set()
        for work in working:
            work.result(60)
    assert index.wait(60)
    assert index.check() == []
    assert np.array_equal(np.sort(index.ids()), np.arange(N))
    assert np.array_equal(index.vectors_of(np.arange(N))[1], matrix)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_threads_may_fork_at_once() -> None:
    index = VectorIndex(8)
    index.add(np.arange(50), vectors(0, 50))
    for_both = threading.Barrier(2)

    def fork() -> None:
        for _ in range(5):
            for_both.wait(30)
            in_child(lambda: index.add([77], vectors(1, 1)))
            index.add([1], vectors(1, 1))

    with ThreadPoolExecutor(2) as pool:
        for forking in [pool.submit(fork) for _ in range(2)]:
            forking.result(60)
    assert len(index) == 50
