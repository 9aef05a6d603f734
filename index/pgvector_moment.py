"""Reads of an index in PostgreSQL, as it is at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import sql

from voiceprint.index.id_sets import Filter
from voiceprint.index.rows import to_half, to_single

MOST_CANDIDATES: Final = 1_000
"""The largest `hnsw.ef_search` that pgvector allows; searches for more compare with all."""

BLOCK: Final = 10_000
"""Vectors that are written or read at a time: 5 MB at 256 dimensions."""

_ROUNDS: Final = 20
"""Draws of as many ids as a sample has. Where the ids have no gaps, two or three suffice."""

_SHARE_OF_A_SET: Final = 10
"""A set of at most one vector in this many is compared as a whole, as the graph would pass most of its
vectors in vain: a filter to 1 % takes it 12 ms, and gives 1.35 of 5 answers without its repeated scan."""

Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Ids int64[n] and their vectors float32[n, dimension]."""


class State(NamedTuple):
    """The row of an index, and the table of its vectors.

    generation: times that it was filled anew. vectors: their number. stamp: of the last change. dead: rows
    that were removed since the last vacuum; dead_since: when the first of them was. ef_search, recall: the
    search effort that was chosen, and the recall that was measured with it, 0 to 1; None before. tuned_at:
    vectors at that time.
    """

    table: sql.Identifier
    generation: int
    vectors: int
    stamp: dict[str, str]
    dead: int
    dead_since: datetime | None
    ef_search: int | None
    recall: float | None
    tuned_at: int


