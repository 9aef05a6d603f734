"""`PgVectorIndex`: an index in PostgreSQL, by the HNSW graphs of pgvector, for more than fits a process.

Each index is a row of the table `vector_indexes` and a table of `halfvec` vectors with a graph
(Malkov & Yashunin, arXiv:1603.09320). A rebuild fills another table, and then takes its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import psycopg
from numpy.typing import ArrayLike, NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql
from sqlalchemy import create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from voiceprint.index.base import Ids, SearchIndex, filter_of, whole
from voiceprint.index.errors import IndexUnavailableError
from voiceprint.index.id_sets import Filter
from voiceprint.index.rows import Scored, empty, to_half, to_single
from voiceprint.migrations.vectors import upgrade

EXACT_UP_TO: Final = 5_000
"""Vectors up to which comparing with all is as fast as the graph, 3 ms at 256 dimensions."""

MOST_DIMENSIONS: Final = 4_000
"""The longest `halfvec` that pgvector can index."""

_MOST_CANDIDATES: Final = 1_000
"""The largest `hnsw.ef_search` that pgvector allows; searches for more compare with all."""

_CONNECT_S: Final = 10  # for a server that does not answer; a connection takes some ms
_ATTEMPTS: Final = 20
"""Reads in a row that may each find that another process has filled the index anew in between. A read takes
some ms and a filling many more, so that two are rare."""
_BLOCK: Final = 10_000  # vectors of one statement: 5 MB at 256 dimensions
_SHARE_OF_A_SET: Final = 10
"""A set of at most one vector in this many is compared as a whole, as the graph would pass most of its
vectors in vain: a filter to 1 % takes it 12 ms, and gives 1.35 of 5 answers without its repeated scan."""


T = TypeVar("T")

_Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Ids int64[n] and their vectors float32[n, dimension]."""


class _State(NamedTuple):
    """The row of an index, and the table of its vectors."""

    table: sql.Identifier
    generation: int
    vectors: int
    stamp: dict[str, str]


