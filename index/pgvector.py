"""`PgVectorIndex`: an index in PostgreSQL, by the HNSW graphs of pgvector, for more than fits a process.

Each index is a row of the table `vector_indexes` and a table of `halfvec` vectors with a graph
(Malkov & Yashunin, arXiv:1603.09320). A rebuild fills another table, and then takes its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint.index.base import Ids, WritableIndex, filter_of, share, whole
from voiceprint.index.errors import IndexMovedError
from voiceprint.index.id_sets import Filter
from voiceprint.index.pgvector_moment import MOST_CANDIDATES, Found, Moment, sample
from voiceprint.index.pgvector_tables import Change, Tables
from voiceprint.index.rows import Scored, empty
from voiceprint.index.trials import trial_queries

EXACT_UP_TO: Final = 5_000
"""Vectors up to which comparing with all is as fast as the graph, 3 ms at 256 dimensions."""

MOST_DIMENSIONS: Final = 4_000
"""The longest `halfvec` that pgvector can index."""

_EFFORTS: Final = (40, 60, 90, 135, 200, 300, 450, 675, MOST_CANDIDATES)
"""Values of `hnsw.ef_search` that tuning tries: each takes about 1.4 times as long as the one before."""

_TRIALS: Final = 500
"""Searches that measure a recall: a recall of 0.99 is known to 0.4 percent points (one standard error)."""

T = TypeVar("T")
_Stamp = Mapping[str, str]


class PgVectorStatus(NamedTuple):
    """The state of an index.

    vectors: their number. ef_search, recall: the effort of searches, and the share of them that found the
    nearest vector when it was chosen; None before `tune`. tuned_at: vectors at that time. dead: removed rows
    that wait for a vacuum; dead_since: when the first of them was removed, by the server's clock.
    """

    vectors: int
    ef_search: int | None
    recall: float | None
    tuned_at: int
    dead: int
    dead_since: datetime | None


class PgVectorIndex(WritableIndex):
    """An index that any number of processes share. Every change is one transaction.

    url: of a PostgreSQL database with the extension pgvector, 0.8 or later. name: of the index; each has
    vectors of one length. dimension: 1 to 4000. ef_search: vectors that a search of the graph keeps, 1 to
    1000; None is what `tune` has chosen, or 200. build_memory_mb: memory for the building of a graph, in MB;
    where it does not fit, building takes many times as long. exact_up_to: vectors up to which every vector is
    compared.

    Raises `IndexUnavailableError` where the server cannot be reached or refuses; nothing was changed.
    """

    def __init__(
        self,
        url: str,
        name: str = "default",
        dimension: int = 256,
        *,
        ef_search: int | None = None,
        build_memory_mb: int = 1024,
        exact_up_to: int = EXACT_UP_TO,
    ) -> None:
        self.name = name
        self._dimension = whole("dimension", dimension, 1, MOST_DIMENSIONS)
        self.ef_search = ef_search
        if ef_search is not None:
            whole("ef_search", ef_search, 1, MOST_CANDIDATES)
        self._build_memory_mb = whole("memory for building", build_memory_mb, 1)
        self.exact_up_to = whole("number of vectors that are searched exactly", exact_up_to, 0)
        self._tables = Tables(url, name, self._dimension)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._dimension

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, dimension={self.dimension})"

    def __len__(self) -> int:
        return self.read(lambda now: now.vectors)

    @property
    def stamp(self) -> dict[str, str]:
        """The stamp of the last change, such as a revision of the store; empty for a new index."""
        return self.read(lambda now: now.stamp)

    def status(self) -> PgVectorStatus:
        """The state of the index at this moment."""
        state = self.read(lambda now: now.state)
        if state is None:
            return PgVectorStatus(0, None, None, 0, 0, None)
        return PgVectorStatus(
            state.vectors, state.ef_search, state.recall, state.tuned_at, state.dead, state.dead_since
        )

    def read(self, work: Callable[[Moment], T], *, wider: int = 1, filtered: bool = False) -> T:
        """The result of `work` on the index as it is at one moment.

        wider: vectors that each search of the graph keeps at least. filtered: whether searches go on with the
        graph until as many answers as they ask for pass a filter. `work` may be called again, where another
        process has filled the index anew.
        """
        return self._tables.read(work, self.ef_search, wider, filtered=filtered)

    def ids(self) -> NDArray[np.int64]:
        """All ids, int64[n], in order."""
        return self.read(lambda now: now.ids())

    def sample(self, count: int) -> NDArray[np.int64]:
        """As `SearchIndex.sample`; each id is the next after a random number, so after a gap likelier."""
        whole("count", count, 0)
        none = np.empty(0, dtype=np.int64)

        def choose(now: Moment) -> NDArray[np.int64]:
            return sample(
                count,
                now.vectors,
                lambda: now.bounds(none) or (0, 0),
                lambda starts: now.following(starts, none),
                now.ids,
            )

        return self.read(choose)

    def vectors_of(self, ids: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """As `SearchIndex.vectors_of`."""
        wanted = self._check_ids(ids)
        return in_order_of(wanted, self.read(lambda now: now.vectors_of(wanted)))

    # Changing

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """As `SearchIndex.add`, as one change."""
        self.apply((), ids, vectors)

    def remove(self, ids: ArrayLike) -> int:
        """As `SearchIndex.remove`. The vectors stay on disk, see `vacuum`."""
        return self.apply(ids, (), ())

    def apply(
        self,
        removed: ArrayLike,
        ids: ArrayLike,
        vectors: ArrayLike,
        *,
        stamp: _Stamp | None = None,
        expected: _Stamp | None = None,
    ) -> int:
        """Remove vectors, add others, and set the stamp, as one change; returns how many were removed.

        stamp: None leaves it. expected: the stamp before; `IndexMovedError` is raised where it is another, as
        another process has changed the index. Raises ValueError as `add` does.
        """
        gone = np.unique(self._check_ids(removed))
        wanted, matrix = self._check_pairs(ids, vectors)
        _, last = np.unique(wanted[::-1], return_index=True)  # of an id given twice the last one counts
        wanted, matrix = wanted[len(wanted) - 1 - last], matrix[len(wanted) - 1 - last]
        with self._tables.changing() as change:
            self._check_expected(change, expected)
            state = change.state
            count = change.delete(gone)
            added, replaced = change.upsert(wanted, matrix)
            noted: dict[str, Any] = {"vectors": state.vectors - count + added}
            if stamp is not None:
                noted["stamp"] = json.dumps(dict(stamp))
            change.note(**noted)
            if count + replaced:
                change.note_dead(state.dead + count + replaced)
        return count

    def fill(
        self,
        blocks: Iterable[tuple[ArrayLike, ArrayLike]],
        *,
        stamp: _Stamp | Callable[[], _Stamp] = {},  # noqa: B006  not changed
        expected: _Stamp | None = None,
    ) -> None:
        """Replace all vectors by those of `blocks`, in which no id comes twice, as one change.

        Searches go on in the old table until then; other changes wait. stamp: or a function that gives it,
        which is called before the first block is asked for, when no other process changes the index any more.
        expected: as for `apply`. Raises ValueError as `add` does, and for an id that comes twice.
        """
        with self._tables.changing() as change:
            self._check_expected(change, expected)
            noted = dict(stamp() if callable(stamp) else stamp)
            generation, count = change.refill(
                (self._check_pairs(ids, vectors) for ids, vectors in blocks), self._build_memory_mb
            )
            of_the_graph_before = {"ef_search": None, "recall": None, "tuned_at": 0}
            change.note(generation=generation, vectors=count, stamp=json.dumps(noted), **of_the_graph_before)
            former = change.state.vectors + change.state.dead
            if former:
                change.note_dead(former)
        self._tables.drop_former(former)

    @staticmethod
    def _check_expected(change: Change, expected: _Stamp | None) -> None:
        if expected is not None and change.state.stamp != expected:
            raise IndexMovedError("Another process has changed the index meanwhile.")

    def vacuum(self) -> None:
        """Have the server take removed vectors out of the table and the graph. Others search and change.

        Their bytes are overwritten in the graph; in the table's file some stay until later writes need their
        place, or `fill` replaces the file.
        """
        self._tables.vacuum()

    def drop(self) -> None:
        """Remove the index with its vectors; the next `add` makes another."""
        with self._tables.changing() as change:
            change.drop()

    # Searching

    def search(
        self, queries: ArrayLike, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> Scored:
        """As `SearchIndex.search`."""
        whole("k", k, 1)
        matrix = self._check_vectors(queries)
        # Twice as many, as the graph compares with a query that is rounded to float16.
        answers = self._nearest(matrix, k, 2 * k, filter_of(allowed, excluded))
        return best_of(matrix, k, answers)

    def candidates(
        self, queries: ArrayLike, count: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `SearchIndex.candidates`."""
        whole("count", count, 1)
        answers = self._nearest(self._check_vectors(queries), count, count, filter_of(allowed, excluded))
        return distinct(answers, self.dimension)

    def _nearest(self, queries: NDArray[np.float32], k: int, wider: int, among: Filter | None) -> list[Found]:
        """For each query, the ids and vectors of the k nearest, or of `wider` of them, in no order."""
        return self.read(
            lambda now: [now.nearest(query, k, wider, among, self.exact_up_to) for query in queries],
            wider=wider,
            filtered=among is not None,
        )

    def tune(self, recall: float = 0.99, *, alone: bool = False) -> float | None:
        """Choose the least effort of searches that finds the nearest vector in this share of trials.

        recall: above 0, up to 1. alone: whether to leave it to another process that is tuning. Returns the
        measured recall, which is below `recall` where no effort suffices; None where it was left. The queries
        are `trial_queries` of the index's vectors; all vectors are read once. The effort holds for all
        processes, until the index is tuned again or filled.
        """
        share("recall", recall)
        if not alone:
            return self._tune(recall)
        with self._tables.claim() as is_first:
            return self._tune(recall) if is_first else None

    def _tune(self, recall: float) -> float:
        _, trials = self.vectors_of(self.sample(_TRIALS))
        queries, vectors = trial_queries(trials), len(self)
        ef_search, measured = None, 1.0
        if len(queries) and vectors > self.exact_up_to:
            wanted = self.read(lambda now: _best_scores(now.blocks(), queries))
            for ef_search in _EFFORTS:
                measured = self._measured(queries, wanted, ef_search)
                if measured >= recall:
                    break
        with self._tables.changing() as change:
            change.note(ef_search=ef_search, recall=measured, tuned_at=vectors)
        return measured

    def _measured(self, queries: NDArray[np.float32], wanted: NDArray[np.float32], ef_search: int) -> float:
        """The share of queries of which the graph finds a vector as near as the nearest."""

        def search(now: Moment) -> list[Found]:
            return [now.nearest(query, 1, 2, None, 0) for query in queries]

        hits = 0
        answers = self._tables.read(search, ef_search)
        for (_, vectors), query, score in zip(answers, queries, wanted, strict=True):
            found = (vectors @ query).max(initial=-np.inf)
            hits += bool(found >= score - 1e-6 * abs(score))  # equal vectors, and sums in another order
        return hits / len(queries)

    def check(self) -> list[str]:
        """Contradictions, in words: a wrong number of vectors, a graph that is missing or unfinished."""
        return self.read(lambda now: now.check(self.name))

    def close(self) -> None:
        """Close the unused connections; the next use opens new ones."""
        self._tables.close()