class Moment:
    """An index as it is in one transaction. state: None for an index without vectors yet."""

    def __init__(self, cursor: psycopg.Cursor[Any], state: State | None, dimension: int) -> None:
        self.state = state
        self._cursor = cursor
        self._dimension = dimension

    @property
    def vectors(self) -> int:
        """Their number."""
        return 0 if self.state is None else self.state.vectors

    @property
    def stamp(self) -> dict[str, str]:
        """The stamp of the last change; empty for a new index."""
        return {} if self.state is None else self.state.stamp

    def time(self) -> datetime:
        """When the transaction began, by the server's clock."""
        self._cursor.execute("SELECT now()")
        found: datetime
        ((found,),) = self._cursor.fetchall()
        return found

    def ids(self) -> NDArray[np.int64]:
        """All ids, int64[n], in order."""
        if self.state is None:
            return np.empty(0, dtype=np.int64)
        self._cursor.execute(sql.SQL("SELECT id FROM {} ORDER BY id").format(self.state.table))
        return np.fromiter((row[0] for row in self._cursor), dtype=np.int64)

    def count(self, ids: NDArray[np.int64]) -> int:
        """How many of these distinct ids are there."""
        if self.state is None or not len(ids):
            return 0
        self._cursor.execute(
            sql.SQL("SELECT count(*) FROM {} WHERE id = ANY(%s)").format(self.state.table), [ids.tolist()]
        )
        ((found,),) = self._cursor.fetchall()
        return int(found)

    def bounds(self, without: NDArray[np.int64]) -> tuple[int, int] | None:
        """The least and the greatest id, apart from some; None without any."""
        if self.state is None:
            return None
        self._cursor.execute(
            sql.SQL(
                "SELECT (SELECT id FROM {0} WHERE NOT id = ANY(%s) ORDER BY id LIMIT 1), "
                "(SELECT id FROM {0} WHERE NOT id = ANY(%s) ORDER BY id DESC LIMIT 1)"
            ).format(self.state.table),
            [without.tolist()] * 2,
        )
        ((least, greatest),) = self._cursor.fetchall()
        return None if least is None else (least, greatest)

    def following(self, starts: NDArray[np.int64], without: NDArray[np.int64]) -> NDArray[np.int64]:
        """The least id from each of these on, apart from some, int64[n]; -1 where there is none."""
        if self.state is None:
            return np.full(len(starts), -1, dtype=np.int64)
        self._cursor.execute(
            sql.SQL(
                "SELECT coalesce((SELECT id FROM {} WHERE id >= start AND NOT id = ANY(%s) "
                "ORDER BY id LIMIT 1), -1) "
                "FROM unnest(%s::bigint[]) WITH ORDINALITY AS of(start, place) ORDER BY place"
            ).format(self.state.table),
            [without.tolist(), starts.tolist()],
        )
        return np.fromiter((row[0] for row in self._cursor), dtype=np.int64)

    def vectors_of(self, ids: NDArray[np.int64]) -> Found:
        """The ids among these that are there, each once, and their vectors, in no order."""
        if self.state is None:
            return self._nothing()
        self._cursor.execute(
            sql.SQL("SELECT id, halfvec_send(vector) FROM {} WHERE id = ANY(%s)").format(self.state.table),
            [np.unique(ids).tolist()],
        )
        return self._rows(self._cursor.fetchall())

    def blocks(self) -> Iterator[Found]:
        """All ids and vectors, up to `BLOCK` at a time."""
        if self.state is None:
            return
        self._cursor.execute(
            sql.SQL("DECLARE vectors NO SCROLL CURSOR FOR SELECT id, halfvec_send(vector) FROM {}").format(
                self.state.table
            )
        )
        while True:
            self._cursor.execute(sql.SQL("FETCH {} FROM vectors").format(sql.Literal(BLOCK)))
            rows = self._cursor.fetchall()
            if not rows:
                break
            yield self._rows(rows)
        self._cursor.execute("CLOSE vectors")

    # Searching

    def nearest(
        self, query: NDArray[np.float32], k: int, wider: int, among: Filter | None, exact_up_to: int
    ) -> Found:
        """The k vectors nearest to a query, float32[dimension], or `wider` of them by the graph, in no order.

        exact_up_to: vectors up to which all are compared.
        """
        if self.state is None:
            return self._nothing()
        wider = min(wider, MOST_CANDIDATES)
        if self.vectors > exact_up_to and k <= wider and not self._is_small_set(among):
            found = self._ordered("vector <#> %s::halfvec", HalfVector(to_half(query[None])[0]), wider, among)
            if len(found[0]) >= k or (among is None and len(found[0]) >= self.vectors):
                return found
        # A sum with zero hides the distance from the graph, which has its own order.
        return self._ordered("(vector::vector <#> %s::vector) + 0", query, k, among)

    def _is_small_set(self, among: Filter | None) -> bool:
        return among is not None and not among.excluding and len(among.of) * _SHARE_OF_A_SET <= self.vectors

    def _ordered(self, distance: str, query: object, k: int, among: Filter | None) -> Found:
        """The first k vectors by a distance of the query, of those that pass the filter."""
        assert self.state is not None  # noqa: S101  `nearest` has looked
        condition, values = _condition(among)
        self._cursor.execute(
            sql.SQL("SELECT id, halfvec_send(vector) FROM {} {} ORDER BY {} LIMIT %s").format(
                self.state.table,
                condition,
                sql.SQL(distance),
            ),
            [*values, query, k],
        )
        return self._rows(self._cursor.fetchall())

    def _nothing(self) -> Found:
        return np.empty(0, dtype=np.int64), np.empty((0, self._dimension), dtype=np.float32)

    def _rows(self, rows: list[Any]) -> Found:
        """Ids and vectors of rows of an id and what pgvector sends: four bytes, then big-endian halves."""
        ids = np.array([row[0] for row in rows], dtype=np.int64)
        content = np.frombuffer(b"".join(row[1] for row in rows), dtype=np.uint8)
        halves = content.reshape(len(rows), 4 + 2 * self._dimension)[:, 4:]
        return ids, to_single(np.ascontiguousarray(halves).view(">f2").astype(np.float16))

    # Soundness

    def check(self, name: str) -> list[str]:
        """Contradictions, in words. name: of the index."""
        if self.state is None:
            return []
        self._cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(self.state.table))
        ((count,),) = self._cursor.fetchall()
        faults = []
        if count != self.vectors:
            faults.append(f"the index {name!r} notes {self.vectors} vectors and has {count}")
        self._cursor.execute(
            "SELECT indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
            "JOIN pg_am ON pg_am.oid = relam WHERE indrelid = %s::regclass AND amname = 'hnsw'",
            [self.state.table.as_string(self._cursor)],
        )
        if self._cursor.fetchall() != [(True,)]:
            faults.append(f"the graph of the index {name!r} is missing or unfinished")
        return faults


def sample(
    count: int,
    vectors: int,
    bounds: Callable[[], tuple[int, int]],
    following: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    all_ids: Callable[[], NDArray[np.int64]],
) -> NDArray[np.int64]:
    """`count` ids chosen by chance, int64[n]. Each is the next after a random number, so after gaps likelier.

    vectors: number of ids. bounds: the least and the greatest id. following: the least id from each number
    on. all_ids: all of them, int64[n].
    """
    if not vectors or not count:
        return np.empty(0, dtype=np.int64)
    random = np.random.default_rng(vectors)
    if vectors <= 4 * count:  # of so few, chance would choose the same again and again
        return random.permutation(np.sort(all_ids()))[:count]
    least, greatest = bounds()
    found: dict[int, None] = {}
    for _ in range(_ROUNDS):
        chosen = following(random.integers(least, greatest + 1, count))
        found.update(dict.fromkeys(chosen.tolist()))
        if len(found) >= count:
            return np.array([*found][:count], dtype=np.int64)
    # The ids are in clusters with wide gaps between, or another process has removed most of them.
    return random.permutation(np.sort(all_ids()))[:count]


def _condition(among: Filter | None) -> tuple[sql.SQL, list[Any]]:
    """The condition of a filter, and its values."""
    if among is None:
        return sql.SQL(""), []
    condition = "WHERE NOT (id = ANY(%s))" if among.excluding else "WHERE id = ANY(%s)"
    return sql.SQL(condition), [among.of.ids.tolist()]
