"""The vectors of an index: a trained part and a buffer, behind one lock."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voiceprint.index.buffer import Buffer
from voiceprint.index.locks import ReadWriteLock
from voiceprint.index.rows import Scored, distinct, empty, merged, nearest, to_single
from voiceprint.index.trained import TrainedPart

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
                self.buffer.compact()

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Remove vectors; returns how many there were. No id comes twice; others are passed over."""
        removed = 0
        for start in range(0, len(ids), _BLOCK):
            with self.lock.writing():
                some = ids[start : start + _BLOCK]
                removed += self.buffer.remove(some) + self._remove_trained(some)
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

    def nearest(self, queries: NDArray[np.float32], k: int) -> Scored:
        """The k vectors of the largest inner product with each query. Within `lock`."""
        found = self.buffer.nearest(queries, k)
        if self.trained is not None:
            found = merged(self.trained.nearest(queries, k, exact=self.recall >= 1.0), found, k)
        return found

    def candidates(
        self, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `VectorIndex.candidates`. Within `lock`."""
        ids = distinct(self.buffer.nearest(queries, count)[1])
        vectors = self.buffer.vectors_at(self.buffer.locate(ids))
        if self.trained is None:
            return ids, vectors
        more, their_vectors = self.trained.candidates(queries, count, exact=self.recall >= 1.0)
        return np.concatenate([more, ids]), np.concatenate([their_vectors, vectors])

    def nearest_among(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64]) -> Scored:
        """The same of the allowed ids, exactly. Within `lock`."""
        there, vectors = self.vectors_of(allowed)
        return nearest(queries, allowed[there], vectors, k) if there.any() else empty(len(queries), 0)

    def check(self) -> list[str]:
        """Contradictions, in words; none for sound parts."""
        with self.lock.reading():
            found = self.buffer.check()
            if self.trained is not None:
                both = np.intersect1d(self.buffer.ids(), self.trained.ids())
                found += self.trained.check() + [f"The id {id_} is in both parts." for id_ in both.tolist()]
            return found
