"""The contract of every index: ids and vectors in, the nearest ids out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint.index.id_sets import Filter, IdSet
from voiceprint.index.rows import LARGEST, Scored, to_half, to_single

Ids = IdSet | Iterable[int]


class SearchIndex(ABC):
    """Ids and vectors, searched by inner product. All methods may be called from many threads.

    Vectors are rounded to float16 when they are added, 3 digits, and scores are the exact inner products of
    the rounded vectors; only which vectors are found is approximate.
    """

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length of the vectors."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of vectors."""

    def __contains__(self, id_: object) -> bool:
        if not isinstance(id_, int | np.integer) or not 0 <= id_ <= np.iinfo(np.int64).max:
            return False
        return bool(self.vectors_of([int(id_)])[0][0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dimension={self.dimension}, vectors={len(self)})"

    @abstractmethod
    def ids(self) -> NDArray[np.int64]:
        """All ids, int64[n], in no particular order."""

    @abstractmethod
    def sample(self, count: int) -> NDArray[np.int64]:
        """`count` ids chosen by chance, int64[n], each once, or all where there are fewer.

        The same at each call while the index has the same ids.
        """

    @abstractmethod
    def vectors_of(self, ids: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which ids are there, bool[n], and the stored vectors of those, float32[m, dimension].

        All of one moment. A vector that `search` found may be gone by then.
        """

    def differences(self, ids: ArrayLike, vectors: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which of these `add` would store in place of another vector, and which of a new id, bool[n] each.

        No id comes twice. The rest is in the index already, rounded to float16.
        """
        wanted, matrix = self._check_pairs(ids, vectors)
        there, stored = self.vectors_of(wanted)
        replaced = there.copy()
        replaced[there] = (to_single(to_half(matrix[there])) != stored).any(axis=1)
        return replaced, ~there

    @abstractmethod
    def search(
        self, queries: ArrayLike, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> Scored:
        """The k vectors of the largest inner product with each query, the largest first.

        queries: float32[m, dimension] or float32[dimension]. k: at least 1. allowed: the ids to search among;
        None for all. excluded: ids that are not found. Returns scores float32[m, k] and ids int64[m, k]; -1
        where fewer than k vectors may be found, and only there.
        """

    @abstractmethod
    def candidates(
        self, queries: ArrayLike, count: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The vectors from which another score than the inner product may choose the best.

        queries, count, allowed, excluded: as `queries`, `k`, `allowed` and `excluded` of `search`. Returns
        ids int64[n] and vectors float32[n, dimension], each once: for each query, `count` or more of the
        largest inner products, found with less care than by `search` towards the end; all vectors where
        `count` is their number.
        """

    @abstractmethod
    def check(self) -> list[str]:
        """Contradictions between the parts of the index, in words; none for a sound index."""

    # Arguments

    def _check_pairs(
        self, ids: ArrayLike, vectors: ArrayLike
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        wanted, matrix = self._check_ids(ids), self._check_vectors(vectors)
        if len(wanted) != len(matrix):
            raise ValueError(f"There are {len(wanted)} ids and {len(matrix)} vectors.")
        return wanted, matrix

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
        array = np.asarray(vectors)
        if array.size == 0:
            return np.empty((0, self.dimension), dtype=np.float32)
        if array.ndim == 1:
            array = array[None]
        if array.ndim != 2 or array.shape[1] != self.dimension or array.dtype.kind not in "fiu":
            raise ValueError(
                f"Vectors are numbers of shape (n, {self.dimension}), "
                f"not {array.dtype} of shape {array.shape}."
            )
        if not (np.abs(array) <= LARGEST).all():  # not "any beyond": no comparison holds for NaN
            raise ValueError(
                f"A vector holds NaN, infinite values, or values beyond {LARGEST:,.0f} (float16)."
            )
        return np.ascontiguousarray(array, dtype=np.float32)


class WritableIndex(SearchIndex):
    """An index that its user changes."""

    @abstractmethod
    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Add vectors, and replace those of ids that are there; of an id given twice the last one counts.

        ids: int[n], 0 or more. vectors: float[n, dimension], up to 65504. Raises ValueError for other input,
        which changes nothing.
        """

    @abstractmethod
    def remove(self, ids: ArrayLike) -> int:
        """Remove vectors; returns how many there were. An id that is not there is passed over."""


def whole(what: str, value: Any, least: int, most: int | None = None) -> int:
    """The value as a whole number of a range. Raises ValueError."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        up_to = "" if most is None else f" to {most}"
        raise ValueError(f"The {what} is {value!r}: a whole number from {least}{up_to} is allowed.")
    return int(value)


def share(what: str, value: float) -> float:
    """The value as a number above 0, up to 1. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value <= 1.0:
        raise ValueError(f"The {what} is {value!r}: a number above 0, up to 1, is allowed.")
    return float(value)


def filter_of(allowed: Ids | None, excluded: Ids | None) -> Filter | None:
    """The filter of a search; None where every vector may be found."""
    if allowed is None:
        return None if excluded is None else Filter(_id_set(excluded), excluding=True)
    return Filter(_id_set(allowed) if excluded is None else _id_set(allowed) - _id_set(excluded))


def _id_set(ids: Ids) -> IdSet:
    return ids if isinstance(ids, IdSet) else IdSet(ids)
