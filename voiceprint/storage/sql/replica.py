"""`ReadReplica`: a streaming replica of a PostgreSQL server that answers reads of records.

A replica is some milliseconds behind its primary, or hours where its replay is paused. So each read first
asks the primary for its last revision, which takes one row, and goes to the replica only where the replica
has it: no read is older than one of the primary that began at the same time. What takes no revision,
`last_seen`, is at most `3 * LAG_S` older.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from sqlalchemy import URL, Connection, Engine, bindparam, func, literal_column, select, text, true

from voiceprint.errors import ConfigurationError, StorageError, StorageUnavailableError
from voiceprint.storage.sql import statements as sql
from voiceprint.storage.sql.dialect import Dialect, dialect_of
from voiceprint.storage.sql.tables import store
from voiceprint.validation import hide_passwords, is_postgresql_url

__all__ = ["ReadReplica", "replica_of"]

log = logging.getLogger(__name__)

T = TypeVar("T")

LAG_S = 5.0
"""Interval at which the primary's position in its log is noted, which a replica must have replayed. With
twice as long, `last_seen` may be twice as old; with half, a busy replica answers fewer reads."""

RETRY_S = 10.0
"""Seconds without an attempt after a replica failed: in each attempt a read may wait for a connection."""

_LAST = sql.LAST_COMMIT.subquery()
_STATE_OF_PRIMARY = select(
    store.c.identity,
    store.c.revision,
    _LAST.c.revision.label("commit"),
    _LAST.c.token,
    literal_column("pg_current_wal_lsn()::text"),
).select_from(store.outerjoin(_LAST, true()))
_STATE_OF_REPLICA = select(
    store.c.identity,
    store.c.revision,
    sql.COMMIT_AT.scalar_subquery(),
    func.pg_is_in_recovery(),
    # Not by a parameter: its type would be text.
    text("pg_last_wal_replay_lsn() >= CAST(:position AS pg_lsn)").bindparams(bindparam("position", "")),
)


class _PrimaryState(NamedTuple):
    """The state of the primary that a replica must have: identity, revision, last commit and its token."""

    identity: str
    revision: int
    commit: int | None
    token: str | None
    position: str  # in the write-ahead log


class ReadReplica:
    """A replica of a store, reached by a dialect of its own. Threads may share it.

    answered: the number of reads that it has answered.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.answered = 0
        self._failures: tuple[type[Exception], ...] = (*dialect.errors, StorageUnavailableError)
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._inherited: list[Engine] = []  # connections of the parent process, never closed
        self._retry_at = 0.0  # by the monotonic clock; 0 while it works
        self._positions = ("", "")  # of the primary, an older and a newer one
        self._noted_at = float("-inf")

    def read(
        self,
        ask_primary: Callable[[Callable[[Connection], _PrimaryState]], _PrimaryState],
        work: Callable[[Connection], T],
    ) -> tuple[T] | None:
        """The result of `work` in a transaction on the replica; None where the primary is to answer.

        ask_primary: runs a function in a transaction on the primary.

        Raises `ConfigurationError` where the replica is of another store, and the errors of `work`.
        """
        if time.monotonic() < self._retry_at:
            return None
        needed = ask_primary(self._state_of_primary)
        try:
            with self._current_engine().connect() as connection, connection.begin():
                self.dialect.begin(connection, writes=False)
                if not self._has_all(connection, needed):
                    return None
                result = work(connection)
        except self._failures as error:
            self._note_failure(error)  # the primary answers
            return None
        with self._lock:
            self.answered += 1
            again, self._retry_at = self._retry_at != 0, 0.0
        if again:
            log.warning("The replica %s answers again.", self.dialect.name)
        return (result,)

    def _state_of_primary(self, connection: Connection) -> _PrimaryState:
        state = _PrimaryState(*connection.execute(_STATE_OF_PRIMARY).one())
        return state._replace(position=self._needed_position(state.position))

    def _needed_position(self, current: str) -> str:
        """The primary's position in its log from `3 * LAG_S` ago or later."""
        now = time.monotonic()
        with self._lock:
            if now - self._noted_at > 2 * LAG_S:
                self._positions, self._noted_at = (current, current), now
            elif now - self._noted_at > LAG_S:
                self._positions, self._noted_at = (self._positions[1], current), now
            return self._positions[0]

    def _has_all(self, connection: Connection, needed: _PrimaryState) -> bool:
        given = {"at": needed.commit, "position": needed.position}
        row = connection.execute(_STATE_OF_REPLICA, given).first()
        if row is None:
            return False
        identity, revision, token, is_replica, has_replayed = row
        if identity != needed.identity:
            raise ConfigurationError(
                f"VOICE_STORAGE_READ_URL names {self.dialect.name}, which holds another store than the "
                "primary: give a streaming replica of it, or none. Nothing was changed."
            )
        if not is_replica:
            self._note_failure(StorageError(f"{self.dialect.name} is no replica."))
            return False
        return revision >= needed.revision and token == needed.token and bool(has_replayed)

    def _note_failure(self, error: Exception) -> None:
        """Leave the replica alone for a while; log it once until it answers again."""
        # Where its replay removes rows that the read would see, or it has no tables yet: it works otherwise.
        if self.dialect.is_busy(error) or self.dialect.tables_missing(error):
            return
        with self._lock:
            is_new = self._retry_at == 0
            self._retry_at = time.monotonic() + RETRY_S
        if is_new:
            ours = error if isinstance(error, StorageError) else self.dialect.translated(error)
            log.warning("Reads go to the primary, as their replica does not answer: %s", ours)

    def _current_engine(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self.dialect.engine()
            return self._engine

    def release(self) -> None:
        """Close the unused connections; they open again when needed."""
        if self._engine is not None:
            self._engine.dispose()

    def forget(self) -> None:
        """After a fork: start anew, and leave the connections of the parent alone."""
        self._lock = threading.Lock()
        if self._engine is not None:
            self._inherited.append(self._engine)
        self._engine = None


def replica_of(url: str | URL, read_url: str, max_connections: int) -> ReadReplica:
    """The replica at `read_url` of the store at `url`; does not connect.

    Raises `ConfigurationError` unless both are URLs of PostgreSQL.
    """
    for each in (str(url), read_url):
        if not is_postgresql_url(each):
            raise ConfigurationError(
                f"{hide_passwords(each)!r} is not the URL of a PostgreSQL database: VOICE_STORAGE_READ_URL "
                "is for a store on PostgreSQL, and names a streaming replica of its server."
            )
    return ReadReplica(dialect_of(read_url, max_connections))
