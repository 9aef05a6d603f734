"""What differs between databases, in one place: SQLite, and any other that SQLAlchemy knows."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoFreeConnectionError
from sqlalchemy.pool import NullPool, QueuePool

from voiceprint import migrations
from voiceprint._files import NewFile, guard_locks, kind_of, remove_leftovers, sync_folder
from voiceprint.errors import (
    ConfigurationError,
    StorageCorruptError,
    StorageError,
    StorageUnavailableError,
)
from voiceprint.models import Finding
from voiceprint.storage.mounts import MOUNT_THE_FOLDER, is_mounted_alone
from voiceprint.storage.sql.erasure import CLEAN, PENDING, erase_remains
from voiceprint.validation import hide_passwords, is_postgresql_url

__all__ = ["Dialect", "SQLite", "dialect_of"]

log = logging.getLogger(__name__)

_EFFECTIVE = os.access in os.supports_effective_ids

# How long a statement waits for another process to be done, in seconds.
BUSY_TIMEOUT_S = 30.0

# No database is smaller than its smallest page; SQLite takes such a file for an empty one.
_SMALLEST = 512

# Tells databases that were made with `secure_delete` from older ones, which hold what was removed from them.
_NEW = f"PRAGMA user_version={CLEAN}"

# Bytes of a database whose pages are looked through in 0.05 s, at 2.7 ms a MB (13,000 voiceprints).
_QUICKLY = 20_000_000

# Connections that stay open for the threads to come; there may be more at a time.
_KEPT_CONNECTIONS = 8


def dialect_of(url: str | URL) -> Dialect:
    """The database that `url` names.

    Raises `ConfigurationError` for what is no URL, and where the driver for PostgreSQL is missing.
    """
    text = url.render_as_string(hide_password=False) if isinstance(url, URL) else url
    if is_postgresql_url(text):
        try:
            from voiceprint.storage.sql.postgresql import PostgreSQL
        except ImportError as error:
            raise ConfigurationError(
                "PostgreSQL needs psycopg: pip install 'opusagent-voiceprint[postgresql]'."
            ) from error
        return PostgreSQL(text)
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(f"{hide_passwords(str(url))!r} is not the URL of a database.") from error
    return SQLite(parsed) if parsed.get_backend_name() == "sqlite" else Dialect(parsed)


class Dialect:
    """Any database: what SQLAlchemy does by itself.

    location: its URL without the password; name: what messages call it.
    """

    # What statements raise: SQLAlchemy's errors, and what a driver raises past it.
    errors: ClassVar[tuple[type[Exception], ...]] = (SQLAlchemyError,)

    def __init__(self, url: URL) -> None:
        self.url = url
        self.location = self.name = url.render_as_string(hide_password=True)

    def exists(self) -> bool:
        """Whether there is a database to connect to."""
        return True

    def prepare(self, *, create: bool) -> None:
        """Look at what must be there before the first connection, and make it, if `create`."""

    def state(self) -> object:
        """A value that changes when another database is put in the place of this one."""
        return None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Only one process at a time upgrades a database."""
        yield

    def engine(self) -> Engine:
        """A new engine. Parameters are kept out of its messages: they are biometric data."""
        return create_engine(
            self.url, hide_parameters=True, pool_pre_ping=True, execution_options=self._engine_options()
        )

    def _engine_options(self) -> dict[str, Any]:
        return {"voiceprint_name": self.name}  # which the messages of migrations call it by

    def begin(self, connection: Connection, *, writes: bool, alone: bool = True) -> None:
        """Begin a transaction, where SQLAlchemy does not do so by itself.

        alone: after the other writers and before those to come, which a change that draws no id and no
        revision need not be.
        """

    def prepare_engine(self, engine: Engine) -> None:
        """What is to be set once on the database that an engine is of."""

    def check_ours(self, _connection: Connection) -> None:
        """Raise `StorageError` for the database of something else, which must not be written to."""

    def check_writable(self) -> None:
        """Raise `StorageUnavailableError` where the database can only be read."""

    def upgraded(self, before: str | None) -> None:
        """Called when a schema was made (`before` is None), or was upgraded from that revision."""

    def check_log_is_empty(self) -> None:
        """Raise `StorageUnavailableError` where there is a log, which is of the file that was here before."""

    def mark_removal(self, _connection: Connection) -> None:
        """Note, with the change of a transaction, that it removes something that is to be erased."""

    def removal_is_pending(self, _connection: Connection) -> bool:
        """Whether something was removed, perhaps by a process that ended, that was not erased yet."""
        return False

    def erases_quickly(self) -> bool:
        """Whether `erase_remains` takes no more than 0.05 s or so, where nobody keeps it up."""
        return True

    def erase_remains(self, _timeout_s: float) -> bool:
        """Have nothing of what was removed stay on the disk, if it is this library that can see to it.

        False: not in time, as other connections kept it up.
        """
        return True

    def is_busy(self, _error: Exception) -> bool:
        """Whether the statement may succeed when it is tried again."""
        return False

    def is_gone(self, _error: Exception) -> bool:
        """Whether the store's tables are no longer there."""
        return False

    def translated(self, error: Exception, *, committing: bool = False) -> StorageError:  # noqa: ARG002
        """The error as one of ours; `committing`: raised when a change was being committed."""
        if isinstance(error, DBAPIError) and not error.connection_invalidated:
            return StorageError(f"{self.name} refused a statement ({type(error.orig).__name__}).")
        return StorageUnavailableError(
            f"{self.name} cannot be reached ({type(error).__name__}). Nothing was changed."
        )

    def findings(self, _connection: Connection) -> list[Finding]:
        """What the database itself finds wrong with its content."""
        return []


