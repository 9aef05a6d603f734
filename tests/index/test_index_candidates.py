"""`VectorIndex.candidates`: the vectors from which another score chooses, exact or nearly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from voiceprint.index import VectorIndex

DIMENSION = 32


def clustered(rows: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors around 50 directions, as voices around speakers."""
    chance = np.random.default_rng(seed)
    vectors = chance.standard_normal((50, DIMENSION))[chance.integers(50, size=rows)]
    vectors = vectors + 0.5 * chance.standard_normal((rows, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def filled(rows: int, *, exact_up_to: int = 20_000, recall: float = 0.99) -> VectorIndex:
    """An index of these rows, with ids from 1, trained where that is due."""
    index = VectorIndex(DIMENSION, exact_up_to=exact_up_to, recall=recall)
    index.add(np.arange(1, rows + 1), clustered(rows))
    index.wait()
    return index


def nearest_of(vectors: NDArray[np.float32], query: NDArray[np.float32], count: int) -> set[int]:
    return set((1 + np.argsort(-(vectors @ query), kind="stable")[:count]).tolist())


@pytest.mark.parametrize("recall", [0.99, 1.0])
def test_an_exact_index_gives_the_nearest_of_each_query_and_their_vectors(recall: float) -> None:
    index, vectors = filled(3_000, recall=recall), clustered(3_000)
    queries = clustered(2, seed=7)
    ids, found = index.candidates(queries, 25)
    assert set(ids.tolist()) == nearest_of(vectors, queries[0], 25) | nearest_of(vectors, queries[1], 25)
    assert len(set(ids.tolist())) == len(ids)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vectors[ids - 1], atol=1e-3)


def test_a_trained_index_gives_what_a_search_finds_with_recent_and_without_removed_ones() -> None:
    index, vectors = filled(20_000, exact_up_to=1_000, recall=0.8), clustered(20_000)
    assert index.status().structure == "ivf"
    queries = clustered(40, seed=7)
    index.add([20_001], queries[:1])  # the buffer
    gone = list(nearest_of(vectors, queries[1], 5))
    index.remove(gone)
    hits = []
    for query in queries[2:]:
        ids, found = index.candidates(query, 100)
        assert len(ids) >= 100
        assert len(set(ids.tolist())) == len(ids)
        hits.append(len({*index.search(query, 10)[1][0].tolist()} & {*ids.tolist()}))
        there, expected = index.vectors_of(ids)
        assert there.all()
        assert np.array_equal(found, expected)
        assert len(ids) < 2_000
    assert np.mean(hits) > 9.5
    assert 20_001 in index.candidates(queries[0], 100)[0]
    assert not set(gone) & set(index.candidates(queries[1], 100)[0].tolist())


@pytest.mark.parametrize("exact_up_to", [20_000, 1_000])
@pytest.mark.parametrize("count", [5_000, 10**9])
def test_all_are_given_where_as_many_are_asked_for(exact_up_to: int, count: int) -> None:
    index = filled(5_000, exact_up_to=exact_up_to)
    index.remove([17])
    index.add([6_000], clustered(1, seed=3))
    ids, vectors = index.candidates(clustered(2, seed=7), count)
    assert sorted(ids.tolist()) == [n for n in range(1, 5_001) if n != 17] + [6_000]
    assert vectors.shape == (5_000, DIMENSION)


def test_an_empty_index_gives_none() -> None:
    ids, vectors = VectorIndex(DIMENSION).candidates(clustered(1), 5)
    assert (ids.shape, ids.dtype, vectors.shape) == ((0,), np.int64, (0, DIMENSION))


@pytest.mark.parametrize(
    ("queries", "count"), [(np.zeros((1, 3)), 5), (clustered(1), 0), (clustered(1), 1.5)]
)
def test_wrong_questions_are_refused(queries: NDArray[np.float32], count: int) -> None:
    with pytest.raises(ValueError):
        filled(10).candidates(queries, count)
