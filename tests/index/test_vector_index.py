"""`VectorIndex` takes and gives the same as a numpy brute force, exact or of cells."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from processes import in_child
from vectors import TOLERANCE, D, assert_answer, assert_like, made, made_trained, vectors

from voiceprint.index import VectorIndex
from voiceprint.index.rows import to_half, to_single


@pytest.mark.parametrize("n", [0, 1, 2, 50])
@pytest.mark.parametrize("k", [1, 2, 50, 60])
def test_search_gives_what_a_brute_force_gives(n: int, k: int) -> None:
    index, model = made(n)
    assert_like(index, model, k)


@pytest.mark.usefixtures("every_candidate")
@pytest.mark.parametrize("k", [1, 2, 50, 299, 300, 310, 5_000])
def test_a_trained_part_whose_lists_are_all_scanned_gives_what_a_brute_force_gives(k: int) -> None:
    index, model = made_trained()
    assert_like(index, model, k)


@pytest.mark.parametrize("make", [made, made_trained])
def test_many_queries_at_once_are_answered_as_one_by_one(make: Any) -> None:
    index, _ = make(300)
    queries = vectors(3, 50)
    scores, ids = index.search(queries, 4)
    for row, query in enumerate(queries):
        single_scores, single_ids = index.search(query, 4)
        assert np.allclose(single_scores[0], scores[row], rtol=0, atol=TOLERANCE)
        assert np.array_equal(single_ids[0], ids[row])


def test_scores_of_a_trained_part_are_exact_also_where_not_every_neighbor_is_found() -> None:
    index, model = made_trained(3_000, recall=0.3)
    assert 0 < index.status().nprobe < index.status().nlist
    queries = vectors(3, 100)
    scores, ids = index.search(queries, 4)
    for query, row_scores, row_ids in zip(queries.astype(np.float64), scores, ids.tolist(), strict=True):
        assert -1 not in row_ids
        assert np.allclose(row_scores, [query @ model[id_] for id_ in row_ids], rtol=0, atol=TOLERANCE)
        assert (np.diff(row_scores) <= 0).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8])
def test_numbers_of_any_type_are_taken(dtype: Any) -> None:
    numbers = np.random.default_rng(0).integers(0, 5, (20, D)).astype(dtype)
    index = VectorIndex(D)
    index.add(np.arange(20, dtype=np.uint16), numbers)
    model = dict(enumerate(numbers.astype(np.float32)))
    assert_answer(index.search(numbers[:3], 5), numbers[:3], 5, model)


def test_searching_and_changing_leave_the_threads_of_the_application_alone() -> None:
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        index, _ = made_trained(threads=1)
        index.search(vectors(1, 1), 2)
        index.search(vectors(1, 1), 2, allowed=[10])
        index.train()
        index.tune()
        index.remove([10])
        with pytest.raises(ValueError, match="k"):
            index.search(vectors(1, 1), 0)
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


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


def test_thousands_of_equal_vectors_are_taken_out_and_put_back() -> None:
    """They are all in the same list."""
    index, equal = VectorIndex(D, exact_up_to=200), np.tile(vectors(1, 1), (5_000, 1))
    index.add(np.arange(5_000), equal)
    assert index.wait(60)
    assert index.remove(np.arange(100, 5_000)) == 4_900
    model = dict.fromkeys(range(100), equal[0])
    assert_like(index, model)
    index.add(np.arange(50, 150), equal[:100])
    assert_like(index, model | dict.fromkeys(range(150), equal[0]))


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
@pytest.mark.parametrize("make", [lambda: made(9), made_trained], ids=["exact", "cells"])
def test_search_among_the_allowed_alone(allowed: Any, make: Any) -> None:
    index, model = make()
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
}


@pytest.mark.usefixtures("every_candidate")
@pytest.mark.parametrize("make", [lambda: made(4), made_trained], ids=["exact", "cells"])
def test_bad_input_is_a_value_error_and_changes_nothing(make: Any) -> None:
    index, model = make()
    for what, call in BAD_CALLS.items():
        with pytest.raises(ValueError, match=r"\S"):
            pytest.fail(f"{what} gave {call(index)}")
        assert len(index) == len(model), what
    assert_like(index, model)


def test_memory_that_runs_out_leaves_a_sound_index() -> None:
    index = VectorIndex(4_096, recall=1.0)
    index.add([5], np.ones((1, 4_096)))

    def fill() -> None:
        zeros = np.zeros((512, 4_096), dtype=np.float16)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), most))
        with pytest.raises(MemoryError):
            index.fill((np.arange(start, start + 512), zeros) for start in range(10, 100_000, 512))
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        assert index.check() == []
        assert index.search(np.ones(4_096), 1)[1][0, 0] == 5
        assert index.remove([5]) == 1

    in_child(fill)


@pytest.mark.parametrize("dimension", [0, -1, 2.0, True, None, "8", 2**31, 2**70])
def test_a_dimension_that_no_vector_has_is_refused(dimension: Any) -> None:
    with pytest.raises(ValueError, match="dimension"):
        VectorIndex(dimension)


@pytest.mark.parametrize(
    "options",
    [{"recall": 0}, {"recall": 1.1}, {"recall": True}, {"recall": "0.9"}, {"threads": 0}, {"exact_up_to": -1},
     {"exact_up_to": 1.0}],
    ids=str,
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        VectorIndex(D, **options)


def test_vectors_are_given_of_the_ids_that_are_there() -> None:
    index, model = made(5)
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


def test_vectors_are_rounded_to_float16_and_scores_are_of_the_rounded_ones() -> None:
    index, given = VectorIndex(2), np.array([[0.1, 0.7], [1e-7, 65_504]], dtype=np.float32)
    index.add([1, 2], given)
    rounded = given.astype(np.float16).astype(np.float32)
    assert np.array_equal(index.vectors_of([1, 2])[1], rounded)
    assert np.allclose(index.search([1, 0], 2)[0], [[rounded[0, 0], rounded[1, 0]]], rtol=1e-6)


def test_every_float16_comes_back_as_it_was() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    assert np.array_equal(to_single(halves[:, None])[:, 0], halves.astype(np.float32))
    assert np.array_equal(to_half(halves.astype(np.float32)[:, None])[:, 0], halves)


def test_filling_is_adding() -> None:
    index, matrix = VectorIndex(D), vectors(1, 30)
    index.fill((range(start, start + 10), matrix[start : start + 10]) for start in (0, 10, 20))
    assert_like(index, dict(enumerate(matrix)))


@pytest.mark.usefixtures("every_candidate")
def test_check_finds_an_id_that_does_not_lead_to_its_row_and_a_row_that_no_list_holds() -> None:
    index, _ = made_trained()
    assert index.check() == []
    trained = index._parts.trained
    assert trained is not None
    trained.rows.ids[[3, 4]] = trained.rows.ids[[4, 3]]
    trained.ivf = trained.ivf.without(np.array([7]))
    assert [found.split()[0] for found in index.check()] == ["The", "An"]
