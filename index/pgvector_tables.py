"""The tables of an index in PostgreSQL: their transactions, and what is read and written in one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import partial
from typing import Any, ClassVar, Final, TypeVar
from weakref import WeakSet, finalize

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import PoolProxiedConnection, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from voiceprint import _fork
from voiceprint.index.errors import IndexUnavailableError
from voiceprint.index.pgvector_moment import BLOCK, MOST_CANDIDATES, Moment, State
from voiceprint.index.rows import to_half
from voiceprint.migrations.vectors import upgrade

EF_SEARCH: Final = 200
"""The `hnsw.ef_search` of an index that was never tuned."""

_M: Final = 32
_EF_CONSTRUCTION: Final = 256
"""Edges of a vector in the graph, and vectors that building keeps for each. Of 300,000 prints, searches that
keep 60 then find 0.991 of the nearest, 0.988 with 128, and to find 0.985 with 16 and 64, pgvector's own, they
keep 200 and take 1.4 times as long. Built once, in 755, 417 and 97 s on two cores (research/pgvector.md)."""

_CONNECTION: Final[dict[str, Any]] = {
    "connect_timeout": 10,  # s
    "keepalives_idle": 10,  # s
    "keepalives_interval": 5,  # s
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # ms
}
"""For a server that does not answer any more, unless the URL says otherwise."""

_NEEDED_RIGHTS: Final = (
    " All processes need one user, who owns the tables of the index: GRANT CREATE ON SCHEMA, and for the "
    "extension CREATE ON DATABASE."
)

_ATTEMPTS: Final = 20
"""Reads in a row that may each find that another process has filled the index anew in between. A read takes
some ms and a filling many more, so that two are rare."""

T = TypeVar("T")


class Tables:
    """The row and the table of vectors of one index, in transactions.

    Raises `IndexUnavailableError` where the server cannot be reached or refuses; nothing was changed.
    """

    _all: ClassVar[WeakSet[Tables]] = WeakSet()

    def __init__(self, url: str, name: str, dimension: int) -> None:
        self.name = name
        self.dimension = dimension
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        self.prefix = f"vectors_{digest}_"  # of the names of its tables
        self._number = int(digest[:8], 16) & 0x7FFFFFFF  # of its advisory locks
        # By psycopg itself, as SQLAlchemy does not know all URLs of PostgreSQL. Messages have no parameters:
        # these are biometric data.
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=partial(_connect, url, autocommit=True),
            hide_parameters=True,
        )
        event.listen(self._engine, "connect", _register)
        # Of connections that need not know the types, and are not kept.
        self._first = create_engine(
            "postgresql+psycopg://", creator=partial(_connect, url), hide_parameters=True, poolclass=NullPool
        )
        self._is_ready = False
        self._all.add(self)
        finalize(self, self._engine.dispose)

    @classmethod
    def _forget_connections(cls) -> None:
        """Leave the connections of the process that has forked this one to it."""
        for tables in [*cls._all]:
            tables._engine.dispose(close=False)

    def close(self) -> None:
        """Close the unused connections; the next use opens new ones."""
        self._engine.dispose()

    # Transactions

    def read(
        self,
        work: Callable[[Moment], T],
        ef_search: int | None = None,
        wider: int = 1,
        *,
        filtered: bool = False,
    ) -> T:
        """The result of `work` on the index as it is at one moment.

        ef_search: of searches of the graph; None is the one that the index was tuned to. wider: the least.
        filtered: whether searches go on with the graph until as many answers as they ask for pass a filter.
        """
        with self._translated():
            for _ in range(_ATTEMPTS - 1):
                with suppress(psycopg.errors.UndefinedTable):  # filled anew by another process meanwhile
                    return self._read_once(work, ef_search, wider, filtered)
            return self._read_once(work, ef_search, wider, filtered)

    def _read_once(self, work: Callable[[Moment], T], ef_search: int | None, wider: int, filtered: bool) -> T:
        # One statement of several: each trip to the server takes 0.1 ms of a search of 5.
        beginning = sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}").format(
            self._read_state(ef_search, wider, filtered)
        )
        with self._cursor(beginning) as cursor:
            cursor.nextset()
            return work(Moment(cursor, self._state(cursor), self.dimension))

    @contextmanager
    def changing(self) -> Iterator[Change]:
        """The one transaction that changes this index at a time. The first makes the index."""
        beginning = sql.SQL("BEGIN; SELECT pg_advisory_xact_lock({}, 0)").format(sql.Literal(self._number))
        with self._translated(), self._cursor(beginning) as cursor:
            cursor.execute(self._read_state(), binary=False)
            state = self._state(cursor)
            if state is None:
                cursor.execute(
                    "INSERT INTO vector_indexes (name, dimension, generation, vectors, stamp) "
                    "VALUES (%s, %s, 0, 0, '{}')",
                    [self.name, self.dimension],
                )
                state = State(self.table(0), 0, 0, {}, 0, None, None, None, 0)
                _create_table(cursor, state.table, self.dimension)
                _create_indexes(cursor, state.table)
            yield Change(cursor, self, state)

    @contextmanager
    def claim(self) -> Iterator[bool]:
        """A block that says whether no other process is in one of this index."""
        # Not of the pool, which the work in the block needs, nor ended for doing nothing meanwhile.
        with self._translated(), self._first.begin() as connection:
            row = connection.exec_driver_sql(
                "SELECT pg_try_advisory_xact_lock(%s, 1), "
                "set_config('idle_in_transaction_session_timeout', '0', true)",
                (self._number,),
            ).one()
            yield bool(row[0])

    def drop_former(self, rows: int = 0) -> bool:
        """Remove the tables that another has replaced. rows: of these, that wait for a vacuum by the notes.

        Not as a part of the replacement: searches would wait behind it for the longest reader. False where
        somebody reads one for a second, or it cannot be removed.
        """
        try:
            with self.changing() as change:
                change.drop_former()
                if rows:
                    left = max(0, change.state.dead - rows)
                    change.note(dead=left, **({} if left else {"dead_since": None}))
        except IndexUnavailableError:  # the rows stay noted, so that the next vacuum tries again
            return False
        return True

    def vacuum(self) -> None:
        """Have the server overwrite removed rows, and note that it did."""

        def look(now: Moment) -> tuple[State | None, Any]:
            return now.state, now.time()

        before, begun = self.read(look)
        if before is None:
            return
        warnings = list[str]()

        def note(diagnostic: psycopg.errors.Diagnostic) -> None:
            if diagnostic.severity_nonlocalized == "WARNING":
                warnings.append(diagnostic.message_primary or "")

        with self._translated(), self._first.connect() as connection:
            wrapped: Any = connection.execution_options(isolation_level="AUTOCOMMIT").connection
            driver: psycopg.Connection[Any] = wrapped.driver_connection
            driver.add_notice_handler(note)
            try:
                # By itself the server leaves out the graph where few rows are dead.
                driver.execute(sql.SQL("VACUUM (INDEX_CLEANUP ON) {}").format(before.table))
                # Rows that a transaction of before the removal may still read stay.
                rows = driver.execute(
                    "SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = %s::regclass",
                    [before.table.as_string(driver)],
                ).fetchall()
            except psycopg.errors.UndefinedTable:  # another has replaced it meanwhile
                rows = []
        if warnings:  # it is no error for the server, and nothing was done
            raise IndexUnavailableError(f"The index {self.name!r} was not vacuumed: {warnings[0]}.")
        if not self.drop_former() or not rows:
            return
        kept = rows[0][0]
        with self.changing() as change:
            if change.state.generation == before.generation:
                left = max(0, change.state.dead - before.dead)
                if kept and before.dead:
                    change.note(dead=left + min(kept, before.dead))
                else:
                    change.note(dead=left, dead_since=begun if left else None)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.Error, SQLAlchemyError, OSError) as error:
            self._is_ready = False  # the database may be another one, without the tables
            original = getattr(error, "orig", None) or error
            # The first line alone: the others may quote the values of a statement.
            reason = (str(original).splitlines() or [type(original).__name__])[0].rstrip(".")
            advice = _NEEDED_RIGHTS if isinstance(original, psycopg.errors.InsufficientPrivilege) else ""
            raise IndexUnavailableError(
                f"The index {self.name!r} cannot be used: {reason}.{advice}"
            ) from None

    @contextmanager
    def _cursor(self, beginning: sql.Composed) -> Iterator[psycopg.Cursor[Any]]:
        """A cursor of binary results, in a transaction that is committed at the end of the block.

        beginning: the statements that begin it. The cursor has their results, as text.
        """
        if not self._is_ready:
            with self._first.begin() as connection:
                upgrade(connection)
            self._is_ready = True
        pooled, cursor = self._begin(beginning)
        try:
            with cursor:
                yield cursor
                cursor.connection.commit()
        finally:
            _give_back(pooled)

    def _begin(self, beginning: sql.Composed) -> tuple[PoolProxiedConnection, psycopg.Cursor[Any]]:
        while True:
            pooled = self._engine.raw_connection()
            driver: Any = pooled.driver_connection
            try:
                cursor = driver.cursor(binary=True)
                cursor.execute(beginning, binary=False)
                pooled.info["used"] = True  # of this connection, as long as it lasts
            except BaseException as error:
                # A server that was restarted meanwhile has forgotten the connections of the pool.
                is_stale = isinstance(error, psycopg.OperationalError) and "used" in pooled.info
                is_lost = is_stale and driver.broken
                _give_back(pooled)
                if not is_lost:
                    raise
            else:
                return pooled, cursor

    def _read_state(
        self, ef_search: int | None = None, wider: int = 1, filtered: bool = False
    ) -> sql.Composed:
        """The statement that reads the row, and sets the options of searches by it.

        After removals the graph still leads to vectors that are gone, so that it is searched until there are
        enough others, as with a filter.
        """
        return sql.SQL(
            "SELECT dimension, generation, vectors, stamp, dead, extract(epoch FROM dead_since)::float8, "
            "ef_search, recall, tuned_at, set_config('hnsw.ef_search', "
            "least({}, greatest({}, coalesce({}::int, ef_search, {})))::text, true), "
            "CASE WHEN dead > 0 OR {} THEN set_config('hnsw.iterative_scan', 'strict_order', true) END "
            "FROM vector_indexes WHERE name = {}"
        ).format(
            *map(sql.Literal, (MOST_CANDIDATES, wider, ef_search, EF_SEARCH, filtered, self.name)),
        )

    def _state(self, cursor: psycopg.Cursor[Any]) -> State | None:
        """The state in the row that was read."""
        row = cursor.fetchone()
        if row is None:
            return None
        dimension, generation, vectors, stamp, dead, since, *rest, _, _ = row
        if dimension != self.dimension:
            raise ValueError(
                f"The index {self.name!r} has vectors of {dimension} values, not of {self.dimension}."
            )
        dead_since = None if since is None else datetime.fromtimestamp(since, timezone.utc)
        return State(self.table(generation), generation, vectors, json.loads(stamp), dead, dead_since, *rest)

    def table(self, generation: int) -> sql.Identifier:
        """The table of a generation of the vectors."""
        return sql.Identifier(f"{self.prefix}{generation}")


class Change:
    """A transaction that changes one index, which no other does meanwhile. state: before it."""

    def __init__(self, cursor: psycopg.Cursor[Any], tables: Tables, state: State) -> None:
        self.state = state
        self._cursor = cursor
        self._tables = tables

    def note(self, **columns: Any) -> None:
        """Set columns of the index's row."""
        assignments = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in columns)
        self._cursor.execute(
            sql.SQL("UPDATE vector_indexes SET {} WHERE name = %s").format(assignments),
            [*columns.values(), self._tables.name],
        )

    def note_dead(self, rows: int) -> None:
        """Note how many rows wait for a vacuum, and since now if none did."""
        self._cursor.execute(
            "UPDATE vector_indexes SET dead = %s, dead_since = coalesce(dead_since, now()) WHERE name = %s",
            [rows, self._tables.name],
        )

    def delete(self, ids: NDArray[np.int64]) -> int:
        """Remove the vectors of these ids; returns how many there were."""
        self._cursor.execute(
            sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self.state.table), [ids.tolist()]
        )
        return self._cursor.rowcount

    def upsert(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> tuple[int, int]:
        """Add vectors of distinct ids; returns how many ids are new, and how many have another vector now."""
        added = replaced = 0
        for start in range(0, len(ids), BLOCK):
            some = ids[start : start + BLOCK].tolist()
            halves = [HalfVector(row) for row in to_half(vectors[start : start + BLOCK])]
            self._cursor.execute(
                sql.SQL("SELECT count(*) FROM {} WHERE id = ANY(%s)").format(self.state.table), [some]
            )
            new = len(some) - (self._cursor.fetchone() or (0,))[0]
            self._cursor.execute(
                sql.SQL(
                    "INSERT INTO {} AS stored SELECT * FROM unnest(%s::bigint[], %s::halfvec[]) "
                    "ON CONFLICT (id) DO UPDATE SET vector = EXCLUDED.vector "
                    "WHERE stored.vector <> EXCLUDED.vector"
                ).format(self.state.table),
                [some, halves],
            )
            added += new
            replaced += self._cursor.rowcount - new
        return added, replaced

    def refill(
        self, blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]], memory_mb: int
    ) -> tuple[int, int]:
        """Put another table in the place of the present one; returns its generation, and its vectors.

        Raises ValueError for an id that comes twice.
        """
        cursor, generation, count = self._cursor, self.state.generation + 1, 0
        table = self._tables.table(generation)
        # A time that is meant for searches would end the building of a graph.
        cursor.execute(
            "SELECT set_config('maintenance_work_mem', %s, true), set_config('statement_timeout', '0', true)",
            [f"{memory_mb}MB"],
        )
        # Left by a database that was put back to an earlier state. A table of another schema is not meant.
        ((schema,),) = cursor.execute("SELECT current_schema()").fetchall()
        cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}.{}").format(sql.Identifier(schema), table))
        _create_table(cursor, table, self._tables.dimension)
        with cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(table)) as copy:
            copy.set_types(["int8", "halfvec"])
            for ids, vectors in blocks:
                for id_, row in zip(ids.tolist(), to_half(vectors), strict=True):
                    copy.write_row((id_, HalfVector(row)))
                count += len(ids)
        try:
            _create_indexes(cursor, table)
        except psycopg.errors.UniqueViolation:
            raise ValueError("An id comes twice in the vectors of an index.") from None
        return generation, count

    def drop_former(self) -> None:
        """Remove the tables of former generations. Raises `LockNotAvailable` where one is in use."""
        former = [generation for generation in self._generations() if generation < self.state.generation]
        if former:
            self._cursor.execute("SET LOCAL lock_timeout = '1s'", binary=False)
        for generation in former:
            self._cursor.execute(sql.SQL("DROP TABLE {}").format(self._tables.table(generation)))

    def _generations(self) -> list[int]:
        """The generations whose tables are there."""
        self._cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND starts_with(relname, %s) "
            "AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = %s::regclass)",
            [self._tables.prefix, self.state.table.as_string(self._cursor)],
        )
        return [int(name.removeprefix(self._tables.prefix)) for (name,) in self._cursor.fetchall()]

    def drop(self) -> None:
        """Remove the index with its vectors."""
        for generation in self._generations():
            self._cursor.execute(sql.SQL("DROP TABLE {}").format(self._tables.table(generation)))
        self._cursor.execute("DELETE FROM vector_indexes WHERE name = %s", [self._tables.name])


