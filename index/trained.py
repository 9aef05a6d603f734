"""The trained part: most vectors of a large index, searched through an inverted file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voiceprint.index.ivf import IVFIndex, pool_size, rerank_k
from voiceprint.index.rows import Rows, Scored, distinct, empty, merged, nearest, to_single

EXACT_SHARE = 10  # where a tenth of all rows are candidates, comparing all rows takes no longer

Directory = tuple[NDArray[np.int64], NDArray[np.int32]]
"""Ids in order, and the row of each: 12 bytes an id, where a hash table takes 54 and a dict 106."""


class TrainedPart:
    """float16 vectors and the `IVFIndex` that proposes rows of them. Not locked.

    Only the `Maintainer` adds rows, together with the inverted file that holds them (`extend`).

    nprobe: lists that a query scans; 0 compares all rows. recall: measured with it. tuned_for: the recall
        that was asked for.
    stale: rows that were removed, whose codes are still in the inverted file.
    keep_removed: vectors of removed rows stay in memory until `overwrite`, as a snapshot is being written.
    """

    def __init__(self, rows: Rows, ivf: IVFIndex, nprobe: int, recall: float, tuned_for: float) -> None:
        self.rows = rows
        self.ivf = ivf
        self.nprobe, self.recall, self.tuned_for = nprobe, recall, tuned_for
        self.stale: list[NDArray[np.int64]] = []
        self.keep_removed = False
        self._directory = directory_of(rows.ids, rows.live)

    def __len__(self) -> int:
        return self.rows.live_count

    def extend(self, added: Rows, ivf: IVFIndex, directory: Directory) -> None:
        """Add live rows, which `ivf` holds under the next numbers, and replace the inverted file."""
        self.rows.append(added.ids, added.vectors)
        self.ivf, self._directory = ivf, directory

    def ids(self) -> NDArray[np.int64]:
        """Of the live rows, int64[n]."""
        return self.rows.ids[self.rows.live]

    def locate(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each id, int64[n]; -1 for an id that is not there."""
        in_order, rows = self._directory
        if not len(rows):
            return np.full(len(ids), -1, dtype=np.int64)
        places = np.minimum(in_order.searchsorted(ids), len(rows) - 1)
        found = rows[places].astype(np.int64)
        return np.where((in_order[places] == ids) & self.rows.live[found], found, -1)

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Remove live rows, int64[n]."""
        if len(rows):
            self.rows.remove(rows)
            self.stale.append(rows)
            if not self.keep_removed:
                self.overwrite(rows)

    def overwrite(self, rows: NDArray[np.int64]) -> None:
        """Erase the vectors of removed rows from memory. Their 4-bit codes go with the next merge."""
        self.rows.vectors[rows] = 0

    def nearest(self, queries: NDArray[np.float32], k: int, *, exact: bool = False) -> Scored:
        """The k vectors of the largest inner product with each query, of its candidates; exact: of all."""
        k = min(k, len(self))
        if not k:
            return empty(len(queries), 0)
        count = rerank_k(k)
        if exact or not self.nprobe or EXACT_SHARE * count > self.rows.size:
            return self._nearest_of_all(queries, k)
        scores, ids = empty(len(queries), k)
        for place, rows in enumerate(self.ivf.candidates(queries, self.nprobe, count)):
            rows = rows[rows >= 0]
            rows = rows[self.rows.live[rows]]
            query = queries[place : place + 1]
            if len(rows) < k:  # the lists of this query are all but empty
                scores[place], ids[place] = self._nearest_of_all(query, k)
            else:
                vectors = to_single(self.rows.vectors[rows])
                scores[place], ids[place] = nearest(query, self.rows.ids[rows], vectors, k)
        return scores, ids

    def candidates(
        self, queries: NDArray[np.float32], count: int, *, exact: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids int64[n] and vectors float32[n, d], each once: `count` or more of the nearest to each query,
        or all."""
        count = min(count, len(self))
        pool = pool_size(count)
        rows = np.empty(0, dtype=np.int64)
        if not (exact or not self.nprobe or EXACT_SHARE * pool > self.rows.size):
            rows = distinct(self.ivf.candidates(queries, self.nprobe, pool))
            rows = rows[self.rows.live[rows]]
        if len(rows) < count:  # not searched yet, or the lists of the queries are all but empty
            rows = self.locate(distinct(self._nearest_of_all(queries, count)[1]))
        return self.rows.ids[rows], to_single(self.rows.vectors[rows])

    def _nearest_of_all(self, queries: NDArray[np.float32], k: int) -> Scored:
        best = empty(len(queries), 0)
        for rows, vectors in self.rows.live_blocks():
            best = merged(best, nearest(queries, self.rows.ids[rows], vectors, k), k)
        return best

    def check(self) -> list[str]:
        """Contradictions, in words; none for a sound part."""
        found = []
        listed, live = np.sort(self.ivf.rows()), np.flatnonzero(self.rows.live)
        expected = np.sort(np.concatenate([live, *self.stale]))
        if not np.array_equal(listed, expected):
            found.append(f"The inverted file holds {len(listed)} rows, and {len(expected)} are expected.")
        if not np.array_equal(self.locate(self.rows.ids[live]), live):
            found.append("An id of the trained part does not lead to its row.")
        if not self.keep_removed and self.rows.vectors[~self.rows.live].any():
            found.append("A removed vector of the trained part has not been overwritten.")
        return found


def directory_of(ids: NDArray[np.int64], live: NDArray[np.bool_]) -> Directory:
    """The directory of live rows."""
    rows = np.flatnonzero(live)
    # Stable: a merge of sorted runs, in a tenth of the time where ids have grown as they do in a store.
    rows = rows[np.argsort(ids[rows], kind="stable")]
    return ids[rows], rows.astype(np.int32)
