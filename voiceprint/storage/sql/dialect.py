"""The differences between databases, as one interface; sqlite.py and postgresql.py implement it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import URL, ColumnElement, Connection, Engine, Table, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from voiceprint.errors import ConfigurationError, StorageError, StorageUnavailableError
from voiceprint.models import Finding
from voiceprint.storage.base import DEFAULT_MAX_CONNECTIONS
from voiceprint.validation import hide_passwords, is_postgresql_url

__all__ = ["Dialect", "dialect_of", "translated"]

# How long a statement waits for another process, in seconds.
BUSY_TIMEOUT_S = 30.0


def dialect_of(url: str | URL, max_connections: int = DEFAULT_MAX_CONNECTIONS) -> Dialect:
    """The database that `url` names. max_connections: to a PostgreSQL server.

    Raises `ConfigurationError` for a bad URL, and if the driver for PostgreSQL is missing.
    """
    text = url.render_as_string(hide_password=False) if isinstance(url, URL) else url
    if is_postgresql_url(text):
        try:
            from voiceprint.storage.sql.postgresql import PostgreSQL
        except ImportError as error:
            raise ConfigurationError(
                "PostgreSQL needs psycopg: pip install 'opusagent-voiceprint[postgresql]'."
            ) from error
        return PostgreSQL(text, max_connections)
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(f"{hide_passwords(str(url))!r} is not the URL of a database.") from error
    if parsed.get_backend_name() == "sqlite":
        from voiceprint.storage.sql.sqlite import SQLite

        return SQLite(parsed)
    return Dialect(parsed)


class Dialect:
    """Any database, as SQLAlchemy handles it. Subclasses adapt it to one kind.

    location: its URL without the password; name: for messages; path: of its file, None on a server.
    """

    # Errors of statements: SQLAlchemy's, and those that a driver raises past it.
    errors: ClassVar[tuple[type[Exception], ...]] = (SQLAlchemyError,)

    # A statement for the names of the indexes of the table callers.
    index_names: ClassVar[str] = (
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'callers'"
    )

    path: Path | None = None

    def __init__(self, url: URL) -> None:
        self.url = url
        self.location = self.name = url.render_as_string(hide_password=True)

    def exists(self) -> bool:
        """Whether the database exists."""
        return True

    def prepare(self, *, create: bool) -> None:
        """Check the place of the database before the first connection; `create`: make a missing database."""

    def state(self) -> object:
        """A value that changes when another database takes the place of this one."""
        return None

    @contextmanager
    def upgrade_lock(self) -> Iterator[None]:
        """The lock of the one process that creates or upgrades the database."""
        yield

    def engine(self) -> Engine:
        """A new engine. Its messages leave out parameters, which are biometric data."""
        return create_engine(
            self.url, hide_parameters=True, pool_pre_ping=True, execution_options=self._engine_options()
        )

    def _engine_options(self) -> dict[str, Any]:
        return {"voiceprint_name": self.name}  # for the messages of migrations

    def begin(self, connection: Connection, *, writes: bool, exclusive: bool = True) -> None:
        """Begin a transaction, where SQLAlchemy does not do so by itself.

        exclusive: one writer at a time. A transaction that takes no id and no revision needs no turn.
        """

    def copy_rows(self, connection: Connection, table: Table, rows: list[tuple[Any, ...]]) -> int | None:  # noqa: ARG002
        """Insert rows, each with all columns of the table, by the database's own bulk load.

        Returns the number of inserted rows; None, and nothing is inserted, where the database has none.
        """
        return None

    def metadata_value(self, key: str) -> str:  # noqa: ARG002
        """SQL for the value of a key of the callers' metadata, equal for equal values that are not null.

        Different values may be equal in it. key: as `metadata_search.check_key` allows it.
        """
        raise ConfigurationError(f"{self.name} is a database whose metadata can have no index.")

    def metadata_conditions(
        self,
        values: dict[str, Any],  # noqa: ARG002
        by_index: str | None,  # noqa: ARG002
    ) -> list[list[ColumnElement[bool]]]:
        """Conditions that find each caller with these values, and maybe others: one list or the other holds.

        values: text, number or bool of each key. by_index: the one of the keys whose index is to be read;
        None where none has one.
        """
        return [[]]

    def prepare_search(self, connection: Connection) -> None:
        """Called before a search by `metadata_conditions`, within its transaction."""

    def indexed(self, connection: Connection) -> None:
        """Called after a new index of the callers, within its transaction."""

    def check_can_partition(self) -> None:
        """Raise `ConfigurationError` for a database that has no partitions."""
        raise ConfigurationError(
            f"{self.name} cannot be partitioned: SQLite keeps a table in one file and has no partitions. "
            "PostgreSQL has: `voiceprint copy` moves the callers there."
        )

    def partition(self, connection: Connection, partitions: int) -> int:  # noqa: ARG002
        """Partition the tables, while nobody is enrolled; returns the former number, 0 for none."""
        return 0

    def partition_count(self, connection: Connection) -> int:  # noqa: ARG002
        """Number of partitions of each of these tables; 0 for none."""
        return 0

    def prepare_engine(self, engine: Engine) -> None:
        """Set the permanent options of the database."""

    def check_ours(self, _connection: Connection) -> None:
        """Raise `StorageError` for the database of another program, which must not be written to."""

    def check_writable(self) -> None:
        """Raise `StorageUnavailableError` if the database is read-only."""

    def upgraded(self, before: str | None) -> None:
        """Called after an upgrade from revision `before`, None for a new schema."""

    def check_log_is_empty(self) -> None:
        """Raise `StorageUnavailableError` if a log of a replaced file is left."""

    def mark_removal(self, _connection: Connection) -> None:
        """Note within a transaction that it removes data, for erasure."""

    def removal_is_pending(self, _connection: Connection) -> bool:
        """Whether removed data was not erased yet, perhaps by a process that ended."""
        return False

    def erases_quickly(self) -> bool:
        """Whether `erase_remains` takes about 0.05 s at most, unless other connections hold it up."""
        return True

    def erase_remains(self, _timeout_s: float) -> bool:
        """Erase removed data from files that this library can write; False: other connections held it up."""
        return True

    def is_busy(self, _error: Exception) -> bool:
        """Whether the statement may succeed if repeated."""
        return False

    def tables_missing(self, _error: Exception) -> bool:
        """Whether the store's tables no longer exist."""
        return False

    def translated(self, error: Exception, *, committing: bool = False) -> StorageError:  # noqa: ARG002
        """The error as one of ours; committing: raised by a commit."""
        if isinstance(error, DBAPIError) and not error.connection_invalidated:
            return StorageError(f"{self.name} refused a statement ({type(error.orig).__name__}).")
        return StorageUnavailableError(
            f"{self.name} cannot be reached ({type(error).__name__}). Nothing was changed."
        )

    def findings(self, _connection: Connection) -> list[Finding]:
        """Findings of the database's own check."""
        return []


@contextmanager
def translated(dialect: Dialect) -> Iterator[None]:
    """Turn the errors of the database into ours."""
    try:
        yield
    except dialect.errors as error:
        ours = dialect.translated(error)
        # A message about bytes that are not UTF-8 quotes them.
        quotes = isinstance(error, UnicodeDecodeError) or "Could not decode" in str(error)
        raise ours from (None if quotes else error)