class SQLite(Dialect):
    """A database in one file, with its write-ahead log beside it."""

    # UnicodeDecodeError: what SQLite says of a damaged schema may quote what is not text.
    errors = (SQLAlchemyError, sqlite3.Error, UnicodeDecodeError)

    def __init__(self, url: URL) -> None:
        super().__init__(url)
        path = url.database
        if not path or path == ":memory:" or path.startswith("file:") or "\0" in path or url.query:
            raise ConfigurationError(
                f"{self.location!r} does not name the file of an SQLite database: use sqlite:PATH, or "
                "MemoryStorage for a store without a file."
            )
        # The real path: the log lies beside the file itself, and two names must not give two stores.
        # By os.path, which passes over an unknown "~user" and a loop of links: opening tells of them.
        self.path = Path(os.path.realpath(os.path.expanduser(path)))  # noqa: PTH111
        self.name = str(self.path)
        self.location = f"sqlite:{self.path}"
        self._warned = False
        # How it was opened: "rw", or read-only where nothing can be written: "ro", and "ro&immutable=1" where
        # not even the index of the log can be made.
        self._mode = "rw"

    def exists(self) -> bool:
        return self.state() is not None

    def prepare(self, *, create: bool) -> None:
        """Create the database if there is none: whole, or not at all."""
        try:
            if self.path.exists():
                self._look_at(self.path.stat())
                return
            if not create:
                self._check_no_log("is gone")
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.alone():
                if not self.path.exists():
                    self._create()
        except OSError as error:
            raise self._unavailable(error.strerror or type(error).__name__) from error

    def _look_at(self, found: os.stat_result) -> None:
        """Whether the file may be opened, and how. Before SQLite does, which would wait for a pipe."""
        if not stat.S_ISREG(found.st_mode):
            raise self._unavailable(f"it is {kind_of(found.st_mode)}, not a file")
        if found.st_size == 0:  # as `touch` makes it: SQLite takes it for a database without tables
            self._check_no_log("is empty")
        elif found.st_size < _SMALLEST:
            raise StorageCorruptError(
                f"{self.path} is cut off. Restore it from a backup, or delete it to start anew. "
                "The file was left as it is."
            )
        self._warn_of_mount()
        self._choose_mode()

    def _choose_mode(self) -> None:
        before, self._mode = self._mode, "rw"
        if self._can_be_written():
            return
        if not os.access(self.path, os.R_OK, effective_ids=_EFFECTIVE):
            return  # SQLite says so
        log_size = _size_of(self._beside("-wal"))
        if log_size is not None and self._beside("-shm").exists():
            # A writer is at work, or was and left its log: SQLite reads both where it may.
            self._mode = "ro"
        elif log_size:
            raise self._unavailable(
                f"it cannot be written to, and the changes in its log {self._beside('-wal').name} cannot be "
                "read there without writing: open it once where it can be written to"
            )
        else:
            self._mode = "ro&immutable=1"
        if before == "rw":
            log.warning("%s cannot be written to and is opened read-only.", self.path)

    def _can_be_written(self) -> bool:
        # The folder too: the log lies there.
        places = self.path, self.path.parent
        return all(os.access(place, os.W_OK, effective_ids=_EFFECTIVE) for place in places)

    def check_writable(self) -> None:
        if self._mode != "rw":
            raise self._unavailable("it is read-only: the file or its folder cannot be written to")

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _warn_of_mount(self) -> None:
        if not self._warned and is_mounted_alone(self.path):
            log.warning(
                "%s is a mount point, and its write-ahead log lies beside it, outside of what is mounted: "
                "callers that are stored may be lost when the container goes. %s.",
                self.path,
                MOUNT_THE_FOLDER.capitalize(),
            )
        self._warned = True

    def _check_no_log(self, what: str) -> None:
        log = self._beside("-wal")
        # In this order: where another process has just created the database, its log came after it.
        if _size_of(log) and not _size_of(self.path):
            raise StorageCorruptError(
                f"{self.path} {what}, and its log {log.name} is still there. Restore the database from a "
                "backup, or delete the log too to start anew. Nothing was changed."
            )

    def _create(self) -> None:
        self._check_no_log("is gone")
        remove_leftovers(self.path)
        new = NewFile(self.path)
        engine = self._engine(new.temporary, NullPool)
        try:
            with engine.connect() as connection, connection.begin():
                self.begin(connection, writes=True)
                migrations.upgrade(connection)
                connection.exec_driver_sql(_NEW)
            self.prepare_engine(engine)
            new.commit(close_first=True)
            sync_folder(self.path.parent)
        finally:
            new.discard()

    def state(self) -> object:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable(error.strerror) from error
        state = status.st_dev, status.st_ino, status.st_size < _SMALLEST
        if self._mode == "rw":
            return state
        log_size = _size_of(self._beside("-wal"))
        if self._mode == "ro":
            return *state, self._can_be_written(), log_size is None
        # SQLite does not look for changes then: whatever changes has the database opened anew.
        return *state, self._can_be_written(), log_size, status.st_size, status.st_mtime_ns

    @contextmanager
    def alone(self) -> Iterator[None]:
        lock = FileLock(f"{self.path}.lock", timeout=BUSY_TIMEOUT_S, mode=0o600)
        try:
            lock.acquire(poll_interval=0.01)
        except Timeout as error:
            raise StorageUnavailableError(
                f"{self.path}: another process has held the lock for {BUSY_TIMEOUT_S:g} s. Try again."
            ) from error
        except OSError as error:
            raise self._unavailable(error.strerror) from error
        try:
            yield
        finally:
            lock.release()

    def engine(self) -> Engine:
        return self._engine(self.path, QueuePool, pool_size=_KEPT_CONNECTIONS, max_overflow=-1)

    def _connector(self, path: Path) -> Callable[[], sqlite3.Connection]:
        # mode=rw: a connection must not make anew, empty and readable for all, what was just removed.
        uri = f"file:{quote(os.fsencode(path))}?mode={self._mode}"

        def connect() -> sqlite3.Connection:
            # Without an isolation level: the driver's own transactions begin too late, and without IMMEDIATE.
            connection = sqlite3.connect(
                uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            guard_locks(path)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            # 32 MB, taken as needed: with the 2 MB by default, a bulk import writes pages many times.
            connection.execute("PRAGMA cache_size=-32000")
            # What is removed is overwritten. Most builds of SQLite leave it in the file.
            connection.execute("PRAGMA secure_delete=ON")
            return connection

        return connect

    def _engine(self, path: Path, pool: type[Any], **options: Any) -> Engine:
        return create_engine(
            "sqlite+pysqlite://",
            creator=self._connector(path),
            poolclass=pool,
            hide_parameters=True,
            execution_options=self._engine_options(),
            **options,
        )

    # Not by a listener to the event "begin": with any listener, SQLAlchemy looks for more of them around
    # each statement, which takes an eighth of the processor time of a save.
    def begin(self, connection: Connection, *, writes: bool, alone: bool = True) -> None:  # noqa: ARG002
        # A writer takes the lock at once: one that has read before may find that another has written
        # since, and SQLite then refuses it, at once and for good.
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)  # noqa: S101  for the types
        driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    def prepare_engine(self, engine: Engine) -> None:
        if self._mode != "rw":
            return
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)  # noqa: S101  for the types
            while driver.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                try:
                    driver.execute("PRAGMA journal_mode=WAL").close()
                except sqlite3.OperationalError as error:
                    # To this statement SQLite does not apply its own waiting.
                    if not self.is_busy(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)

    def check_ours(self, connection: Connection) -> None:
        if migrations.is_ours(connection):
            return
        raise StorageError(
            f"{self.path} is the database of something else: it has tables, and not those of this library. "
            "Use another file. Nothing was changed."
        )

    def upgraded(self, before: str | None) -> None:
        with contextlib.suppress(OSError):  # another's file, which we may write
            self.path.chmod(0o600)
        if before is None:
            with contextlib.closing(self._connector(self.path)()) as connection:
                connection.execute(_NEW)

    def check_log_is_empty(self) -> None:
        log = self.path.with_name(f"{self.path.name}-wal")
        try:
            is_empty = not log.stat().st_size
        except OSError:  # there is none
            return
        if not is_empty:
            raise StorageUnavailableError(
                f"{self.path} was replaced while it was open, and {log.name} is the log of the file that was "
                "there before: SQLite would apply it to this one, and damage it. Stop all processes, remove "
                f"{log.name} and {self.path.name}-shm, and start again; or put the former file back. To "
                "restore a backup under a running service, use `voiceprint restore`. Nothing was changed."
            )

    def mark_removal(self, connection: Connection) -> None:
        if connection.exec_driver_sql("PRAGMA user_version").scalar() == CLEAN:
            connection.exec_driver_sql(f"PRAGMA user_version={PENDING}")

    def removal_is_pending(self, connection: Connection) -> bool:
        return self._mode == "rw" and connection.exec_driver_sql("PRAGMA user_version").scalar() == PENDING

    def erases_quickly(self) -> bool:
        try:
            return self.path.stat().st_size < _QUICKLY
        except OSError:  # it is gone: the next operation tells of that
            return True

    def erase_remains(self, timeout_s: float) -> bool:
        return erase_remains(self.path, self._connector(self.path), timeout_s)

    def is_busy(self, error: Exception) -> bool:
        said = str(getattr(error, "orig", error))
        return "database is locked" in said or "database table is locked" in said

    def translated(self, error: Exception, *, committing: bool = False) -> StorageError:  # noqa: ARG002
        cause = getattr(error, "orig", error)
        if isinstance(cause, UnicodeDecodeError):
            cause = sqlite3.DatabaseError("text that is not UTF-8")
        if not isinstance(cause, sqlite3.Error):
            if isinstance(error, NoFreeConnectionError):
                return self._unavailable("no connection is free")
            return StorageError(f"{self.path} cannot be used ({type(error).__name__}).")
        said = str(cause)
        if any(sign in said for sign in _UNAVAILABLE):
            return self._unavailable(said)
        # This one of SQLite's messages ends in what stands in the record.
        said = said.partition(" column ")[0] if said.startswith("Could not decode") else said
        ours = sqlite3.ProgrammingError | sqlite3.NotSupportedError | sqlite3.DataError
        if isinstance(cause, sqlite3.DatabaseError) and not isinstance(cause, ours):
            return StorageCorruptError(
                f"{self.path} is damaged, or not a database of this library ({said}). Restore it from a "
                "backup. The file was left as it is."
            )
        return StorageError(f"{self.path}: SQLite refused a statement ({said}).")

    def _unavailable(self, why: str | None) -> StorageUnavailableError:
        return StorageUnavailableError(f"{self.path} cannot be used now ({why}). Nothing was changed.")

    def findings(self, connection: Connection) -> list[Finding]:
        damages = connection.exec_driver_sql("PRAGMA integrity_check").all()
        orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        return [
            Finding(
                code="corrupt",
                place=self.name,
                message=f"SQLite finds it damaged ({said}). Restore it from a backup.",
            )
            for (said,) in damages
            if said != "ok"
        ] + [
            Finding(
                code="orphan",
                place=f"table {table}, row {row}",
                message=f"It belongs to nothing in the table {parent}.",
            )
            for table, row, parent, _ in orphans
        ]


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


# Of what SQLite says, what is about the disk and other processes; anything else is about the content.
_UNAVAILABLE = (
    "database is locked",
    "database table is locked",
    "unable to open database file",
    "attempt to write a readonly database",
    "database or disk is full",
    "disk I/O error",
    "locking protocol",
    "interrupted",
    "out of memory",
    "large file support is disabled",
    "access permission denied",
    "authorization denied",
    "not authorized",
)
