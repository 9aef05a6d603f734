"""`VectorIndex` against a dict and a numpy brute force."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from voiceprint.index import VectorIndex

D = 8
NOTHING = -np.finfo(np.float32).max


def vectors(seed: int, n: int, dimension: int = D) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).standard_normal((n, dimension))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def made(n: int, seed: int = 0) -> tuple[VectorIndex, dict[int, NDArray[np.float32]]]:
    """An index of n vectors with ids 10, 20, ... and the same as a dict."""
    index, matrix = VectorIndex(D), vectors(seed, n)
    ids = 10 * np.arange(1, n + 1)
    index.add(ids, matrix)
    return index, dict(zip(ids.tolist(), matrix, strict=True))


def assert_like(
    index: VectorIndex, model: dict[int, NDArray[np.float32]], k: int = 5, seed: int = 99
) -> None:
    """Whatever is asked, the index answers as a brute force over the model. Ties may come in any order."""
    assert len(index) == len(model)
    assert sorted(index.ids().tolist()) == sorted(model)
    queries = vectors(seed, 3)
    assert_answer(index.search(queries, k), queries, k, model)
    if model:
        own = np.stack(list(model.values()))
        scores, _ = index.search(own, 1)
        assert np.allclose(scores[:, 0], (own @ own.T).max(axis=1), atol=1e-5)


def assert_answer(
    answer: tuple[NDArray[np.float32], NDArray[np.int64]],
    queries: NDArray[np.float32],
    k: int,
    model: dict[int, NDArray[np.float32]],
) -> None:
    scores, ids = answer
    assert (scores.shape, scores.dtype) == ((len(queries), k), np.float32)
    assert (ids.shape, ids.dtype) == ((len(queries), k), np.int64)
    found = min(k, len(model))
    assert (ids[:, found:] == -1).all()
    assert (scores[:, found:] == NOTHING).all()
    for row, query in enumerate(queries):
        wanted = sorted((float(query @ vector) for vector in model.values()), reverse=True)[:found]
        assert np.allclose(scores[row, :found], wanted, atol=1e-5)
        assert len(set(ids[row, :found].tolist())) == found
        for score, id_ in zip(scores[row, :found], ids[row, :found].tolist(), strict=True):
            assert abs(float(query @ model[id_]) - score) < 1e-5


@pytest.mark.parametrize("n", [0, 1, 2, 50])
@pytest.mark.parametrize("k", [1, 2, 50, 60])
def test_search_gives_what_a_brute_force_gives(n: int, k: int) -> None:
    index, model = made(n)
    assert_like(index, model, k)


def test_one_query_may_be_a_flat_vector_and_none_gives_none() -> None:
    index, model = made(5)
    query = vectors(3, 1)
    assert_answer(index.search(query[0], 3), query, 3, model)
    for none in ([], np.empty((0, D), dtype=np.float32)):
        scores, ids = index.search(none, 3)
        assert (scores.shape, ids.shape) == ((0, 3), (0, 3))


def test_scores_are_inner_products_also_of_vectors_of_any_length() -> None:
    index = VectorIndex(2)
    index.add([1, 2], [[3, 4], [0.5, 0]])
    scores, ids = index.search([1, 0], 2)
    assert (scores.tolist(), ids.tolist()) == ([[3.0, 0.5]], [[1, 2]])


def test_add_replaces_an_id_that_is_there() -> None:
    index, model = made(9)
    model[30], model[95] = vectors(5, 2)
    index.add([95, 30], [model[95], model[30]])
    assert_like(index, model)
    assert 30 in index
    assert 31 not in index


def test_of_an_id_given_twice_the_last_vector_counts() -> None:
    index, model = made(4)
    new = vectors(7, 5)
    index.add([20, 77, 20, 77, 10], new)
    model.update({20: new[2], 77: new[3], 10: new[4]})
    assert_like(index, model)


@pytest.mark.parametrize(
    "gone", [[10], [90], [50, 60], [90, 80], [10, 10, 10], [11, 10], [], list(range(10, 100, 10))]
)
def test_remove_takes_out_what_is_there_and_passes_over_the_rest(gone: list[int]) -> None:
    index, model = made(9)
    there = set(gone) & set(model)
    assert index.remove(gone) == len(there)
    assert index.remove(gone) == 0
    for id_ in there:
        del model[id_]
    assert_like(index, model)
    index.add([10, 123], vectors(8, 2))
    model.update(zip((10, 123), vectors(8, 2), strict=True))
    assert_like(index, model)


@pytest.mark.parametrize(
    "allowed", [[], [10], [10, 10, 50], [11], [90, 11, -1], set(range(100)), np.array([20, 30])]
)
def test_search_among_the_allowed_alone(allowed: Any) -> None:
    index, model = made(9)
    queries = vectors(3, 4)
    among = {id_: vector for id_, vector in model.items() if id_ in {int(i) for i in allowed}}
    for k in (1, 3, 20):
        assert_answer(index.search(queries, k, allowed=allowed), queries, k, among)
    assert_answer(index.search(queries, 2, allowed=iter(list(allowed))), queries, 2, among)


def test_what_is_given_and_got_is_not_the_index_itself() -> None:
    index, model = made(3)
    given = vectors(4, 1)
    index.add([5], given)
    model[5] = given[0].copy()
    given[:] = 0
    index.ids()[:] = 0
    assert_like(index, model)


BAD_CALLS = {
    "fewer vectors than ids": lambda i: i.add([1, 2], vectors(0, 1)),
    "no vectors": lambda i: i.add([1], []),
    "wrong dimension": lambda i: i.add([1], vectors(0, 1, D + 1)),
    "three axes": lambda i: i.add([1], np.zeros((1, 1, D))),
    "NaN": lambda i: i.add([1, 2], [[0.0] * D, [np.nan] * D]),
    "infinity": lambda i: i.add([1], [[np.inf] * D]),
    "beyond float32": lambda i: i.add([1], [[1e300] * D]),
    "text": lambda i: i.add([1], [["1"] * D]),
    "complex": lambda i: i.add([1], [[1j] * D]),
    "objects": lambda i: i.add([1], [[None] * D]),
    "ragged": lambda i: i.add([1, 2], [[1.0], [1.0, 2.0]]),
    "negative id": lambda i: i.add([10, -1], vectors(0, 2)),
    "id of float": lambda i: i.add([1.0], vectors(0, 1)),
    "id beyond 64 bits": lambda i: i.add([2**63], vectors(0, 1)),
    "huge id": lambda i: i.add([2**70], vectors(0, 1)),
    "bool id": lambda i: i.add([True], vectors(0, 1)),
    "scalar id": lambda i: i.add(1, vectors(0, 1)),
    "ids in a set": lambda i: i.add({1}, vectors(0, 1)),
    "remove text": lambda i: i.remove(["10"]),
    "remove negative": lambda i: i.remove([10, -1]),
    "remove none": lambda i: i.remove([10, None]),
    "k of 0": lambda i: i.search(vectors(0, 1), 0),
    "k of float": lambda i: i.search(vectors(0, 1), 1.0),
    "k of bool": lambda i: i.search(vectors(0, 1), True),
    "k of None": lambda i: i.search(vectors(0, 1), None),
    "query of wrong dimension": lambda i: i.search(vectors(0, 1, D - 1), 1),
    "query of NaN": lambda i: i.search([np.nan] * D, 1),
    "query of None": lambda i: i.search(None, 1),
    "allowed text": lambda i: i.search(vectors(0, 1), 1, allowed=["10"]),
    "allowed float": lambda i: i.search(vectors(0, 1), 1, allowed=[10.5]),
    "allowed None": lambda i: i.search(vectors(0, 1), 1, allowed=[None]),
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_a_value_error_and_changes_nothing(call: Any) -> None:
    index, model = made(4)
    with pytest.raises(ValueError, match=r"\S"):
        call(index)
    assert_like(index, model)


@pytest.mark.parametrize("dimension", [0, -1, 2.0, True, None, "8", 2**31, 2**70])
def test_a_dimension_that_no_vector_has_is_refused(dimension: Any) -> None:
    with pytest.raises(ValueError, match="dimension"):
        VectorIndex(dimension)


class IndexMachine(RuleBasedStateMachine):
    """Any run of additions, replacements, removals, saves and loads leaves the index like a dict."""

    folder: Path

    @initialize()
    def start(self) -> None:
        self.index, self.model = VectorIndex(D), {}

    @rule(ids=st.lists(st.integers(0, 30), max_size=12), seed=st.integers(0, 10**6))
    def add(self, ids: list[int], seed: int) -> None:
        matrix = vectors(seed, len(ids))
        self.index.add(ids, matrix)
        self.model.update(zip(ids, matrix, strict=True))

    @rule(ids=st.lists(st.integers(0, 30), max_size=12))
    def remove(self, ids: list[int]) -> None:
        assert self.index.remove(ids) == len(set(ids) & set(self.model))
        for id_ in ids:
            self.model.pop(id_, None)

    @rule()
    def save_and_load(self) -> None:
        self.index.save(self.folder / "snapshot")
        self.index = VectorIndex.load(self.folder / "snapshot")

    @rule(seed=st.integers(0, 10**6), k=st.integers(1, 40), allowed=st.sets(st.integers(0, 40)))
    def search_among(self, seed: int, k: int, allowed: set[int]) -> None:
        queries = vectors(seed, 2)
        among = {id_: vector for id_, vector in self.model.items() if id_ in allowed}
        assert_answer(self.index.search(queries, k, allowed=allowed), queries, k, among)

    @invariant()
    def like_the_model(self) -> None:
        assert_like(self.index, self.model)


def test_any_run_of_changes_leaves_the_index_like_a_dict(tmp_path: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("Machine", (IndexMachine,), {"folder": tmp_path})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None)
    )


def test_searchers_beside_a_writer_see_only_states_that_were() -> None:
    """The vector of an id says which id and which round it is of: a torn row or a wrong id would show."""
    index, done = VectorIndex(2), Event()

    def vector(id_: int, round_: int) -> list[float]:
        return [id_ * 1000.0 + round_, 1.0]

    def write() -> None:
        try:
            for round_ in range(150):
                ids = [(round_ * 7 + n) % 40 for n in range(10)]
                index.add(ids, [vector(id_, round_) for id_ in ids])
                index.remove([(round_ * 11 + n) % 40 for n in range(9)])
        finally:
            done.set()

    def search() -> int:
        searches = 0
        while not done.is_set() or not searches:
            for allowed in (None, range(40)):
                scores, ids = index.search([1.0, 0.0], 50, allowed=allowed)
                there = ids[0] >= 0
                assert (ids[0][there] == scores[0][there].astype(np.int64) // 1000).all()
                assert len(set(ids[0][there].tolist())) == there.sum()
            searches += 1
        return searches

    with ThreadPoolExecutor(4) as pool:
        writing = pool.submit(write)
        searching = [pool.submit(search) for _ in range(3)]
        writing.result()
        assert all(future.result() for future in searching)
