"""The vectors of an index: a trained part and a buffer, behind one lock."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voiceprint.index.buffer import Buffer
from voiceprint.index.gathered import MOST_SHARE, GatheredSets
from voiceprint.index.id_sets import Filter, IdSet
from voiceprint.index.locks import ReadWriteLock
from voiceprint.index.rows import Scored, distinct, merged, nearest, to_single
from voiceprint.index.trained import TrainedPart

SMALL_SHARE = 10
"""A set of at most one vector in this many of the index is compared as a whole: of a million, 100,000 take
1.7 ms, and a search of the inverted file with a filter takes 1.6 ms."""

_BLOCK = 1_024  # vectors that are written under one lock: searches wait for some milliseconds at most


@dataclass
class Parts:
    """Every id is in one of the two parts. Changes go to the buffer; a `Maintainer` moves them on.

    recall, exact_up_to, threads: as of `VectorIndex`. trained_on: vectors at the last training, 0 before.
    Methods take the lock, but for those that say so.
    """

    dimension: int
    recall: float
    exact_up_to: int
    threads: int
    trained: TrainedPart | None = None
    trained_on: int = 0
    lock: ReadWriteLock = field(default_factory=ReadWriteLock, repr=False)

    def __post_init__(self) -> None:
        self.buffer = Buffer(self.dimension)
        self.gathered = GatheredSets(self.dimension, self.vectors_of)

    def __len__(self) -> int:
        return len(self.buffer) + (0 if self.trained is None else len(self.trained))

    def ids(self) -> NDArray[np.int64]:
        """int64[n]."""
        with self.lock.reading():
            ids = self.buffer.ids()
            return ids if self.trained is None else np.concatenate([self.trained.ids(), ids])

    def put(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add vectors, and replace those of ids that are there. No id comes twice."""
        for start in range(0, len(ids), _BLOCK):
            some = slice(start, start + _BLOCK)
            with self.lock.writing():
                self.buffer.put(ids[some], vectors[some])
                self._remove_trained(ids[some])
                self.gathered.put(ids[some], vectors[some])
                self.buffer.compact()

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Remove vectors; returns how many there were. No id comes twice; others are passed over."""
        removed = 0
        for start in range(0, len(ids), _BLOCK):
            with self.lock.writing():
                some = ids[start : start + _BLOCK]
                removed += self.buffer.remove(some) + self._remove_trained(some)
                self.gathered.remove(some)
                self.buffer.compact()
        return removed

    def _remove_trained(self, ids: NDArray[np.int64]) -> int:
        if self.trained is None:
            return 0
        rows = self.trained.locate(ids)
        rows = rows[rows >= 0]
        self.trained.remove(rows)
        return len(rows)

    def vectors_of(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which ids are there, bool[n], and the vectors of those, float32[m, d]. Within `lock`."""
        vectors = np.empty((len(ids), self.dimension), dtype=np.float32)
        places = self.buffer.locate(ids)
        there = places >= 0
        vectors[there] = self.buffer.vectors_at(places[there])
        if self.trained is not None:
            rows = self.trained.locate(ids)
            vectors[rows >= 0] = to_single(self.trained.rows.vectors[rows[rows >= 0]])
            there |= rows >= 0
        return there, vectors[there]

    def nearest(self, queries: NDArray[np.float32], k: int, among: Filter | None = None) -> Scored:
        """The k vectors of the largest inner product with each query. Within `lock`.

        among: the vectors that may be found; a small set of them is compared as a whole.
        """
        if among is not None and self._is_small(among):
            return self._nearest_of_set(queries, k, among.of)
        found = self.buffer.nearest(queries, k, among)
        if self.trained is not None:
            trained = self.trained.nearest(queries, k, exact=self.recall >= 1.0, among=among)
            found = merged(trained, found, k)
        return found

    def candidates(
        self, queries: NDArray[np.float32], count: int, among: Filter | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `VectorIndex.candidates`. Within `lock`."""
        if among is not None and self._is_small(among):
            gathered = self.gathered.get(among.of, self._most_gathered)
            if gathered is not None:
                return gathered.candidates(queries, count)
            ids = distinct(self._nearest_of_set(queries, count, among.of)[1])
            return ids, self.vectors_of(ids)[1]
        ids = distinct(self.buffer.nearest(queries, count, among)[1])
        vectors = self.buffer.vectors_at(self.buffer.locate(ids))
        if self.trained is None:
            return ids, vectors
        more, their_vectors = self.trained.candidates(queries, count, exact=self.recall >= 1.0, among=among)
        return np.concatenate([more, ids]), np.concatenate([their_vectors, vectors])

    def _is_small(self, among: Filter) -> bool:
        """Whether to compare all vectors of a set, in less time than a search of the inverted file takes."""
        return not among.excluding and len(among.of) <= max(self.exact_up_to, len(self) // SMALL_SHARE)

    @property
    def _most_gathered(self) -> int:
        """Vectors that all copies of sets hold at most."""
        return max(self.exact_up_to, len(self) // MOST_SHARE)

    def _nearest_of_set(self, queries: NDArray[np.float32], k: int, ids: IdSet) -> Scored:
        """The k vectors of the largest inner product, of these ids, exactly."""
        gathered = self.gathered.get(ids, self._most_gathered)
        if gathered is not None:
            return gathered.nearest(queries, k)
        there, vectors = self.vectors_of(ids.ids)
        return nearest(queries, ids.ids[there], vectors, k)

    def check(self) -> list[str]:
        """Contradictions, in words; none for sound parts."""
        with self.lock.reading():
            found = self.buffer.check()
            if self.trained is not None:
                both = np.intersect1d(self.buffer.ids(), self.trained.ids())
                found += self.trained.check() + [f"The id {id_} is in both parts." for id_ in both.tolist()]
            found += self.gathered.check()
            return found
