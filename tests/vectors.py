"""What the tests of the index share: vectors, an index beside a dict, and what to hold against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from voiceprint.index import VectorIndex

D = 8
NOTHING = -np.finfo(np.float32).max
ALL = 10**6  # cells: more than there are
TOLERANCE = 1e-6

Model = dict[int, NDArray[np.float32]]
Answer = tuple[NDArray[np.float32], NDArray[np.int64]]


def vectors(seed: int | list[int], n: int, dimension: int = D) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).standard_normal((n, dimension))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def made(n: int, seed: int = 0, **options: Any) -> tuple[VectorIndex, Model]:
    """An index of n vectors with ids 10, 20, ... and the same as a dict."""
    index, matrix = VectorIndex(D, **options), vectors(seed, n)
    ids = 10 * np.arange(1, n + 1)
    index.add(ids, matrix)
    assert index.wait(60)
    return index, dict(zip(ids.tolist(), matrix, strict=True))


def made_of_cells(n: int = 300, seed: int = 0, **options: Any) -> tuple[VectorIndex, Model]:
    """The same with cells, which are looked through to the last candidate (see `all_candidates`)."""
    index, model = made(n, seed, **({"exact_up_to": 200, "probes": ALL, "depth": 600} | options))
    assert index.status().structure == "cells"
    return index, model


def assert_like(index: VectorIndex, model: Model, k: int = 5, seed: int = 99) -> None:
    """Whatever is asked, the index answers as a brute force over the model. Ties may come in any order."""
    assert len(index) == len(model)
    assert sorted(index.ids().tolist()) == sorted(model)
    queries = vectors(seed, 3)
    assert_answer(index.search(queries, k), queries, k, model)
    if model:
        own = np.stack(list(model.values()))
        assert np.array_equal(index.reconstruct(list(model)), own)
        scores, _ = index.search(own, 1)
        wanted = (own.astype(np.float64) @ own.T.astype(np.float64)).max(axis=1)
        assert np.allclose(scores[:, 0], wanted, rtol=0, atol=TOLERANCE)
    assert_in_step(index)


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


def assert_in_step(index: VectorIndex) -> None:
    """The cells hold every row, in the nearest cell and in another, as the nearest code."""
    approximation = index._approximation
    if approximation is None:
        return
    cells, own = approximation.cells, index._rows.vectors() @ approximation.cells._projection
    assert len(cells) == len(index)
    held = sorted(cells.rows().tolist())
    assert held == sorted(list(range(len(index))) * cells._copies)
    centers = cells._ivf.quantizer.reconstruct_n(0, cells.count)
    levels = faiss.vector_to_array(cells._ivf.pq.centroids).reshape(own.shape[1], 16)
    nearest = np.zeros(len(index), dtype=bool)
    for cell in range(cells.count):
        rows = cells._lists.rows(cell)
        if not len(rows):
            continue
        assert len(set(rows.tolist())) == len(rows)
        assert (cells._homes[rows] == cell).any(axis=1).all()
        vectors_here = own[rows]
        distances = ((vectors_here[:, None] - centers[None]) ** 2).sum(axis=2)
        nearest[rows] |= distances[:, cell] <= distances.min(axis=1) + 1e-5
        blocks = cells._lists._blocks(cell)
        codes = np.stack([cells._lists._code(blocks, place) for place in range(len(rows))])
        halves = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(rows), -1)[:, : own.shape[1]]
        away = np.abs(levels[None] - vectors_here[:, :, None])
        chosen = np.take_along_axis(away, halves[:, :, None].astype(np.int64), axis=2)[:, :, 0]
        assert (chosen <= away.min(axis=2) + 1e-5).all()
    assert nearest.all()


class Interrupted(VectorIndex):
    """An index to which something happens after each block that training or saving has copied."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.meanwhile: Callable[[], None] = lambda: None

    def _blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        for block in super()._blocks():
            yield block
            self.meanwhile()
