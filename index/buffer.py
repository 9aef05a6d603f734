"""The buffer: recent vectors, compared one by one with every query."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voiceprint.index.id_sets import Filter
from voiceprint.index.rows import Rows, Scored, empty, merged, nearest, nearest_passing

CHUNK = 16_384
"""Rows of a chunk at most. Fewer make a search of many chunks give up Python's lock, and wait for it, more
often; readers wait while a merge exchanges a chunk, 4 ms at 256 dimensions."""


class Buffer:
    """Ids and float32 vectors in chunks, the oldest first. Not locked.

    New vectors go to the open chunk. A sealed chunk takes no more of them, so its rows can be copied bit by
    bit while others write; only removals reach it. A removed vector becomes NaN, which is never found.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._chunks: dict[int, Rows] = {}  # by number, which grows
        self._open: Rows | None = None
        self._number = -1  # of the newest chunk
        self._places: dict[int, int] = {}  # of each id: number of the chunk * CHUNK + row

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._places

    @property
    def size(self) -> int:
        """Rows, with the removed ones."""
        return sum(rows.size for rows in self._chunks.values())

    def ids(self) -> NDArray[np.int64]:
        """int64[n]."""
        return np.fromiter(self._places, np.int64, len(self._places))

    def locate(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of each id, int64[n]; -1 for an id that is not there."""
        return np.array([self._places.get(id_, -1) for id_ in ids.tolist()], dtype=np.int64)

    def vectors_at(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[n, d] at places that `locate` gave."""
        vectors = np.empty((len(places), self.dimension), dtype=np.float32)
        numbers = places // CHUNK
        for number in np.unique(numbers).tolist():
            here = numbers == number
            vectors[here] = self._chunks[number].vectors[places[here] % CHUNK]
        return vectors

    def put(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add vectors, and replace those of ids that are there. No id comes twice.

        MemoryError may leave out the last ones, never half of one.
        """
        start = 0
        while start < len(ids):
            rows = self._writable()
            end = min(len(ids), start + CHUNK - rows.size)
            some = ids[start:end]
            rows.make_room(rows.size + len(some))
            self.remove(some)
            first = self._number * CHUNK + rows.size
            rows.append(some, vectors[start:end])
            self._places.update(zip(some.tolist(), range(first, first + len(some)), strict=True))
            start = end

    def _writable(self) -> Rows:
        if self._open is None or self._open.size >= CHUNK:
            rows = Rows(self.dimension, np.float32)
            self._number += 1
            self._chunks[self._number] = self._open = rows
        return self._open

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Remove vectors; returns how many there were. Others are passed over."""
        places = [place for id_ in ids.tolist() if (place := self._places.pop(id_, None)) is not None]
        for place in places:
            rows = self._chunks[place // CHUNK]
            rows.remove(np.array([place % CHUNK]))
            rows.vectors[place % CHUNK] = np.nan
            if not rows.live_count and rows is not self._open:
                del self._chunks[place // CHUNK]
        return len(places)

    def compact(self) -> None:
        """Move the live rows of the oldest chunks to the newest, while half of all rows are removed ones."""
        while self._chunks and self.size > 2 * len(self) + CHUNK:
            number, rows = next(iter(self._chunks.items()))
            if rows is self._open:
                self._open = None
            live = rows.live.copy()
            self.put(rows.ids[live], rows.vectors[live])
            self._chunks.pop(number, None)

    def seal(self) -> None:
        """Let the next vector open a new chunk."""
        self._open = None

    def sealed(self) -> dict[int, Rows]:
        """The chunks that take no more vectors, by number, the oldest first."""
        return {
            number: rows
            for number, rows in self._chunks.items()
            if rows is not self._open or rows.size >= CHUNK
        }

    def drop(self, numbers: list[int]) -> None:
        """Forget chunks, whose live rows are elsewhere by now; those that have gone are passed over."""
        dropped = [rows for number in numbers if (rows := self._chunks.pop(number, None)) is not None]
        if any(rows is self._open for rows in dropped):
            self._open = None
        if 2 * sum(rows.live_count for rows in dropped) > len(self):
            self._places = {
                id_: number * CHUNK + row
                for number, rows in self._chunks.items()
                for row, (id_, live) in enumerate(zip(rows.ids.tolist(), rows.live.tolist(), strict=True))
                if live
            }
        else:
            for rows in dropped:
                for id_ in rows.ids[rows.live].tolist():
                    del self._places[id_]

    def nearest(self, queries: NDArray[np.float32], k: int, among: Filter | None = None) -> Scored:
        """The k vectors of the largest inner product with each query, of all that pass."""
        if among is not None:
            share = among.share(len(self))
            return nearest_passing(
                lambda count: self.nearest(queries, count), among.passes, k, share, len(self)
            )
        best = empty(len(queries), 0)
        for rows in self._chunks.values():
            if rows.live_count:
                best = merged(best, nearest(queries, rows.ids, rows.vectors, k), k)
        return best

    def check(self) -> list[str]:
        """Contradictions, in words; none for a sound buffer."""
        live = [
            (id_, number * CHUNK + row)
            for number, rows in self._chunks.items()
            for row, id_ in enumerate(rows.ids.tolist())
            if rows.live[row]
        ]
        found = []
        if len(live) != len(self) or dict(live) != self._places:
            found.append(f"The buffer holds {len(live)} vectors and places of {len(self)}.")
        if any(not np.isfinite(rows.vectors[rows.live]).all() for rows in self._chunks.values()):
            found.append("A vector of the buffer is not finite.")
        if any(not np.isnan(rows.vectors[~rows.live]).all() for rows in self._chunks.values()):
            found.append("A removed vector of the buffer has not been overwritten.")
        return found
