"""The contract of an index, on every engine: the answers of a brute force, whatever is asked or given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from engines import Engine, engines
from vectors import TOLERANCE, D, assert_answer, assert_like, vectors

from voiceprint.index import IdSet
from voiceprint.index.rows import to_single

ENGINES = dict(engines())


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, every_candidate: None) -> Iterator[Engine]:
    yield ENGINES[request.param]
    ENGINES[request.param].close()


@pytest.mark.parametrize("n", [0, 2, 50])
@pytest.mark.parametrize("k", [1, 50, 60, 299, 5_000])
def test_search_gives_what_a_brute_force_gives(engine: Engine, n: int, k: int) -> None:
    index, model = engine.made(n)
    assert_like(index, model, k)


def test_many_queries_at_once_are_answered_as_one_by_one(engine: Engine) -> None:
    index, _ = engine.made(300)
    queries = vectors(3, 50)
    scores, ids = index.search(queries, 4)
    for row, query in enumerate(queries):
        single_scores, single_ids = index.search(query, 4)
        assert np.allclose(single_scores[0], scores[row], rtol=0, atol=TOLERANCE)
        assert np.array_equal(single_ids[0], ids[row])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8])
def test_numbers_of_any_type_are_taken(engine: Engine, dtype: Any) -> None:
    numbers = np.random.default_rng(0).integers(0, 5, (20, D)).astype(dtype)
    index = engine.empty()
    index.add(np.arange(20, dtype=np.uint16), numbers)
    model = dict(enumerate(numbers.astype(np.float32)))
    assert_answer(index.search(numbers[:3], 5), numbers[:3], 5, model)


def test_one_query_may_be_a_flat_vector_and_none_gives_none(engine: Engine) -> None:
    index, model = engine.made(5)
    query = vectors(3, 1)
    assert_answer(index.search(query[0], 3), query, 3, model)
    for none in ([], np.empty((0, D), dtype=np.float32)):
        scores, ids = index.search(none, 3)
        assert (scores.shape, ids.shape) == ((0, 3), (0, 3))
        ids, found = index.candidates(none, 3)
        assert (ids.shape, found.shape) == ((0,), (0, D))


def test_scores_are_inner_products_also_of_vectors_of_any_length(engine: Engine) -> None:
    index = engine.empty(2)
    index.add([1, 2], [[3, 4], [0.5, 0]])
    scores, ids = index.search([1, 0], 2)
    assert (scores.tolist(), ids.tolist()) == ([[3.0, 0.5]], [[1, 2]])


def test_add_replaces_an_id_that_is_there(engine: Engine) -> None:
    index, model = engine.made(9)
    model[30], model[95] = vectors(5, 2)
    index.add([95, 30], [model[95], model[30]])
    assert_like(index, model)
    assert 30 in index
    assert 31 not in index


def test_of_an_id_given_twice_the_last_vector_counts(engine: Engine) -> None:
    index, model = engine.made(4)
    new = vectors(7, 5)
    index.add([20, 77, 20, 77, 10], new)
    model.update({20: new[2], 77: new[3], 10: new[4]})
    assert_like(index, model)


@pytest.mark.parametrize(
    "gone", [[10], [90], [50, 60], [90, 80], [10, 10, 10], [11, 10], [], list(range(10, 100, 10))]
)
def test_remove_takes_out_what_is_there_and_passes_over_the_rest(engine: Engine, gone: list[int]) -> None:
    index, model = engine.made(9)
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
    "allowed",
    [
        [],
        [10],
        [10, 10, 50],
        [11],
        [90, 11, -1],
        set(range(100)),
        np.array([20, 30]),
        [2**63 - 1, 2**63, 2**70, -(2**70), 20],
    ],
)
def test_search_among_the_allowed_alone(engine: Engine, allowed: Any) -> None:
    index, model = engine.made(9)
    queries = vectors(3, 4)
    among = {id_: vector for id_, vector in model.items() if id_ in {int(i) for i in allowed}}
    for k in (1, 3, 20):
        assert_answer(index.search(queries, k, allowed=allowed), queries, k, among)
    assert_answer(index.search(queries, 2, allowed=iter(list(allowed))), queries, 2, among)


def test_both_filters_together_leave_the_difference(engine: Engine) -> None:
    index, model = engine.made(30)
    queries = vectors(1, 3)
    among = {id_: model[id_] for id_ in (10, 30)}
    assert_answer(index.search(queries, 5, allowed=[10, 20, 30], excluded={20, 99}), queries, 5, among)


def test_an_empty_set_finds_nothing_and_leaves_nothing_out(engine: Engine) -> None:
    index, model = engine.made(20)
    assert (index.search(vectors(1, 2), 3, allowed=IdSet())[1] == -1).all()
    assert len(index.candidates(vectors(1, 2), 3, allowed=[])[0]) == 0
    assert_answer(index.search(vectors(1, 2), 3, excluded=[]), vectors(1, 2), 3, model)
    assert (index.search(vectors(1, 2), 3, excluded=list(model))[1] == -1).all()
    assert_like(index, model)
    assert (engine.empty().search(vectors(1, 1), 3, excluded=[1])[1] == -1).all()


def test_what_is_given_and_got_is_not_the_index_itself(engine: Engine) -> None:
    index, model = engine.made(3)
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
    "beyond float16": lambda i: i.add([1], [[65_505.0] * D]),
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
    "candidates of 0": lambda i: i.candidates(vectors(0, 1), 0),
}


def test_bad_input_is_a_value_error_and_changes_nothing(engine: Engine) -> None:
    index, model = engine.made(4)
    for what, call in BAD_CALLS.items():
        with pytest.raises(ValueError, match=r"\S"):
            pytest.fail(f"{what} gave {call(index)}")
        assert len(index) == len(model), what
    assert_like(index, model)


@pytest.mark.parametrize("dimension", [0, -1, 2.0, True, None, "8", 2**31, 2**70])
def test_a_dimension_that_no_vector_has_is_refused(engine: Engine, dimension: Any) -> None:
    with pytest.raises(ValueError, match="dimension"):
        engine.empty(dimension)


def test_vectors_are_given_of_the_ids_that_are_there(engine: Engine) -> None:
    index, model = engine.made(5)
    index.remove([20])
    there, found = index.vectors_of([50, 20, 10, 7, 10])
    assert there.tolist() == [True, False, True, False, True]
    assert np.array_equal(found, np.stack([model[50], model[10], model[10]]))
    found[:] = 0  # the reader's own
    assert np.array_equal(index.vectors_of([10])[1][0], model[10])
    none, empty = index.vectors_of([])
    assert (none.shape, empty.shape) == ((0,), (0, D))
    with pytest.raises(ValueError, match="below 0"):
        index.vectors_of([-1])


def test_vectors_are_rounded_to_float16_and_scores_are_of_the_rounded_ones(engine: Engine) -> None:
    index, given = engine.empty(2), np.array([[0.1, 0.7], [1e-7, 65_504]], dtype=np.float32)
    index.add([1, 2], given)
    rounded = given.astype(np.float16).astype(np.float32)
    assert np.array_equal(index.vectors_of([1, 2])[1], rounded)
    assert np.allclose(index.search([1, 0], 2)[0], [[rounded[0, 0], rounded[1, 0]]], rtol=1e-6)


def test_every_float16_comes_back_as_it_was(engine: Engine) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = to_single(halves[np.isfinite(halves)].reshape(-1, 1_024))
    index = engine.empty(1_024)
    index.add(np.arange(len(halves)), halves)
    assert np.array_equal(index.vectors_of(np.arange(len(halves)))[1], halves)


def test_differences_are_what_add_would_store(engine: Engine) -> None:
    index, model = engine.made(9)
    replaced, new = index.differences([10, 20, 95], [model[10], model[10], model[10]])
    assert (replaced.tolist(), new.tolist()) == ([False, True, False], [False, False, True])


def test_a_sample_has_each_id_once_and_is_the_same_again(engine: Engine) -> None:
    index, model = engine.made(50)
    for count in (0, 1, 5, 1_000):
        sample = index.sample(count).tolist()
        assert len(set(sample)) == len(sample) == min(count, len(model))
        assert set(sample) <= set(model)
        assert index.sample(count).tolist() == sample
