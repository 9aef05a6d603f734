"""`VectorIndex`: exact maximum inner product search over vectors with ids."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from typing import Any

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint.index.errors import IndexCorruptError
from voiceprint.index.locks import ReadWriteLock
from voiceprint.index.snapshot import read_snapshot, write_snapshot

MAX_DIMENSION = 65_536
NO_ID = -1
NO_SCORE = np.float32(-np.finfo(np.float32).max)  # as faiss fills places without an answer


class VectorIndex:
    """Ids and vectors, searched by inner product; cosine where the vectors have length 1.

    Every method may be called from many threads: searches run beside each other, and wait only for
    the short moment in which a writer changes the vectors.

    dimension: length of the vectors, 1 to 65536.

    Structure: a faiss `IndexFlatIP` holds the vectors without gaps; `_ids[row]` is the id of each
    row and `_rows[id]` its row. Removing moves the last row into the gap, which costs the same for
    any number of vectors, where faiss's own removal moves all that come after.
    """

    def __init__(self, dimension: int = 256) -> None:
        if (
            isinstance(dimension, bool)
            or not isinstance(dimension, int)
            or not 1 <= dimension <= MAX_DIMENSION
        ):
            raise ValueError(
                f"The dimension is {dimension!r}: a whole number from 1 to {MAX_DIMENSION} is allowed."
            )
        self.dimension = dimension
        self._flat = faiss.IndexFlatIP(dimension)
        self._ids = np.empty(0, dtype=np.int64)  # at least as long as there are rows
        self._rows: dict[int, int] = {}
        self._lock = ReadWriteLock()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._rows

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dimension={self.dimension}, vectors={len(self)})"

    def ids(self) -> NDArray[np.int64]:
        """All ids, int64[n], in no particular order."""
        with self._lock.reading():
            return np.array(self._ids[: len(self._rows)])

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Put vectors in, in place of those whose ids are there already.

        ids: int64[n], each 0 or above; of an id given twice, the last vector counts.
        vectors: float32[n, dimension], finite. Raises ValueError, and then nothing has changed.
        """
        id_array = self._check_ids(ids)
        matrix = self._check_vectors(vectors)
        if len(id_array) != len(matrix):
            raise ValueError(f"{len(id_array)} ids were given for {len(matrix)} vectors: give one each.")
        if len(id_array) == 0:
            return
        # Of an id that is given twice only the last place is kept: np.unique finds first places.
        _, places = np.unique(id_array[::-1], return_index=True)
        if len(places) < len(id_array):
            keep = np.sort(len(id_array) - 1 - places)
            id_array, matrix = id_array[keep], matrix[keep]
        with self._lock.writing():
            known = np.fromiter((int(id_) in self._rows for id_ in id_array), dtype=bool, count=len(id_array))
            if known.any():
                rows = [self._rows[int(id_)] for id_ in id_array[known]]
                self._matrix()[rows] = matrix[known]
            self._append(id_array[~known], matrix[~known])

    def _append(self, ids: NDArray[np.int64], matrix: NDArray[np.float32]) -> None:
        start, end = len(self._rows), len(self._rows) + len(ids)
        if end > len(self._ids):
            grown = np.empty(max(end, 2 * len(self._ids)), dtype=np.int64)
            grown[:start] = self._ids[:start]
            self._ids = grown
        self._flat.add(np.ascontiguousarray(matrix))
        self._ids[start:end] = ids
        self._rows.update(zip(ids.tolist(), range(start, end), strict=True))

    def remove(self, ids: ArrayLike) -> int:
        """Take vectors out; gives how many there were. An id that is not there is passed over."""
        removed = 0
        with self._lock.writing():
            matrix = self._matrix()
            for id_ in self._check_ids(ids).tolist():
                row = self._rows.pop(id_, None)
                if row is None:
                    continue
                last = len(self._rows)
                if row != last:
                    matrix[row] = matrix[last]
                    self._ids[row] = self._ids[last]
                    self._rows[int(self._ids[row])] = row
                removed += 1
            if removed:
                count = len(self._rows)
                self._flat.remove_ids(faiss.IDSelectorRange(count, count + removed))
        return removed

    def search(
        self, queries: ArrayLike, k: int, *, allowed: Iterable[int] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k vectors of the largest inner product with each query, the largest first.

        queries: float32[m, dimension] or float32[dimension]. k: at least 1. allowed: the ids to
        search among, at a cost in proportion to them; None for all.
        Gives scores float32[m, k] and ids int64[m, k]; -1 where there are fewer than k vectors.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ValueError(f"k is {k!r}: a whole number from 1 is allowed.")
        matrix = self._check_vectors(queries)
        # Taken in before the lock: an iterable that asks this very index would wait for itself.
        wanted = None if allowed is None else _distinct(allowed)
        with self._lock.reading():
            if wanted is None:
                found = min(int(k), len(self._rows))
                if found:
                    scores, rows = self._flat.search(matrix, found)
                    ids = self._ids[rows]
            else:
                rows_allowed = [self._rows[id_] for id_ in wanted if id_ in self._rows]
                found = min(int(k), len(rows_allowed))
                if found:
                    among = self._matrix()[rows_allowed]
                    scores, places = faiss.knn(matrix, among, found, metric=faiss.METRIC_INNER_PRODUCT)
                    ids = self._ids[rows_allowed][places]
        all_scores = np.full((len(matrix), int(k)), NO_SCORE, dtype=np.float32)
        all_ids = np.full((len(matrix), int(k)), NO_ID, dtype=np.int64)
        if found:
            all_scores[:, :found], all_ids[:, :found] = scores, ids
        return all_scores, all_ids

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a snapshot: one checksummed file, replaced as a whole. Raises OSError."""
        with self._lock.reading():
            count = len(self._rows)
            ids, vectors = self._ids[:count].copy(), self._matrix().copy()
        write_snapshot(path, ids, vectors)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VectorIndex:
        """The index that a snapshot holds. Raises OSError, or `IndexCorruptError` for any damage."""
        ids, vectors = read_snapshot(path)
        try:
            index = cls(vectors.shape[1])
            index.add(ids, vectors)
        except ValueError as error:
            raise IndexCorruptError(f"{os.fspath(path)!r} holds what no index has: {error}") from error
        if len(index) != len(ids):
            raise IndexCorruptError(f"{os.fspath(path)!r} holds an id twice.")
        return index

    def _matrix(self) -> NDArray[np.float32]:
        """The vectors where faiss keeps them, float32[n, dimension]; valid until vectors are added."""
        count = len(self._rows)
        if not count:
            return np.empty((0, self.dimension), dtype=np.float32)
        flat: Any = faiss.rev_swig_ptr(self._flat.get_xb(), count * self.dimension)
        matrix: NDArray[np.float32] = flat.reshape(count, self.dimension)
        return matrix

    def _check_ids(self, ids: ArrayLike) -> NDArray[np.int64]:
        array = np.asarray(ids)
        if array.size == 0:
            return np.empty(0, dtype=np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"Ids are a 1-D array of integers, not {array.dtype} of shape {array.shape}.")
        if int(array.min()) < 0 or int(array.max()) > np.iinfo(np.int64).max:
            raise ValueError("An id is below 0 or beyond 64 bits.")
        return array.astype(np.int64)

    def _check_vectors(self, vectors: ArrayLike) -> NDArray[np.float32]:
        array = np.atleast_2d(np.asarray(vectors))
        if array.size == 0:
            return np.empty((0, self.dimension), dtype=np.float32)
        if array.ndim != 2 or array.shape[1] != self.dimension or array.dtype.kind not in "fiu":
            raise ValueError(
                f"Vectors are numbers of shape (n, {self.dimension}), "
                f"not {array.dtype} of shape {array.shape}."
            )
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused below
            matrix = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(matrix).all():
            raise ValueError("A vector holds NaN or infinite values.")
        return matrix


def _distinct(ids: Iterable[int]) -> set[int]:
    try:
        return {operator.index(id_) for id_ in ids}
    except TypeError as error:
        raise ValueError("The allowed ids are integers.") from error
