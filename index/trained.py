"""The trained part: most vectors of a large index, searched through an inverted file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.index.id_sets import Filter, places_of
from voiceprint.index.ivf import IVFIndex, pool_size, rerank_k
from voiceprint.index.rows import WIDENING, Rows, Scored, distinct, empty, merged, nearest, to_single

EXACT_SHARE = 10  # where a tenth of all rows are candidates, comparing all rows takes no longer

# A filtered search looks for neighbors that are further away, in more lists: among a tenth of a million
# vectors recall@1 is 0.975 with the lists of an unfiltered search, 0.990 with twice, 0.995 with all of them.
_FILTERED_PROBES: Final = 2

# Candidates for one that is expected to pass: with half as many more, too few pass only where the filter
# depends on the vectors.
_SPARE: Final = 1.5

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
        places = places_of(ids, in_order)
        if not len(rows):
            return places
        found = rows[places].astype(np.int64)
        return np.where((places >= 0) & self.rows.live[found], found, -1)

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

    def nearest(
        self, queries: NDArray[np.float32], k: int, *, exact: bool = False, among: Filter | None = None
    ) -> Scored:
        """The k vectors of the largest inner product with each query, of its candidates; exact: of all.

        among: the vectors that may be found.
        """
        k = min(k, len(self))
        if not k:
            return empty(len(queries), 0)
        if exact or not self._proposes(rerank_k(k)):
            return self._nearest_of_all(queries, k, among)
        scores, ids = empty(len(queries), k)
        for place, rows in enumerate(self._proposed(queries, rerank_k(k), among)):
            query = queries[place : place + 1]
            if len(rows) < k:  # the lists of this query are all but empty
                found = self._nearest_of_all(query, k, among)
            else:
                found = nearest(query, self.rows.ids[rows], to_single(self.rows.vectors[rows]), k)
            columns = found[0].shape[1]
            scores[place, :columns], ids[place, :columns] = found[0][0], found[1][0]
        return scores, ids

    def candidates(
        self, queries: NDArray[np.float32], count: int, *, exact: bool = False, among: Filter | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids int64[n] and vectors float32[n, d], each once: `count` or more of the nearest to each query,
        or all that may be found."""
        count = min(count, len(self))
        rows = np.empty(0, dtype=np.int64)
        if not exact and self._proposes(pool_size(count)):
            rows = distinct(np.concatenate([rows, *self._proposed(queries, pool_size(count), among)]))
        if len(rows) < count:  # not searched yet, or the lists of the queries are all but empty
            rows = self.locate(distinct(self._nearest_of_all(queries, count, among)[1]))
        return self.rows.ids[rows], to_single(self.rows.vectors[rows])

    def _proposes(self, count: int) -> bool:
        """Whether the inverted file gives this many candidates in less time than comparing all rows."""
        return self.nprobe > 0 and EXACT_SHARE * count <= self.rows.size

    def _proposed(
        self, queries: NDArray[np.float32], count: int, among: Filter | None
    ) -> Iterator[NDArray[np.int64]]:
        """About `count` live rows that may be found, int64[n], for each query; too few where its lists hold
        few of these."""
        if among is None:
            for rows in self.ivf.candidates(queries, self.nprobe, count):
                rows = rows[rows >= 0]
                yield rows[self.rows.live[rows]]
        else:
            for place in range(len(queries)):
                yield self._proposed_among(queries[place : place + 1], count, among)

    def _proposed_among(self, query: NDArray[np.float32], count: int, among: Filter) -> NDArray[np.int64]:
        """`_proposed` of one query: ever more candidates, until `count` of them pass the filter."""
        rows = np.empty(0, dtype=np.int64)
        nprobe, share = _FILTERED_PROBES * self.nprobe, among.share(len(self))
        wanted = math.ceil(_SPARE * count / share) if share > 0 else self.rows.size
        while len(rows) < count and self._proposes(wanted):
            wanted = min(wanted, self.rows.size)
            rows = self.ivf.candidates(query, nprobe, wanted)[0]
            rows = rows[rows >= 0]
            rows = rows[self.rows.live[rows]]
            rows = rows[among.passes(self.rows.ids[rows])]
            if wanted == self.rows.size:
                break
            nprobe, wanted = _FILTERED_PROBES * nprobe, WIDENING * wanted
        return rows

    def _nearest_of_all(self, queries: NDArray[np.float32], k: int, among: Filter | None = None) -> Scored:
        best = empty(len(queries), 0)
        for rows, vectors in self.rows.live_blocks(None if among is None else among.passes):
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
