"""Growing arrays of ids and vectors, and the conversion to and from float16."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

BLOCK = 8_192
"""Rows that are read at a time: 4 MB of float16 at 256 dimensions, half a millisecond."""

LARGEST = 65_504.0
"""The largest float16: no value of a stored vector is beyond."""

_SIGN_EXPONENT_FRACTION = np.int32(-0x70000001)  # all bits of a float32 but the 3 upper ones of the exponent

WIDENING = 4
"""Factor by which a filtered search widens when too few of its answers pass. With 2, a search whose answers
are rare tries twice as often; with 8, it takes up to eight times the answers that it needs."""

Passes = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Which ids may be found, bool of their shape; `NO_ID` may not."""

NO_ID = -1
NO_SCORE = np.float32(-np.finfo(np.float32).max)  # faiss fills places without an answer so

# Rows that the arrays grow by at most. `ndarray.resize` moves large arrays by remapping their pages, which
# copies nothing, but it fills the new rows with zeros: 8 MB at 256 dimensions of float16, a few milliseconds.
_GROWTH = 16_384

Scored = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores float32[m, k], the largest first, and ids int64[m, k]; `NO_SCORE` and `NO_ID` fill up rows."""


class Rows:
    """Ids, vectors, and whether each row is live. A removed row keeps its place. Not locked.

    The arrays that the properties give are views, which `append` makes invalid.
    """

    def __init__(self, dimension: int, dtype: Any) -> None:
        self.size = 0
        self.live_count = 0
        self._ids = np.empty(0, dtype=np.int64)
        self._vectors = np.empty((0, dimension), dtype=dtype)
        self._live = np.empty(0, dtype=np.bool_)

    @classmethod
    def of(cls, ids: NDArray[np.int64], vectors: NDArray[Any], live: NDArray[np.bool_]) -> Rows:
        """Rows that take over these arrays, which own their memory."""
        rows = cls(vectors.shape[1], vectors.dtype)
        rows._ids, rows._vectors, rows._live = ids, vectors, live
        rows.size, rows.live_count = len(ids), int(live.sum())
        return rows

    @property
    def ids(self) -> NDArray[np.int64]:
        """int64[n]."""
        return self._ids[: self.size]

    @property
    def vectors(self) -> NDArray[Any]:
        """float16[n, d] or float32[n, d]."""
        return self._vectors[: self.size]

    @property
    def live(self) -> NDArray[np.bool_]:
        """bool[n]."""
        return self._live[: self.size]

    def make_room(self, needed: int) -> None:
        """Let `needed` rows fit in. MemoryError leaves the rows as they are."""
        if needed > min(len(self._ids), len(self._vectors), len(self._live)):
            capacity = needed + min(_GROWTH, max(64, needed // 4))
            # refcheck: no view of before is in use, by the rule of this class.
            self._vectors.resize((capacity, self._vectors.shape[1]), refcheck=False)
            self._ids.resize(capacity, refcheck=False)
            self._live.resize(capacity, refcheck=False)

    def append(self, ids: NDArray[np.int64], vectors: NDArray[Any]) -> None:
        """Add live rows at the end, int64[n] and [n, d]."""
        end = self.size + len(ids)
        self.make_room(end)
        self._ids[self.size : end] = ids
        self._vectors[self.size : end] = vectors
        self._live[self.size : end] = True
        self.live_count += len(ids)
        self.size = end

    def live_blocks(
        self, passes: Passes | None = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """The live rows that pass, int64[n], and their vectors, float32[n, d], some at a time; of float16
        rows."""
        for start in range(0, self.size, BLOCK):
            some = start + np.flatnonzero(self.live[start : start + BLOCK])
            if passes is not None:
                some = some[passes(self.ids[some])]
            if len(some):
                yield some, to_single(self.vectors[some])

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Mark live rows, int64[n], as removed. Their vectors stay until the caller overwrites them."""
        self._live[rows] = False
        self.live_count -= len(rows)


@lru_cache(maxsize=16)
def _codec(dimension: int) -> Any:
    return faiss.ScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16)


def to_half(vectors: NDArray[np.float32]) -> NDArray[np.float16]:
    """float16[n, d], rounded. By faiss, in a tenth of the time of `astype`."""
    if not len(vectors):
        return vectors.astype(np.float16)
    halves: NDArray[np.float16] = _codec(vectors.shape[1]).compute_codes(vectors).view(np.float16)
    return halves


def to_single(halves: NDArray[np.float16]) -> NDArray[np.float32]:
    """float32[n, d], the same finite values. numpy and faiss take six times as long, value by value.

    Sign, exponent and fraction go to their places in a float32, whose exponent is 112 larger for the same
    value.
    """
    bits = halves.view(np.int16).astype(np.int32)  # with the sign in the upper 17 bits
    bits <<= 13
    bits &= _SIGN_EXPONENT_FRACTION
    vectors = bits.view(np.float32)
    vectors *= np.float32(2.0**112)
    return vectors


def nearest(
    queries: NDArray[np.float32], ids: NDArray[np.int64], vectors: NDArray[np.float32], k: int
) -> Scored:
    """The k vectors of the largest inner products, of [n, d] with ids int64[n]; fewer columns where n < k.

    A vector of NaN is never found: no comparison holds for NaN.
    """
    k = min(k, len(ids))
    if not k:
        return empty(len(queries), 0)
    scores, places = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, np.where(places < 0, NO_ID, ids[places])


def distinct(found: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers in answers, int64[n] in order, each once and without `NO_ID`.

    `np.unique` takes five times as long for a thousand: it hashes.
    """
    numbers = np.sort(found, axis=None)
    return numbers[np.diff(numbers, prepend=NO_ID) > 0]


def nearest_passing(find: Callable[[int], Scored], passes: Passes, k: int, share: float, most: int) -> Scored:
    """The k best answers that pass, by asking for ever more answers.

    find: the best answers to each query, this many. share: of the answers that pass, as expected, 0 to 1.
    most: answers that there can be.
    """
    count = min(most, math.ceil(k / share)) if share > 0 else most
    while True:
        scores, ids = find(count)
        passing = passes(ids)
        if count >= most or (passing.sum(axis=1) >= k).all():
            break
        count = min(most, WIDENING * count)
    first = np.argsort(~passing, axis=1, kind="stable")[:, :k]  # which keeps the order of those that pass
    scores = np.where(passing, scores, NO_SCORE)
    ids = np.where(passing, ids, NO_ID)
    return np.take_along_axis(scores, first, axis=1), np.take_along_axis(ids, first, axis=1)


def empty(queries: int, k: int) -> Scored:
    """No answers."""
    return np.full((queries, k), NO_SCORE, np.float32), np.full((queries, k), NO_ID, np.int64)


def merged(one: Scored, other: Scored, k: int) -> Scored:
    """The k best of two answers; fewer columns where both have fewer."""
    if not one[0].shape[1]:
        return other[0][:, :k], other[1][:, :k]
    if not other[0].shape[1]:
        return one[0][:, :k], one[1][:, :k]
    scores = np.concatenate([one[0], other[0]], axis=1)
    ids = np.concatenate([one[1], other[1]], axis=1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, best, axis=1), np.take_along_axis(ids, best, axis=1)