def _create_table(cursor: psycopg.Cursor[Any], table: sql.Identifier, dimension: int) -> None:
    cursor.execute(
        sql.SQL("CREATE TABLE {} (id bigint NOT NULL, vector halfvec({}) NOT NULL)").format(
            table, sql.Literal(dimension)
        )
    )


def _create_indexes(cursor: psycopg.Cursor[Any], table: sql.Identifier) -> None:
    cursor.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (id)").format(table))
    cursor.execute(
        sql.SQL(
            "CREATE INDEX ON {} USING hnsw (vector halfvec_ip_ops) WITH (m = {}, ef_construction = {})"
        ).format(table, sql.Literal(_M), sql.Literal(_EF_CONSTRUCTION))
    )


def _connect(url: str, *, autocommit: bool = False) -> psycopg.Connection[Any]:
    # Behind a pooler the next transaction may be on a connection that lacks a prepared statement.
    return psycopg.connect(
        **{**_CONNECTION, **conninfo_to_dict(url)}, prepare_threshold=None, autocommit=autocommit
    )


def _give_back(pooled: PoolProxiedConnection) -> None:
    """Return a connection to its pool, which rolls back what was not committed."""
    driver: Any = pooled.driver_connection
    if driver.broken:  # a rollback would be an error, in the log
        pooled.invalidate()
    else:
        pooled.close()


def _register(connection: psycopg.Connection[Any], _: object) -> None:
    register_vector(connection)


_fork.register(_fork.Step.INDEX, in_child=Tables._forget_connections)
