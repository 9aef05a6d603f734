"""Shared by the tests of the index: vectors, an index beside a dict, and comparisons of the two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceprint.index import SearchIndex, VectorIndex

D = 8
NOTHING = -np.finfo(np.float32).max
TOLERANCE = 1e-6

Model = dict[int, NDArray[np.float32]]
Answer = tuple[NDArray[np.float32], NDArray[np.int64]]


def vectors(seed: int | list[int], n: int, dimension: int = D) -> NDArray[np.float32]:
    """Vectors of length 1 that float16 holds without rounding, as it does whatever an index returns."""
    found = np.random.default_rng(seed).standard_normal((n, dimension))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def made(n: int, seed: int = 0, **options: Any) -> tuple[VectorIndex, Model]:
    """An index of n vectors with ids 10, 20, ... and the same as a dict."""
    index, matrix = VectorIndex(D, **options), vectors(seed, n)
    ids = 10 * np.arange(1, n + 1)
    index.add(ids, matrix)
    assert index.wait(60)
    return index, dict(zip(ids.tolist(), matrix, strict=True))


def made_trained(n: int = 300, seed: int = 0, **options: Any) -> tuple[VectorIndex, Model]:
    """The same with a trained part."""
    index, model = made(n, seed, **({"exact_up_to": 200} | options))
    assert index.status().structure == "ivf"
    return index, model


def assert_like(index: SearchIndex, model: Model, k: int = 5, seed: int = 99) -> None:
    """Whatever is asked, the index answers as a brute force over the model. Ties may come in any order."""
    assert len(index) == len(model)
    assert sorted(index.ids().tolist()) == sorted(model)
    queries = vectors(seed, 3)
    assert_answer(index.search(queries, k), queries, k, model)
    if model:
        own = np.stack(list(model.values()))
        assert np.array_equal(index.vectors_of(list(model))[1], own)
        scores, _ = index.search(own, 1)
        wanted = (own.astype(np.float64) @ own.T.astype(np.float64)).max(axis=1)
        assert np.allclose(scores[:, 0], wanted, rtol=0, atol=TOLERANCE)
    assert index.check() == []


def assert_answer(answer: Answer, queries: NDArray[Any], k: int, model: Model) -> None:
    """These are the k best, with their inner products, the largest first."""
    scores, ids = answer
    assert (scores.shape, scores.dtype) == ((len(queries), k), np.float32)
    assert (ids.shape, ids.dtype) == ((len(queries), k), np.int64)
    found = min(k, len(model))
    assert (ids[:, found:] == -1).all()
    assert (scores[:, found:] == NOTHING).all()
    assert (np.diff(scores[:, :found].astype(np.float64), axis=1) <= 0).all()
    for row, query in enumerate(queries.astype(np.float64)):
        exact = {id_: float(query @ vector.astype(np.float64)) for id_, vector in model.items()}
        wanted = sorted(exact.values(), reverse=True)[:found]
        assert np.allclose(scores[row, :found], wanted, rtol=0, atol=TOLERANCE)
        assert len(set(ids[row, :found].tolist())) == found
        for score, id_ in zip(scores[row, :found], ids[row, :found].tolist(), strict=True):
            assert abs(exact[id_] - score) < TOLERANCE