def in_order_of(ids: NDArray[np.int64], found: Found) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Which of these ids were found, bool[n], and the vectors of those, float32[m, dimension]."""
    order = np.argsort(found[0])
    places = np.searchsorted(found[0], ids, sorter=order)
    there = np.zeros(len(ids), dtype=np.bool_)
    inside = places < len(order)
    there[inside] = found[0][order[places[inside]]] == ids[inside]
    return there, found[1][order[places[there]]]


def best_of(queries: NDArray[np.float32], k: int, answers: list[Found]) -> Scored:
    """The k best of the answers to each query, float32[m, dimension], by exact inner products."""
    scores, ids = empty(len(queries), k)
    for row, (found, vectors) in enumerate(answers):
        exact = vectors @ queries[row]
        best = np.argsort(-exact, kind="stable")[:k]
        scores[row, : len(best)], ids[row, : len(best)] = exact[best], found[best]
    return scores, ids


def distinct(answers: list[Found], dimension: int) -> Found:
    """The ids and vectors of several answers, each id once."""
    if not answers:
        return np.empty(0, dtype=np.int64), np.empty((0, dimension), dtype=np.float32)
    ids, first = np.unique(np.concatenate([found for found, _ in answers]), return_index=True)
    return ids, np.concatenate([vectors for _, vectors in answers])[first]


def _best_scores(blocks: Iterator[Found], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """The greatest inner product of each query, float32[n, dimension], with a vector."""
    best = np.full(len(queries), -np.inf, dtype=np.float32)
    for _, vectors in blocks:
        best = np.maximum(best, (queries @ vectors.T).max(axis=1))
    return best


__all__ = ["EXACT_UP_TO", "MOST_DIMENSIONS", "PgVectorIndex", "PgVectorStatus"]