class PgVectorIndex(SearchIndex):
    """An index that any number of processes share. Every change is one transaction.

    url: of a PostgreSQL database with the extension pgvector, 0.8 or later. name: of the index; each has
    vectors of one length. dimension: 1 to 4000. ef_search: vectors that a search of the graph keeps, 1 to
    1000; of 100,000 random directions of 256 values, 40, 100 and 200 find .904, .965 and .987 of the nearest
    5, in 0.8, 1.7 and 3.7 ms. build_memory_mb: memory for the building of a graph, in MB; where it does not
    fit, building takes many times as long.

    Raises `IndexUnavailableError` where the server cannot be reached or refuses; nothing was changed.
    """

    def __init__(
        self,
        url: str,
        name: str = "default",
        dimension: int = 256,
        *,
        ef_search: int = 200,
        build_memory_mb: int = 1024,
        exact_up_to: int = EXACT_UP_TO,
    ) -> None:
        self.name = name
        self._dimension = whole("dimension", dimension, 1, MOST_DIMENSIONS)
        self.ef_search = whole("ef_search", ef_search, 1, _MOST_CANDIDATES)
        self._build_memory_mb = whole("memory for building", build_memory_mb, 1)
        self._exact_up_to = whole("number of vectors that are searched exactly", exact_up_to, 0)
        self._digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        # By psycopg itself, as SQLAlchemy does not know all URLs of PostgreSQL. Messages have no parameters:
        # these are biometric data.
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=partial(psycopg.connect, url, connect_timeout=_CONNECT_S),
            hide_parameters=True,
            pool_pre_ping=True,
        )
        self._is_ready = False

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._dimension

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, dimension={self.dimension})"

    def __len__(self) -> int:
        return self._read(lambda _, state: 0 if state is None else state.vectors)

    @property
    def stamp(self) -> dict[str, str]:
        """The stamp of the last change, such as a revision of the store; empty for a new index."""
        return self._read(lambda _, state: {} if state is None else state.stamp)

    def ids(self) -> NDArray[np.int64]:
        """All ids, int64[n], in order."""
        return self._read(lambda cursor, state: self._all_ids(cursor, state))

    @staticmethod
    def _all_ids(cursor: psycopg.Cursor[Any], state: _State | None) -> NDArray[np.int64]:
        if state is None:
            return np.empty(0, dtype=np.int64)
        cursor.execute(sql.SQL("SELECT id FROM {} ORDER BY id").format(state.table))
        return np.fromiter((row[0] for row in cursor), dtype=np.int64)

    def sample(self, count: int) -> NDArray[np.int64]:
        """As `SearchIndex.sample`; each id is the next after a random number, so after a gap likelier."""
        whole("count", count, 0)
        return self._read(lambda cursor, state: self._sample(cursor, state, count))

    def _sample(self, cursor: psycopg.Cursor[Any], state: _State | None, count: int) -> NDArray[np.int64]:
        if state is None or not state.vectors or not count:
            return np.empty(0, dtype=np.int64)
        random = np.random.default_rng(state.vectors)
        if state.vectors <= 4 * count:  # of so few, chance would choose the same again and again
            return random.permutation(self._all_ids(cursor, state))[:count]
        cursor.execute(sql.SQL("SELECT min(id), max(id) FROM {}").format(state.table))
        ((least, greatest),) = cursor.fetchall()
        found: dict[int, None] = {}
        while len(found) < count:
            starts = random.integers(least, greatest + 1, count).tolist()
            cursor.execute(
                sql.SQL(
                    "SELECT (SELECT id FROM {} WHERE id >= start ORDER BY id LIMIT 1) "
                    "FROM unnest(%s::bigint[]) WITH ORDINALITY AS of(start, place) ORDER BY place"
                ).format(state.table),
                [starts],
            )
            found.update(dict.fromkeys(row[0] for row in cursor))
        return np.array([*found][:count], dtype=np.int64)

    def vectors_of(self, ids: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """As `SearchIndex.vectors_of`."""
        wanted = self._check_ids(ids)

        def read(cursor: psycopg.Cursor[Any], state: _State | None) -> _Found:
            if state is None:
                return self._nothing()
            cursor.execute(
                sql.SQL("SELECT id, halfvec_send(vector) FROM {} WHERE id = ANY(%s)").format(state.table),
                [np.unique(wanted).tolist()],
            )
            return self._rows(cursor)

        found, vectors = self._read(read)
        order = np.argsort(found)
        places = np.searchsorted(found, wanted, sorter=order)
        there = np.zeros(len(wanted), dtype=np.bool_)
        inside = places < len(found)
        there[inside] = found[order[places[inside]]] == wanted[inside]
        return there, vectors[order[places[there]]]

    # Changing

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """As `SearchIndex.add`, as one change."""
        self.apply((), ids, vectors)

    def remove(self, ids: ArrayLike) -> int:
        """As `SearchIndex.remove`. The rows stay on disk until `vacuum`, which autovacuum does too."""
        return self.apply(ids, (), ())

    def apply(
        self,
        removed: ArrayLike,
        ids: ArrayLike,
        vectors: ArrayLike,
        *,
        stamp: Mapping[str, str] | None = None,
    ) -> int:
        """Remove vectors, add others, and set the stamp, as one change; returns how many were removed.

        stamp: None leaves it. Raises ValueError as `add` does.
        """
        gone = np.unique(self._check_ids(removed))
        wanted, matrix = self._check_pairs(ids, vectors)
        _, last = np.unique(wanted[::-1], return_index=True)  # of an id given twice the last one counts
        wanted, matrix = wanted[len(wanted) - 1 - last], matrix[len(wanted) - 1 - last]
        with self._changing() as (cursor, state):
            cursor.execute(sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(state.table), [gone.tolist()])
            count = cursor.rowcount
            added = 0
            for start in range(0, len(wanted), _BLOCK):
                some = wanted[start : start + _BLOCK].tolist()
                halves = [HalfVector(row) for row in to_half(matrix[start : start + _BLOCK])]
                cursor.execute(
                    sql.SQL("SELECT count(*) FROM {} WHERE id = ANY(%s)").format(state.table), [some]
                )
                added += len(some) - (cursor.fetchone() or (0,))[0]
                cursor.execute(
                    sql.SQL(
                        "INSERT INTO {} SELECT * FROM unnest(%s::bigint[], %s::halfvec[]) "
                        "ON CONFLICT (id) DO UPDATE SET vector = EXCLUDED.vector"
                    ).format(state.table),
                    [some, halves],
                )
            self._note(cursor, state.generation, state.vectors - count + added, stamp, state.stamp)
        return count

    def fill(
        self, blocks: Iterable[tuple[ArrayLike, ArrayLike]], *, stamp: Mapping[str, str] | None = None
    ) -> None:
        """Replace all vectors by those of `blocks`, in which no id comes twice, as one change.

        Searches go on in the old table until then; other changes wait. Raises ValueError as `add` does, and
        for an id that comes twice.
        """
        with self._changing() as (cursor, state):
            memory = f"{self._build_memory_mb}MB"
            cursor.execute("SELECT set_config('maintenance_work_mem', %s, true)", [memory])
            generation, count = state.generation + 1, 0
            table = self._table(generation)
            self._create(cursor, table)
            with cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(table)) as copy:
                copy.set_types(["int8", "halfvec"])
                for ids, vectors in blocks:
                    wanted, matrix = self._check_pairs(ids, vectors)
                    for id_, row in zip(wanted.tolist(), to_half(matrix), strict=True):
                        copy.write_row((id_, HalfVector(row)))
                    count += len(wanted)
            try:
                cursor.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (id)").format(table))
            except psycopg.errors.UniqueViolation:
                raise ValueError("An id comes twice in the vectors of an index.") from None
            self._create_graph(cursor, table)
            cursor.execute(sql.SQL("DROP TABLE {}").format(state.table))
            self._note(cursor, generation, count, stamp, {})

    def vacuum(self) -> None:
        """Have the server overwrite removed vectors in the table and the graph. Others search and change."""
        state = self._read(lambda _, state: state)
        if state is not None:
            with self._translated(), self._engine.connect() as connection:
                driver = connection.execution_options(isolation_level="AUTOCOMMIT").connection
                driver.driver_connection.execute(sql.SQL("VACUUM {}").format(state.table))  # type: ignore[union-attr]

    def drop(self) -> None:
        """Remove the index with its vectors; the next `add` makes another."""
        with self._changing() as (cursor, state):
            cursor.execute(sql.SQL("DROP TABLE {}").format(state.table))
            cursor.execute("DELETE FROM vector_indexes WHERE name = %s", [self.name])

    # Searching

    def search(
        self, queries: ArrayLike, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> Scored:
        """As `SearchIndex.search`."""
        whole("k", k, 1)
        matrix = self._check_vectors(queries)
        scores, ids = empty(len(matrix), int(k))
        # Twice as many, as the graph compares with a query that is rounded to float16.
        answers = self._nearest(matrix, k, 2 * k, filter_of(allowed, excluded))
        for row, (found, vectors) in enumerate(answers):
            exact = vectors @ matrix[row]
            best = np.argsort(-exact, kind="stable")[:k]
            scores[row, : len(best)], ids[row, : len(best)] = exact[best], found[best]
        return scores, ids

    def candidates(
        self, queries: ArrayLike, count: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `SearchIndex.candidates`."""
        whole("count", count, 1)
        answers = self._nearest(self._check_vectors(queries), count, count, filter_of(allowed, excluded))
        if not answers:
            return np.empty(0, dtype=np.int64), np.empty((0, self.dimension), dtype=np.float32)
        found = np.concatenate([ids for ids, _ in answers])
        vectors = np.concatenate([some for _, some in answers])
        ids, first = np.unique(found, return_index=True)
        return ids, vectors[first]

    def _nearest(
        self, queries: NDArray[np.float32], k: int, wider: int, among: Filter | None
    ) -> list[_Found]:
        """For each query, the ids and vectors of the k nearest, or of `wider` of them, in no order."""
        ef = min(max(self.ef_search, wider), _MOST_CANDIDATES)
        return self._read(
            lambda cursor, state: [
                self._nearest_of(cursor, state, query, k, min(wider, ef), among) for query in queries
            ],
            ef,
        )

    def _nearest_of(
        self,
        cursor: psycopg.Cursor[Any],
        state: _State | None,
        query: NDArray[np.float32],
        k: int,
        wider: int,
        among: Filter | None,
    ) -> _Found:
        if state is None:
            return self._nothing()
        is_exact = state.vectors <= self._exact_up_to or k > wider or self._is_small_set(state, among)
        if not is_exact:
            found = self._by_graph(cursor, state, query, wider, among)
            if len(found[0]) >= k or (among is None and len(found[0]) >= state.vectors):
                return found
        return self._exactly(cursor, state, query, k, among)

    @staticmethod
    def _is_small_set(state: _State, among: Filter | None) -> bool:
        return among is not None and not among.excluding and len(among.of) * _SHARE_OF_A_SET <= state.vectors

    def _by_graph(
        self,
        cursor: psycopg.Cursor[Any],
        state: _State,
        query: NDArray[np.float32],
        k: int,
        among: Filter | None,
    ) -> _Found:
        condition, values = _condition(among)
        cursor.execute(
            sql.SQL(
                "SELECT id, halfvec_send(vector) FROM {} {} ORDER BY vector <#> %s::halfvec LIMIT %s"
            ).format(state.table, condition),
            [*values, HalfVector(to_half(query[None])[0]), k],
        )
        return self._rows(cursor)

    def _exactly(
        self,
        cursor: psycopg.Cursor[Any],
        state: _State,
        query: NDArray[np.float32],
        k: int,
        among: Filter | None,
    ) -> _Found:
        condition, values = _condition(among)
        # A sum with zero hides the distance from the graph, which has its own order.
        cursor.execute(
            sql.SQL(
                "SELECT id, halfvec_send(vector) FROM {} {} "
                "ORDER BY (vector::vector <#> %s::vector) + 0 LIMIT %s"
            ).format(state.table, condition),
            [*values, query, k],
        )
        return self._rows(cursor)

    def _nothing(self) -> _Found:
        return np.empty(0, dtype=np.int64), np.empty((0, self.dimension), dtype=np.float32)

    def _rows(self, cursor: psycopg.Cursor[Any]) -> _Found:
        """Ids and vectors of rows of an id and what pgvector sends: four bytes, then big-endian halves."""
        rows = cursor.fetchall()
        ids = np.array([row[0] for row in rows], dtype=np.int64)
        content = np.frombuffer(b"".join(row[1] for row in rows), dtype=np.uint8)
        halves = content.reshape(len(rows), 4 + 2 * self.dimension)[:, 4:]
        return ids, to_single(np.ascontiguousarray(halves).view(">f2").astype(np.float16))

    # Soundness

    def check(self) -> list[str]:
        """Contradictions, in words: a wrong number of vectors, a graph that is missing or unfinished."""

        def look(cursor: psycopg.Cursor[Any], state: _State | None) -> list[str]:
            if state is None:
                return []
            cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(state.table))
            count = (cursor.fetchone() or (0,))[0]
            faults = []
            if count != state.vectors:
                faults.append(f"the index {self.name!r} notes {state.vectors} vectors and has {count}")
            cursor.execute(
                "SELECT indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
                "JOIN pg_am ON pg_am.oid = relam WHERE indrelid = %s::regclass AND amname = 'hnsw'",
                [state.table.as_string(cursor)],
            )
            if cursor.fetchall() != [(True,)]:
                faults.append(f"the graph of the index {self.name!r} is missing or unfinished")
            return faults

        return self._read(look)

    def close(self) -> None:
        """Close the unused connections; the next use opens new ones."""
        self._engine.dispose()

    # Transactions

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.Error, SQLAlchemyError, OSError) as error:
            original = getattr(error, "orig", None) or error
            # The first line alone: the others may quote the values of a statement.
            reason = (str(original).splitlines() or [type(original).__name__])[0]
            raise IndexUnavailableError(f"The index {self.name!r} cannot be used: {reason}") from None

    @contextmanager
    def _cursor(self) -> Iterator[psycopg.Cursor[Any]]:
        """A cursor of binary results, in a transaction that is committed at the end of the block."""
        if not self._is_ready:
            with self._engine.begin() as connection:
                upgrade(connection)
            event.listen(self._engine, "connect", _register)
            self._engine.dispose()  # the connections that do not know the types
            self._is_ready = True
        with self._engine.begin() as connection:
            driver: Any = connection.connection.driver_connection
            with driver.cursor(binary=True) as cursor:
                yield cursor

    def _read(self, work: Callable[[psycopg.Cursor[Any], _State | None], T], ef: int | None = None) -> T:
        """The result of `work` on the index as it is at one moment; None for one without vectors yet.

        ef: of searches of the graph.
        """
        options = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
        if ef is not None:
            # The repeated scan goes on where a filter has left too few answers.
            options += f"; SET LOCAL hnsw.ef_search = {ef}; SET LOCAL hnsw.iterative_scan = strict_order"
        with self._translated():
            for _ in range(_ATTEMPTS - 1):
                with suppress(psycopg.errors.UndefinedTable):
                    return self._read_once(work, options)
            return self._read_once(work, options)

    def _read_once(self, work: Callable[[psycopg.Cursor[Any], _State | None], T], options: str) -> T:
        with self._cursor() as cursor:
            cursor.execute(options, binary=False)
            return work(cursor, self._state(cursor))

    @contextmanager
    def _changing(self) -> Iterator[tuple[psycopg.Cursor[Any], _State]]:
        """A cursor of the one transaction that changes this index, and its state; the first makes it."""
        with self._translated(), self._cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [_lock_number(self._digest)])
            state = self._state(cursor)
            if state is None:
                table = self._table(0)
                cursor.execute(
                    "INSERT INTO vector_indexes VALUES (%s, %s, 0, 0, '{}')", [self.name, self.dimension]
                )
                self._create(cursor, table)
                cursor.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (id)").format(table))
                self._create_graph(cursor, table)
                state = _State(table, 0, 0, {})
            yield cursor, state

    def _state(self, cursor: psycopg.Cursor[Any]) -> _State | None:
        cursor.execute(
            "SELECT dimension, generation, vectors, stamp FROM vector_indexes WHERE name = %s", [self.name]
        )
        row = cursor.fetchone()
        if row is None:
            return None
        dimension, generation, vectors, stamp = row
        if dimension != self.dimension:
            raise ValueError(
                f"The index {self.name!r} has vectors of {dimension} values, not of {self.dimension}."
            )
        return _State(self._table(generation), generation, vectors, json.loads(stamp))

    def _note(
        self,
        cursor: psycopg.Cursor[Any],
        generation: int,
        vectors: int,
        stamp: Mapping[str, str] | None,
        before: dict[str, str],
    ) -> None:
        noted = json.dumps(before if stamp is None else dict(stamp))
        cursor.execute(
            "UPDATE vector_indexes SET generation = %s, vectors = %s, stamp = %s WHERE name = %s",
            [generation, vectors, noted, self.name],
        )

    def _table(self, generation: int) -> sql.Identifier:
        return sql.Identifier(f"vectors_{self._digest}_{generation}")

    def _create(self, cursor: psycopg.Cursor[Any], table: sql.Identifier) -> None:
        cursor.execute(
            sql.SQL("CREATE TABLE {} (id bigint NOT NULL, vector halfvec({}) NOT NULL)").format(
                table, sql.Literal(self.dimension)
            )
        )

    @staticmethod
    def _create_graph(cursor: psycopg.Cursor[Any], table: sql.Identifier) -> None:
        cursor.execute(sql.SQL("CREATE INDEX ON {} USING hnsw (vector halfvec_ip_ops)").format(table))


def _register(connection: psycopg.Connection[Any], _: object) -> None:
    register_vector(connection)
    connection.commit()


def _lock_number(digest: str) -> int:
    """A number of 31 bits, of the name of an index."""
    return int(digest[:8], 16) & 0x7FFFFFFF


def _condition(among: Filter | None) -> tuple[sql.SQL, list[Any]]:
    """The condition of a filter, and its values."""
    if among is None:
        return sql.SQL(""), []
    condition = "WHERE NOT (id = ANY(%s))" if among.excluding else "WHERE id = ANY(%s)"
    return sql.SQL(condition), [among.of.ids.tolist()]


__all__ = ["EXACT_UP_TO", "MOST_DIMENSIONS", "PgVectorIndex"]
