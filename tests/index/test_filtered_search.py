"""A search among a set, or without one, finds k where k exist: the answer of numpy, or nearly."""

from __future__ import annotations

import functools
import gc
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_index_candidates import clustered, filled
from vectors import assert_answer, made, made_trained, vectors

from voiceprint.index import IdSet, VectorIndex

ROWS = 20_000


@pytest.fixture(scope="module")
def trained() -> VectorIndex:
    index = filled(ROWS, exact_up_to=200, recall=0.8)
    assert index.status().structure == "ivf"
    return index


@functools.cache
def rows() -> NDArray[np.float32]:
    """The vectors of the index: row n has the id n + 1."""
    return clustered(ROWS)


def best_of(ids: Iterable[int], query: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The k best of these by numpy."""
    among = np.array(sorted(ids), dtype=np.int64)
    return among[np.argsort(-(rows() @ query)[among - 1], kind="stable")[:k]]


@pytest.mark.parametrize("one_in", [1, 2, 5, 9, 50, 100, 1_000])
def test_k_are_found_at_every_selectivity_as_rightly_as_without_a_filter(
    trained: VectorIndex, one_in: int
) -> None:
    everyone = IdSet(np.arange(1, ROWS + 1))
    allowed = IdSet(np.arange(1, ROWS + 1, one_in))
    unfiltered, filtered = [], []
    for query in clustered(100, seed=5):
        _, ids = trained.search(query, 5)
        unfiltered.append(len(np.intersect1d(ids, best_of(everyone, query, 5))) / 5)
        for filter_ in ({"allowed": allowed}, {"excluded": everyone - allowed}):
            _, ids = trained.search(query, 5, **filter_)
            assert (ids >= 0).all()
            assert allowed.holds(ids).all()
            filtered.append(len(np.intersect1d(ids, best_of(allowed, query, 5))) / 5)
    assert np.mean(filtered) >= np.mean(unfiltered) - 0.01


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_k_are_found_where_the_set_is_far_from_the_query(trained: VectorIndex, share: float) -> None:
    query = clustered(1, seed=6)[0]
    order = np.argsort(rows() @ query)
    allowed = 1 + order[: int(share * ROWS)]  # the least similar ones
    for filter_ in ({"allowed": allowed}, {"excluded": 1 + order[int(share * ROWS) :]}):
        for k in (1, 5, 200):
            _, ids = trained.search(query, k, **filter_)
            assert len(np.intersect1d(ids, allowed)) == k
            candidates = trained.candidates(query, k, **filter_)[0]
            assert len(np.intersect1d(candidates, allowed)) == len(candidates) >= k


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_small_sets_are_searched_exactly(trained: VectorIndex, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(1, ROWS + 50), max_size=150))
    query = clustered(1, seed=data.draw(st.integers(0, 10**6)))[0]
    k = data.draw(st.integers(1, 20))
    right = best_of({id_ for id_ in ids if id_ <= ROWS}, query, k)
    _, found = trained.search(query, k, allowed=ids)
    assert found[0, : len(right)].tolist() == right.tolist()
    assert (found[0, len(right) :] == -1).all()


@pytest.mark.usefixtures("every_candidate", "small_sets")
@pytest.mark.parametrize("make", [lambda: made(60), made_trained], ids=["exact", "trained"])
def test_a_kept_set_follows_every_change_of_the_index(make: Any) -> None:
    index, model = make()
    ids, query = IdSet([*range(0, 400, 20), 5]), vectors(7, 1)

    def assert_found() -> None:
        among = {id_: vector for id_, vector in model.items() if id_ in ids}
        assert_answer(index.search(query, 30, allowed=ids), query, 30, among)
        assert index.check() == []

    assert_found()
    index.remove([40, 50])
    del model[40], model[50]
    assert_found()
    model[5] = model[100] = query[0]
    index.add([5, 100], np.concatenate([query, query]))  # one is new in the index, one is replaced
    assert_found()
    index.train()
    assert_found()
    index.add([40], vectors(8, 1))
    model[40] = vectors(8, 1)[0]
    assert_found()


@pytest.mark.usefixtures("small_sets")
def test_removed_vectors_leave_the_copies_of_all_sets() -> None:
    index, model = made(60)
    sets = [IdSet(range(0, 300, 10)), IdSet([100, 200])]
    for ids in sets:
        index.search(vectors(1, 1), 3, allowed=ids)
    removed = model[200].astype(np.float16)
    copies = [index._parts.gathered.get(ids, 100) for ids in sets]
    assert all((copy.vectors == removed).all(axis=1).any() for copy in copies if copy is not None)
    index.remove([200])
    assert not any((copy.vectors == removed).all(axis=1).any() for copy in copies if copy is not None)


@pytest.mark.usefixtures("small_sets")
def test_the_copies_are_bounded_and_go_with_their_sets() -> None:
    index, _ = made(100, exact_up_to=60)
    gathered = index._parts.gathered
    sets = [IdSet(range(10 * n, 10 * n + 200)) for n in range(3)]  # one fits in, not two

    def total() -> int:
        return sum(map(len, gathered._of.values()))

    for ids in [IdSet(range(10 * n, 10 * n + 25)) for n in range(30)] + sets:
        index.search(vectors(1, 1), 3, allowed=ids)
        assert total() <= 60
    kept = [IdSet(range(30)), IdSet(range(25))]
    for ids in kept * 2:
        index.search(vectors(1, 1), 3, allowed=ids)
    assert total() == 55
    kept.clear()
    del ids
    gc.collect()
    assert total() == 0


@pytest.mark.usefixtures("small_sets")
def test_searches_of_sets_beside_writes_find_all_of_them() -> None:
    index, _ = made(200, exact_up_to=100)
    sets = [IdSet(range(10 * n, 10 * n + 300)) for n in range(20)]
    failures: list[str] = []
    end = threading.Event()

    def search() -> None:
        while not end.is_set():
            for ids in sets:
                found = index.search(vectors(1, 1), 40, allowed=ids)[1]
                if not ids.holds(found[found >= 0]).all() or (found >= 0).sum() < 29:
                    failures.append("not all found")

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(300):
        index.add([10 * (1 + n % 200)], vectors(n, 1))
    end.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert index.wait(60)
    assert index.check() == []


def test_a_set_of_ids_is_like_a_python_set() -> None:
    ids = IdSet([5, 3, 5, -1, 2**63, 2**70])
    assert (list(ids), len(ids), 3 in ids, 4 in ids, "3" in ids) == ([3, 5], 2, True, False, False)
    assert list(ids | IdSet(np.array([4, 3], dtype=np.uint8))) == [3, 4, 5]
    assert list(ids - IdSet([3])) == [5]
    assert list(IdSet() | ids - ids) == []
    assert ids.holds(np.array([[3, 4], [5, -1]])).tolist() == [[True, False], [True, False]]
    assert repr(ids) == "IdSet(2 ids)"
    with pytest.raises(ValueError):
        ids.ids[0] = 1
    for wrong in (["3"], [1.5], np.array([1.0]), np.array([[1]]), None, 3):
        with pytest.raises(ValueError):
            IdSet(wrong)  # type: ignore[arg-type]
