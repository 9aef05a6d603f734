"""`ServerDatabase`: the state that all workers and nodes of a service share, in SQLite or PostgreSQL.

API keys and sessions (as digests), idempotency keys, jobs, calls and webhook deliveries. No embeddings, audio
or metadata.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from voiceprint._files import expanded
from voiceprint.errors import ConfigurationError, StorageUnavailableError
from voiceprint.storage.sql.dialect import dialect_of
from voiceprint.storage.urls import sqlite_path
from voiceprint.validation import hide_passwords, is_postgresql_url, shown

SCHEMA: Final = 1
"""Version of the tables. A later version adds tables and columns, and never changes the meaning of one."""

BEAT_S: Final = 5.0
"""Seconds between the signs of life of a worker for its jobs and requests. Halved, twice as many writes."""

DEAD_AFTER_S: Final = 20.0
"""Seconds without a sign of life after which another worker takes over a job or request: three missed ones,
as a busy disk delays them. Doubled, a job waits twice as long after a crash."""

_WAIT_S = 30.0  # for the lock of an SQLite file: a writer holds it for some ms

_metadata = MetaData()
_schema = Table("server_schema", _metadata, Column("version", Integer, primary_key=True))

api_keys = Table(
    "server_api_keys",
    _metadata,
    Column("key_id", String(32), primary_key=True),
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the whole key
    Column("name", String(512), nullable=False),
    Column("roles", Text, nullable=False),  # separated by spaces
    Column("galleries", Text),  # JSON list; NULL for all
    Column("metadata", Boolean, nullable=False),  # whether answers show the callers' metadata
    Column("rate_limit", Integer),  # requests a minute; NULL for the default
    Column("created_at", String(32), nullable=False),
    Column("expires_at", String(32)),
    Column("revoked_at", String(32)),
)
idempotency = Table(
    "server_idempotency",
    _metadata,
    Column("key_id", String(32), primary_key=True),
    Column("gallery", String(128), primary_key=True),
    Column("idempotency_key", String(256), primary_key=True),
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the request
    Column("status", Integer),  # NULL while the request is in progress
    Column("answer", Text),  # JSON, without embeddings and metadata
    Column("created", Float, nullable=False, index=True),  # seconds since 1970
    Column("worker", String(64)),  # that carries it out
    Column("beat", Float, nullable=False),  # last sign of life of that worker, seconds since 1970
)
gallery_settings = Table(
    "server_gallery_settings",
    _metadata,
    Column("gallery", String(128), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),  # JSON
    Column("changed_at", String(32), nullable=False),
)
jobs = Table(
    "server_jobs",
    _metadata,
    Column("job_id", String(64), primary_key=True),
    Column("gallery", String(128), nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("state", String(32), nullable=False),
    Column("created", Float, nullable=False, index=True),
    Column("beat", Float),  # last sign of life of the worker that runs it, seconds since 1970
    Column("worker", String(64)),
    Column("cancel", Boolean, nullable=False, default=False),
    Column("details", Text, nullable=False),  # JSON
)
calls = Table(
    "server_calls",
    _metadata,
    Column("call_id", String(256), primary_key=True),
    Column("gallery", String(128), primary_key=True),
    Column("state", String(32), nullable=False),
    Column("worker", String(64)),
    Column("created", Float, nullable=False, index=True),
    Column("beat", Float),
    Column("details", Text, nullable=False),  # JSON, without metadata of callers
)
deliveries = Table(
    "server_deliveries",
    _metadata,
    Column("delivery_id", String(64), primary_key=True),
    Column("gallery", String(128), nullable=False),
    Column("body", Text, nullable=False),  # JSON, without metadata of callers
    Column("attempts", Integer, nullable=False),
    Column("due", Float, nullable=False, index=True),  # of the next attempt, seconds since 1970
    Column("worker", String(64)),  # that is sending it
    Column("beat", Float),
)
sessions = Table(
    "server_sessions",
    _metadata,
    Column("digest", LargeBinary(32), primary_key=True),  # SHA-256 of the token in the cookie
    Column("key_id", String(32), nullable=False),
    Column("created", Float, nullable=False),
    Column("used", Float, nullable=False),
)


class ServerDatabase:
    """The tables of this module. All methods may be called from many threads.

    place: the path of an SQLite file, created for its owner alone, or the URL of a PostgreSQL database;
    raises `ConfigurationError` for another one. The tables are created at the first use.
    """

    def __init__(self, place: str) -> None:
        scheme, colon, rest = place.partition(":")
        self._errors: tuple[type[Exception], ...] = (SQLAlchemyError,)
        self.path: Path | None = None
        if colon and scheme != "sqlite" and rest.startswith("//"):
            if not is_postgresql_url(place):
                raise ConfigurationError(
                    f"VOICE_SERVER_STATE is {hide_passwords(place)!r}: give the path of a file, or the URL "
                    "of a PostgreSQL database."
                )
            dialect = dialect_of(place)
            self.location, self._engine, self._errors = dialect.location, dialect.engine(), dialect.errors
        else:
            self.path = expanded(sqlite_path(rest) if scheme == "sqlite" and colon else place).absolute()
            self.location = str(self.path)
            self._engine = _sqlite_engine(self.path)
        self._is_ready = False

    def __repr__(self) -> str:
        return f"ServerDatabase({self.location})"

    def exists(self) -> bool:
        """Whether the tables exist; creates nothing."""
        if self._is_ready:
            return True
        if self.path is not None and not self.path.exists():
            return False
        with self._translated():
            return inspect(self._engine).has_table("server_schema")

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A connection in a transaction, which is committed at the end of the block.

        Raises `StorageUnavailableError`: nothing was changed. `IntegrityError` passes through.
        """
        self._prepare()
        with self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """As `begin`, for statements that only read; such transactions do not wait for each other."""
        self._prepare()
        reader = self._engine.execution_options(voiceprint_reads=True)
        with self._translated(), reader.begin() as connection:
            yield connection

    def take_turns(self, connection: Connection, table: Table) -> None:
        """Have transactions that call this for the same table wait for each other, until they end.

        For decisions by several rows. Writers of an SQLite file wait for each other anyway.
        """
        if self.path is None:
            connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))

    def _prepare(self) -> None:
        if self._is_ready:
            return
        if self.path is not None and not self.path.exists():
            # Before SQLite creates it for everyone: the digests and names of keys are in it.
            with self._translated():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.touch(mode=0o600)
        with self._translated():
            try:
                _metadata.create_all(self._engine)
            except SQLAlchemyError:
                # Another process created the tables at the same moment; a second failure is a real one.
                _metadata.create_all(self._engine)
            with self._engine.begin() as connection:
                version = connection.execute(select(_schema.c.version)).scalar()
            if version is None:
                self._write_version()
            elif version > SCHEMA:
                raise ConfigurationError(
                    f"{self.location} was written by a newer version of this program (schema {version}, and "
                    f"this is {SCHEMA}): upgrade, or set VOICE_SERVER_STATE to another place."
                )
        self._is_ready = True

    def _write_version(self) -> None:
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(_schema).values(version=SCHEMA))
        except IntegrityError:
            pass  # another process was faster

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # the caller expects it
        except Exception as error:
            if not isinstance(error, (*self._errors, OSError)):
                raise
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise StorageUnavailableError(
                f"The state of the service at {self.location} cannot be used: {shown(reason)}."
            ) from error

    def check(self) -> None:
        """Raise `StorageUnavailableError` if the database cannot be used."""
        with self.read() as connection:
            connection.execute(select(_schema.c.version)).scalar()

    def close(self) -> None:
        """Close the unused connections; the next use opens new ones."""
        self._engine.dispose()


def _sqlite_engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _WAIT_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's event below begins transactions
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("voiceprint_reads", False)
        # A transaction that first reads and then writes would fail where another one wrote in between.
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine
