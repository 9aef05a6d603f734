"""SQLite: a database in one file."""

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
from typing import Any
from urllib.parse import quote

import orjson
from filelock import FileLock, Timeout
from sqlalchemy import URL, ColumnElement, Connection, Engine, create_engine, func, literal_column
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoFreeConnectionError
from sqlalchemy.pool import NullPool, QueuePool

from voiceprint import migrations
from voiceprint._files import (
    MOUNT_THE_FOLDER,
    NewFile,
    guard_locks,
    is_mounted_alone,
    kind_of,
    remove_leftovers,
    sync_folder,
)
from voiceprint.errors import ConfigurationError, StorageCorruptError, StorageError, StorageUnavailableError
from voiceprint.models import Finding
from voiceprint.storage.sql.dialect import BUSY_TIMEOUT_S, Dialect
from voiceprint.storage.sql.sqlite_erasure import CLEAN, PENDING, erase_remains

__all__ = ["SQLite"]

log = logging.getLogger(__name__)

_EFFECTIVE = os.access in os.supports_effective_ids

# Bytes of the smallest page, and so of the smallest database. SQLite takes a smaller file for an empty one.
_SMALLEST = 512

# Marks databases that were created with `secure_delete`. Older ones still hold removed data.
_NEW = f"PRAGMA user_version={CLEAN}"

# Bytes of a database whose pages are searched in 0.05 s, at 2.7 ms a MB (13,000 voiceprints).
_QUICKLY = 20_000_000

# Connections that stay open for later threads; more may be open at a time.
_POOL_SIZE = 8


