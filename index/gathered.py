"""The vectors of a set of ids, copied together: a search among some thousands reads memory in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import faiss
import numpy as np
from numpy.typing import NDArray

from voiceprint.index.id_sets import IdSet, places_of
from voiceprint.index.rows import BLOCK, NO_ID, Scored, distinct, empty, to_half, to_single

GATHERED_FROM = 1_000
"""Ids from which a set's vectors are copied: to locate and to gather 1,000 takes 0.15 ms a search. With half
as many, twice as many sets fit in, each of which takes 3 microseconds of every write."""

MOST_SHARE = 4
"""All copies together hold at most one vector in this many of the index: with float16 a quarter of its
memory, so with twice this, an eighth, and fewer sets that are searched in turns."""

VectorsOf = Callable[[NDArray[np.int64]], tuple[NDArray[np.bool_], NDArray[np.float32]]]
"""Which ids are there, bool[n], and the vectors of those, float32[m, d]."""


class Gathered:
    """float16 vectors of an `IdSet`, in its order. An id without a vector has NaN, which is never found.

    Written under the writing lock of the index, and read under its reading lock.
    """

    def __init__(self, ids: IdSet, dimension: int, vectors_of: VectorsOf) -> None:
        self._ids = ids.ids
        # Not `add`, which would encode float32 and leave up to half of the memory unused.
        self._codes: Any = faiss.IndexScalarQuantizer(
            dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._codes.codes.resize(len(ids) * self._codes.code_size)
        self._codes.ntotal = len(ids)
        raw = faiss.rev_swig_ptr(self._codes.codes.data(), len(ids) * self._codes.code_size)
        self.vectors: NDArray[np.float16] = raw.view(np.float16).reshape(len(ids), dimension)
        for start in range(0, len(ids), BLOCK):
            there, vectors = vectors_of(self._ids[start : start + BLOCK])
            block = self.vectors[start : start + BLOCK]
            block[there] = to_half(vectors)
            block[~there] = np.nan

    def __len__(self) -> int:
        return len(self._ids)

    def put(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Take over the vectors of those ids that are in the set."""
        places = places_of(ids, self._ids)
        self.vectors[places[places >= 0]] = to_half(np.ascontiguousarray(vectors[places >= 0]))

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Overwrite the vectors of those ids that are in the set."""
        places = places_of(ids, self._ids)
        self.vectors[places[places >= 0]] = np.nan

    def nearest(self, queries: NDArray[np.float32], k: int) -> Scored:
        """The k vectors of the largest inner product with each query; fewer columns than k for a small
        set."""
        k = min(k, len(self))
        if not k:
            return empty(len(queries), 0)
        scores, places = self._codes.search(queries, k)
        return scores, np.where(places < 0, NO_ID, self._ids[places])

    def candidates(
        self, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids int64[n] and vectors float32[n, d] of the `count` nearest to each query, each once."""
        ids = distinct(self.nearest(queries, count)[1])
        return ids, to_single(self.vectors[self._ids.searchsorted(ids)])


class GatheredSets:
    """The copies of an index, those that were searched last; a set that its owner has dropped goes too."""

    def __init__(self, dimension: int, vectors_of: VectorsOf) -> None:
        self._dimension = dimension
        self._vectors_of = vectors_of
        self._of: WeakKeyDictionary[IdSet, Gathered] = WeakKeyDictionary()  # searched last at the end
        # Taken within the reading lock alone, so that a fork finds it free.
        self._changing = threading.Lock()

    def get(self, ids: IdSet, most: int) -> Gathered | None:
        """The copy of a set, made where there is none; None for one that is too small or too large for it.

        most: vectors of all copies. Within the reading lock.
        """
        if not GATHERED_FROM <= len(ids) <= most:
            return None
        with self._changing:
            found = self._of.pop(ids, None)
            if found is None:
                copies = list(self._of.items())
                total = len(ids) + sum(len(copy) for _, copy in copies)
                while total > most:
                    other, copy = copies.pop(0)
                    total -= len(copy)
                    self._of.pop(other, None)
                    del other, copy  # the memory goes before the new copy comes
                found = Gathered(ids, self._dimension, self._vectors_of)
            self._of[ids] = found
            return found

    def put(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Take new vectors over. Within the writing lock, as `remove`."""
        for copy in list(self._of.values()):
            copy.put(ids, vectors)

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Overwrite removed vectors."""
        for copy in list(self._of.values()):
            copy.remove(ids)

    def check(self) -> list[str]:
        """Contradictions to the index, in words. Within the reading lock."""
        found = []
        for ids, copy in list(self._of.items()):
            there, vectors = self._vectors_of(ids.ids)
            if not np.array_equal(to_single(copy.vectors[there]), vectors):
                found.append(f"The copy of {len(ids)} vectors holds others than the index.")
            if not np.isnan(copy.vectors[~there]).all():
                found.append("A removed vector of a copy has not been overwritten.")
        return found
