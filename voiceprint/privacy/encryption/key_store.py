"""A database of its own for the wrapped data keys, apart from the records and their copies.

The record of a caller then holds a reference: 1 byte (its form), 8 bytes (the id of the key store), and 16
random bytes, the id of the key. Two tables:

    voiceprint_key_store   one row: the id of the key store
    voiceprint_keys        id of the key; store, the identity of the store of the record; wrapped, the data
                           key under a master key, NULL once it is forgotten; leaving, whether a removal of
                           the record has begun

The row of a forgotten key stays, without the key: a key that is missing altogether belongs to a newer copy of
the key store, and must not count as forgotten.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from voiceprint import _fork
from voiceprint._files import expanded
from voiceprint.errors import ConfigurationError, StorageCorruptError, StorageUnavailableError
from voiceprint.privacy.encryption.primitives import STORE_ID_BYTES
from voiceprint.storage.sql.dialect import dialect_of
from voiceprint.storage.sql.sqlite_erasure import CLEAN, erase_remains
from voiceprint.storage.urls import sqlite_path
from voiceprint.validation import hide_passwords, is_postgresql_url

__all__ = ["KeyStore"]

_CHUNK = 500  # ids of one statement: some databases take no more than 999 parameters
_PAGE = 1_000  # keys of one transaction of a rotation, for which removals wait
_WAIT_S = 30.0  # for the lock of an SQLite file: a writer holds it for some ms

_metadata = MetaData()
_head = Table("voiceprint_key_store", _metadata, Column("id", LargeBinary, primary_key=True))
_keys = Table(
    "voiceprint_keys",
    _metadata,
    # By a running number: SQLite then only appends, and moves no key to another page.
    Column("number", Integer, primary_key=True),
    Column("id", LargeBinary, nullable=False, unique=True),
    Column("store", String(64), nullable=False, index=True),
    Column("wrapped", LargeBinary),
    Column("leaving", Boolean, nullable=False),
)


class KeyStore:
    """Wrapped data keys by their ids. All methods may be called from many threads, and after a fork.

    place: the path of an SQLite file, which is created for its owner alone, or the URL of a PostgreSQL
    database; raises `ConfigurationError` for another one. path: of the file, None for a database on a server.

    Every method may raise `StorageUnavailableError` where the database cannot be used; nothing was changed
    then.
    """

    _opened: ClassVar[weakref.WeakSet[KeyStore]] = weakref.WeakSet()
    _replaced: ClassVar[list[Engine]] = []

    def __init__(self, place: str) -> None:
        self.path: Path | None = None
        self._errors: tuple[type[Exception], ...] = (SQLAlchemyError,)
        scheme, colon, rest = place.partition(":")
        if colon and scheme != "sqlite" and rest.startswith("//"):
            if not is_postgresql_url(place):
                raise ConfigurationError(
                    f"VOICE_ENCRYPTION_KEYS is {hide_passwords(place)!r}: give the path of a file, or the "
                    "URL of a PostgreSQL database."
                )
            dialect = dialect_of(place)
            self.location, self._engine, self._errors = dialect.location, dialect.engine(), dialect.errors
        else:
            try:
                self.path = expanded(sqlite_path(rest) if scheme == "sqlite" and colon else place).absolute()
            except OSError as error:
                raise ConfigurationError(f"VOICE_ENCRYPTION_KEYS: {error.strerror}.") from error
            self.location = str(self.path)
            self._engine = _sqlite_engine(self.location)
        self._id: bytes | None = None
        self._file = self._file_now()
        self._opened.add(self)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # Without the attribute it was refused. At the end of the process the modules are half gone, `sys` of
        # this one too, and the system closes the connections.
        if hasattr(self, "_file") and not is_finalizing():
            self.close()

    def close(self) -> None:
        """Close the unused connections; the next use opens new ones."""
        if self._file == self._file_now():
            self._engine.dispose()

    @classmethod
    def close_all(cls) -> None:
        """Before a fork: a connection that crosses one may damage its file."""
        for key_store in list(cls._opened):
            key_store.close()

    def __repr__(self) -> str:
        return f"KeyStore({self.location})"

    @property
    def id(self) -> bytes:
        """8 bytes that name the key store; it is created at the first use."""
        self._engine_here()  # may find another file
        found = self._id or self._open()
        self._id = found
        return found

    def add(self, store: str, wrapped: Mapping[bytes, bytes]) -> None:
        """Add keys by their ids, durably; store: the identity of the store of the records."""
        rows = [{"id": id_, "store": store, "wrapped": key, "leaving": False} for id_, key in wrapped.items()]
        if rows:
            with self._changing() as connection:
                connection.execute(insert(_keys), rows)

    def find(self, ids: Iterable[bytes]) -> dict[bytes, bytes | None]:
        """The keys of those ids that the key store has, None for a forgotten one."""
        found: dict[bytes, bytes | None] = {}
        wanted = iter(dict.fromkeys(ids))
        with self._connected() as connection:
            while chunk := list(islice(wanted, _CHUNK)):
                rows = connection.execute(select(_keys.c.id, _keys.c.wrapped).where(_keys.c.id.in_(chunk)))
                found.update((bytes(id_), None if key is None else bytes(key)) for id_, key in rows)
        return found

    def leave(self, ids: Iterable[bytes]) -> None:
        """Note that the records of these keys are about to be removed."""
        self._update(ids, {"leaving": True})

    def leaving(self, store: str) -> list[bytes]:
        """The ids of the keys of a store that were noted and not forgotten."""
        wanted = select(_keys.c.id).where(
            _keys.c.store == store, _keys.c.leaving.is_(True), _keys.c.wrapped.is_not(None)
        )
        with self._connected() as connection:
            return [bytes(id_) for id_ in connection.execute(wanted).scalars()]

    def forget(self, ids: Iterable[bytes]) -> None:
        """Remove the keys of these ids, also from the files of an SQLite database."""
        if self._update(ids, {"wrapped": None, "leaving": True}) and self.path is not None:
            path = self.path

            def connect() -> sqlite3.Connection:
                connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
                _prepare(connection)
                return connection

            try:
                erased = erase_remains(path, connect, _WAIT_S)
            except (OSError, sqlite3.Error) as error:
                raise self._unavailable() from error
            if not erased:
                raise StorageUnavailableError(
                    f"The key is removed from the key store {self.location}, and other connections kept its "
                    "former place in the file from being overwritten: forget another key, or run "
                    "`voiceprint check --fix`, when they are closed."
                )

    def rewrap(self, change: Callable[[bytes, bytes], bytes | None]) -> int:
        """Replace each key by what `change` makes of its id and itself, unless that is None.

        Returns the number of changed keys. Works page by page; others read and write meanwhile.
        """
        changed, after = 0, 0
        page = select(_keys.c.number, _keys.c.id, _keys.c.wrapped).order_by(_keys.c.number).limit(_PAGE)
        while True:
            with self._changing() as connection:
                rows = connection.execute(page.where(_keys.c.number > after)).all()
                for number, id_, wrapped in rows:
                    new = None if wrapped is None else change(bytes(id_), bytes(wrapped))
                    if new is not None:
                        # Only if it is still the same: a removal may have come between.
                        same = (_keys.c.number == number) & (_keys.c.wrapped == wrapped)
                        changed += connection.execute(update(_keys).where(same).values(wrapped=new)).rowcount
            if len(rows) < _PAGE:
                return changed
            after = rows[-1][0]

    def _update(self, ids: Iterable[bytes], values: dict[str, Any]) -> bool:
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return False
        with self._changing() as connection:
            for start in range(0, len(wanted), _CHUNK):
                chunk = wanted[start : start + _CHUNK]
                connection.execute(update(_keys).where(_keys.c.id.in_(chunk)).values(values))
        return True

    def _open(self) -> bytes:
        if self.path is not None:
            try:
                with suppress(FileExistsError):  # an existing one keeps its mode
                    os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            except OSError as error:
                raise self._unavailable() from error
        for attempt in (1, 2):
            try:
                with self._begun() as connection:
                    _metadata.create_all(connection)
                    if connection.execute(select(_head.c.id)).first() is None:
                        connection.execute(insert(_head).values(id=secrets.token_bytes(STORE_ID_BYTES)))
                with self._begun() as connection:
                    ids = [bytes(each) for each in connection.execute(select(_head.c.id)).scalars()]
                break
            except self._errors as error:  # another process has created it meanwhile
                if attempt == 2:
                    raise self._unavailable() from error
        # Of two processes that created it at once, both take the lower id.
        id_ = min(ids)
        if len(id_) != STORE_ID_BYTES:
            raise StorageCorruptError(f"The key store {self.location} has no id. Nothing was changed.")
        return id_

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        self.id  # noqa: B018  creates the tables
        try:
            with self._begun() as connection:
                yield connection
        except self._errors as error:
            raise self._unavailable() from error

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        self.id  # noqa: B018  creates the tables
        try:
            with self._engine_here().connect() as connection:
                yield connection
        except self._errors as error:
            raise self._unavailable() from error

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        with self._engine_here().connect() as connection:  # its end takes back what is not committed
            if self.path is not None:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def _file_now(self) -> tuple[int, int] | None:
        """Device and inode of the file; None without one."""
        try:
            status = self.path.stat() if self.path is not None else None
        except OSError:  # connecting reports it
            return None
        return None if status is None else (status.st_dev, status.st_ino)

    def _engine_here(self) -> Engine:
        present = self._file_now()
        if present != self._file:
            if self._file is not None:
                # Another file is in this place: the last connection to close would remove its log, by name.
                self._replaced.append(self._engine)
                self._engine, self._id = _sqlite_engine(self.location), None
            self._file = present
        return self._engine

    def _unavailable(self) -> StorageUnavailableError:
        return StorageUnavailableError(
            f"The key store {self.location} cannot be used: check VOICE_ENCRYPTION_KEYS, and its rights."
        )


def _sqlite_engine(path: str) -> Engine:
    engine = create_engine(URL.create("sqlite", database=path), connect_args={"timeout": _WAIT_S})
    event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: sqlite3.Connection, _: object = None) -> None:
    """Settings of every connection to an SQLite file."""
    connection.isolation_level = None  # transactions begin by BEGIN IMMEDIATE
    connection.execute("PRAGMA secure_delete=ON")
    connection.execute("PRAGMA synchronous=FULL")  # a key must be on the disk before its record
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA user_version={CLEAN}")  # nothing was removed without `secure_delete`


_fork.register(_fork.Step.STORE, before=KeyStore.close_all)