class SQLite(Dialect):
    """A database in one file, with its write-ahead log beside it."""

    # UnicodeDecodeError: a message of SQLite about a damaged schema may quote bytes that are not UTF-8.
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
        # By os.path, which ignores an unknown "~user" and a loop of links: opening reports them.
        self.path: Path = Path(os.path.realpath(os.path.expanduser(path)))  # noqa: PTH111
        self.name = str(self.path)
        self.location = f"sqlite:{self.path}"
        self._warned = False
        # Of opening: "rw"; "ro" if the file cannot be written; "ro&immutable=1" if the index of the log
        # cannot be created either.
        self._mode = "rw"

    def exists(self) -> bool:
        return self.state() is not None

    def prepare(self, *, create: bool) -> None:
        """As `Dialect.prepare`; a new database appears as a whole, or not at all."""
        try:
            if self.path.exists():
                self._check_file(self.path.stat())
                return
            if not create:
                self._check_no_log("is gone")
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.upgrade_lock():
                if not self.path.exists():
                    self._create()
        except OSError as error:
            raise self._unavailable(error.strerror or type(error).__name__) from error

    def _check_file(self, status: os.stat_result) -> None:
        """Check the file and choose the mode of opening. SQLite itself would wait for a pipe."""
        if not stat.S_ISREG(status.st_mode):
            raise self._unavailable(f"it is {kind_of(status.st_mode)}, not a file")
        if status.st_size == 0:  # as `touch` makes it: SQLite takes it for a database without tables
            self._check_no_log("is empty")
        elif status.st_size < _SMALLEST:
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
            return  # SQLite reports it
        log_size = _size_of(self._beside("-wal"))
        if log_size is not None and self._beside("-shm").exists():
            # A writer is at work, or has left its log: SQLite reads both.
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
        # The folder too, for the log.
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
                "%s is a mount point, and its write-ahead log lies beside it, outside of the mount: stored "
                "callers may be lost with the container. %s.",
                self.path,
                MOUNT_THE_FOLDER.capitalize(),
            )
        self._warned = True

    def _check_no_log(self, problem: str) -> None:
        log = self._beside("-wal")
        # In this order: another process may just be creating the database, and its log after it.
        if _size_of(log) and not _size_of(self.path):
            raise StorageCorruptError(
                f"{self.path} {problem}, and its log {log.name} is still there. Restore the database from a "
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
        # SQLite does not check for changes in this mode: every change of the file opens the database anew.
        return *state, self._can_be_written(), log_size, status.st_size, status.st_mtime_ns

    @contextmanager
    def upgrade_lock(self) -> Iterator[None]:
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
        return self._engine(self.path, QueuePool, pool_size=_POOL_SIZE, max_overflow=-1)

    def _connector(self, path: Path) -> Callable[[], sqlite3.Connection]:
        # mode=rw: a connection must not re-create a file that was just removed, empty and readable for all.
        uri = f"file:{quote(os.fsencode(path))}?mode={self._mode}"

        def connect() -> sqlite3.Connection:
            # Without an isolation level: the driver's own transactions begin too late and without IMMEDIATE.
            connection = sqlite3.connect(
                uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            guard_locks(path)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            # 32 MB, taken as needed: with the 2 MB by default, a bulk import writes pages many times.
            connection.execute("PRAGMA cache_size=-32000")
            # Overwrite removed data. Most builds of SQLite leave it in the file.
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

    # Not by a listener to the event "begin": with any listener, SQLAlchemy searches for others around each
    # statement, an eighth of the processor time of a save.
    def begin(self, connection: Connection, *, writes: bool, exclusive: bool = True) -> None:  # noqa: ARG002
        # A writer takes the lock at once: SQLite refuses one that has read first if another has written
        # since.
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)  # noqa: S101  for the types
        driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    def metadata_value(self, key: str) -> str:
        return f"json_extract(metadata, {_path_of(key)})"

    def metadata_conditions(
        self, values: dict[str, Any], by_index: str | None
    ) -> list[list[ColumnElement[bool]]]:
        # The same function of the value asked for, so that both sides are cut at a NUL character alike. A
        # plus keeps SQLite, which does not know how many callers have a value, from another key's index.
        return [
            [
                literal_column(f"{'' if key == by_index else '+'}{self.metadata_value(key)}")
                == func.json_extract(orjson.dumps({key: value}).decode(), literal_column(_path_of(key)))
                for key, value in values.items()
            ]
        ]

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
                    # For this statement SQLite does not wait by itself.
                    if not self.is_busy(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)

    def check_ours(self, connection: Connection) -> None:
        if migrations.is_ours(connection):
            return
        raise StorageError(
            f"{self.path} is the database of another program: it has tables, and not those of this library. "
            "Use another file. Nothing was changed."
        )

    def upgraded(self, before: str | None) -> None:
        with contextlib.suppress(OSError):  # the file of another user, which we may write
            self.path.chmod(0o600)
        if before is None:
            with contextlib.closing(self._connector(self.path)()) as connection:
                connection.execute(_NEW)

    def check_log_is_empty(self) -> None:
        log = self._beside("-wal")
        if _size_of(log):
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
        except OSError:  # it has vanished: the next operation reports that
            return True

    def erase_remains(self, timeout_s: float) -> bool:
        return erase_remains(self.path, self._connector(self.path), timeout_s)

    def is_busy(self, error: Exception) -> bool:
        text = str(getattr(error, "orig", error))
        return "database is locked" in text or "database table is locked" in text

    def translated(self, error: Exception, *, committing: bool = False) -> StorageError:  # noqa: ARG002
        cause = getattr(error, "orig", error)
        if isinstance(cause, UnicodeDecodeError):
            cause = sqlite3.DatabaseError("text that is not UTF-8")
        if not isinstance(cause, sqlite3.Error):
            if isinstance(error, NoFreeConnectionError):
                return self._unavailable("no connection is free")
            return StorageError(f"{self.path} cannot be used ({type(error).__name__}).")
        text = str(cause)
        if any(part in text for part in _UNAVAILABLE):
            return self._unavailable(text)
        # This one of SQLite's messages quotes the record.
        text = text.partition(" column ")[0] if text.startswith("Could not decode") else text
        ours = sqlite3.ProgrammingError | sqlite3.NotSupportedError | sqlite3.DataError
        if isinstance(cause, sqlite3.DatabaseError) and not isinstance(cause, ours):
            return StorageCorruptError(
                f"{self.path} is damaged, or not a database of this library ({text}). Restore it from a "
                "backup. The file was left as it is."
            )
        return StorageError(f"{self.path}: SQLite refused a statement ({text}).")

    def _unavailable(self, why: str | None) -> StorageUnavailableError:
        return StorageUnavailableError(f"{self.path} cannot be used now ({why}). Nothing was changed.")

    def findings(self, connection: Connection) -> list[Finding]:
        damages = connection.exec_driver_sql("PRAGMA integrity_check").all()
        orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        return [
            Finding(
                code="corrupt",
                place=self.name,
                message=f"SQLite finds it damaged ({text}). Restore it from a backup.",
            )
            for (text,) in damages
            if text != "ok"
        ] + [
            Finding(
                code="orphan",
                place=f"table {table}, row {row}",
                message=f"It refers to no row of the table {parent}.",
            )
            for table, row, parent, _ in orphans
        ]


def _path_of(key: str) -> str:
    """SQL of the path of a top-level key of a JSON object."""
    return f"'$.\"{key}\"'"


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


# Messages of SQLite about the disk and other processes. All others are about the content.
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
