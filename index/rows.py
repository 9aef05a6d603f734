"""The vectors themselves, with their ids: what every exact score is computed from."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

# Rows that the arrays grow by at most. `ndarray.resize` moves large arrays by remapping their pages, which
# copies nothing, but fills what is new with zeros: 16 MB at 256 dimensions, some milliseconds.
_GROWTH = 16_384

_GONE = -1
_GONE_IDS_KEPT = 1_000


class Rows:
    """Ids and vectors without gaps: `ids()[row]` is the id of a row, `vectors()[row]` its vector.

    Removing moves the last row into the gap, which costs the same for any number of rows. Not locked:
    the owner sees to that. The arrays that are handed out are views, valid until the next change.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._count = 0
        self._ids = np.empty(0, dtype=np.int64)
        self._vectors = np.empty((0, dimension), dtype=np.float32)
        self._index_ids()

    @classmethod
    def of(cls, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> Rows:
        """Rows that take over these arrays, int64[n] and float32[n, d], which own their memory.

        Raises ValueError when an id comes twice.
        """
        in_order = np.sort(ids)  # np.unique takes ten times as long
        if (in_order[1:] == in_order[:-1]).any():
            raise ValueError("an id comes twice")
        rows = cls(vectors.shape[1])
        rows._ids, rows._vectors, rows._count = ids, vectors, len(ids)
        rows._index_ids()
        return rows

    def _index_ids(self) -> None:
        # faiss's hash table takes 54 bytes an id, a dict of Python integers 106. It cannot remove: an id
        # that has gone stays in it with the row `_GONE`, until there are many of these.
        self._places = faiss.MapLong2Long()
        self._gone = 0
        if self._count:
            self._places.add(self.ids(), np.arange(self._count))

    def __len__(self) -> int:
        return self._count

    def __contains__(self, id_: object) -> bool:
        if not isinstance(id_, int | np.integer) or not 0 <= id_ <= np.iinfo(np.int64).max:
            return False
        return bool(self._places.search(int(id_)) != _GONE)

    def ids(self) -> NDArray[np.int64]:
        """int64[n], a view."""
        return self._ids[: self._count]

    def vectors(self) -> NDArray[np.float32]:
        """float32[n, dimension], a view."""
        return self._vectors[: self._count]

    def locate(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each id, int64[n]; -1 for one that is not there."""
        if not len(ids):
            return np.empty(0, dtype=np.int64)
        rows: NDArray[np.int64] = self._places.search_multiple(ids)
        return rows

    def put(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """Add the vectors of new ids, and replace those of known ones; gives their rows, int64[n].

        No id comes twice.
        """
        rows = self.locate(ids)
        new = rows == _GONE
        end = self._count + int(np.count_nonzero(new))
        self.make_room(end)
        rows[new] = np.arange(self._count, end)
        self._ids[rows] = ids
        self._vectors[rows] = vectors
        self._count = end
        if new.any():
            self._places.add(ids[new], rows[new])
        return rows

    def remove(self, row: int) -> None:
        """Take a row out; the last row takes its place."""
        id_, last = self._ids[row], self._count - 1
        if row != last:
            self._vectors[row] = self._vectors[last]
            self._ids[row] = self._ids[last]
            self._places.add(self._ids[row : row + 1], np.array([row]))
        self._places.add(np.array([id_]), np.array([_GONE]))
        self._count, self._gone = last, self._gone + 1
        if self._gone > max(_GONE_IDS_KEPT, self._count):
            self._index_ids()

    def nearest(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k largest inner products with each query, of all rows or `among` some; k rows are there.

        Gives scores float32[m, k] and ids int64[m, k], the largest first.
        """
        if among is None:
            vectors, ids = self.vectors(), self.ids()
        else:
            vectors, ids = self._vectors[among], self._ids[among]
        scores, places = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, ids[places]

    def make_room(self, needed: int) -> None:
        """Let so many rows fit in, as far as memory can be had; MemoryError leaves all as it is."""
        if needed <= min(len(self._ids), len(self._vectors)):
            return
        capacity = needed + min(_GROWTH, max(64, needed // 4))
        # refcheck: the views that were handed out are no longer used, by the rule of this class.
        self._vectors.resize((capacity, self.dimension), refcheck=False)
        self._ids.resize(capacity, refcheck=False)
