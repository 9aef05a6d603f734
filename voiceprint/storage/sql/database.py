"""The connections to one database: transactions, waiting for other processes, upgrades, and forks."""

from __future__ import annotations

import ctypes
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, TypeVar
from weakref import WeakSet

from sqlalchemy import select

from voiceprint import _fork, migrations
from voiceprint.errors import StorageCorruptError, StorageUnavailableError
from voiceprint.storage.presence import StorePresence
from voiceprint.storage.sealed_codec import StoreSeals
from voiceprint.storage.sealing import ON, Sealing, SealingError, check_mark, mark_state
from voiceprint.storage.sql.dialect import BUSY_TIMEOUT_S, Dialect, translated
from voiceprint.storage.sql.eraser import Eraser
from voiceprint.storage.sql.fork_gate import fork_gate
from voiceprint.storage.sql.reader import Reader
from voiceprint.storage.sql.replica import ReadReplica
from voiceprint.storage.sql.tables import store
from voiceprint.storage.sql.writer import Writer

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

T = TypeVar("T")
S = TypeVar("S")

_IDENTITY = select(store.c.identity, store.c.encryption)


class Database:
    """One database. Opening it upgrades the schema; the first write creates it."""

    _opened: ClassVar[WeakSet[Database]] = WeakSet()

    def __init__(
        self, dialect: Dialect, sealing: Sealing | None = None, replica: ReadReplica | None = None
    ) -> None:
        self.dialect = dialect
        self.replica = replica
        self._seals = StoreSeals(sealing, lambda: self._identity or "")
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._state: object = None
        # Of the store that the engine is connected to; None: none yet.
        self._identity: str | None = None
        self.presence = StorePresence(dialect.location)
        self.eraser = Eraser.of(dialect)
        # Engines whose connections belong to the parent process: not used, and never closed.
        self._inherited: list[Engine] = []
        Database._opened.add(self)
        with fork_gate.entered(), translated(self.dialect):
            engine = self._current_engine(create=False)
            if engine is not None:
                try:
                    self._read_replica(engine, lambda _: None)  # another store's is refused at once
                except BaseException:
                    self.release()
                    raise

    def exists(self) -> bool:
        """Whether the database exists and has a schema."""
        with fork_gate.entered(), translated(self.dialect):
            return self._current_engine(create=False) is not None

    def create(self) -> None:
        """Create the database and its schema if missing."""
        with fork_gate.entered(), translated(self.dialect):
            self._current_engine(create=True)

    def _current_engine(self, *, create: bool) -> Engine | None:
        """The engine on the present database; None if it does not exist and is not to be created."""
        state = self.dialect.state()
        engine = self._engine
        if engine is not None and state == self._state and self._identity is not None:
            return engine
        with self._lock:
            if self._engine is None or self.dialect.state() != self._state or self._identity is None:
                return self._open(create)
            return self._engine

    def _open(self, create: bool) -> Engine | None:
        expected = self.presence.is_expected
        create = create and not expected
        self.dialect.prepare(create=create)
        if not self.dialect.exists():
            self.presence.report_missing(expected=expected)
            return None
        state = self.dialect.state()
        file = state[:2] if isinstance(state, tuple) else None  # device and inode
        if self.presence.is_another_file(file):
            self.dialect.check_log_is_empty()
        current = self._engine if state == self._state else None
        engine = current or self.dialect.engine()
        try:
            identity = self._upgraded(engine, create)
            if identity is None:
                self.presence.report_missing(
                    expected=expected, problem="holds no store any more: it was emptied"
                )
            else:
                self.presence.confirm(identity)
                self.presence.record_file(file)
                if self._transact(engine, self.dialect.removal_is_pending, writes=False):
                    self.eraser.removed()
        except BaseException:
            if engine is not current:
                engine.dispose()
            raise
        if engine is not current:
            self.release()
        self._engine, self._state, self._identity = engine, state, identity
        return None if identity is None else engine

    def read(self, work: Callable[[Reader], T], empty: S, *, replica: bool = False) -> T | S:
        """The result of `work` in a transaction on one committed state; `empty` without a database.

        replica: whether a replica may answer, if there is one that has the last revision.
        """
        with fork_gate.entered(), translated(self.dialect):
            engine = self._current_engine(create=False)
            if engine is None:
                return empty
            found = self._read_replica(engine, work) if replica else None
            if found is not None:
                return found[0]
            result = self._transact(
                engine,
                lambda connection: work(
                    Reader(connection, self.dialect.name, self._current_seals(connection))
                ),
                writes=False,
            )
        self.eraser.when_due()
        return result

    def _read_replica(self, engine: Engine, work: Callable[[Reader], T]) -> tuple[T] | None:
        """The result of `work` from the replica; None where the primary, whose engine it is, is to answer."""
        replica = self.replica
        if replica is None:
            return None
        return replica.read(
            lambda ask: self._transact(engine, ask, writes=False),
            lambda connection: work(
                Reader(connection, replica.dialect.name, self._current_seals(connection))
            ),
        )

    def write(self, work: Callable[[Writer], T], *, exclusive: bool = True) -> T:
        """The result of `work` in a transaction that is committed if it ends without an error.

        exclusive: as in `Dialect.begin`.
        """
        with fork_gate.entered(), translated(self.dialect):
            engine = self._current_engine(create=True)
            assert engine is not None  # noqa: S101  it was created
            self.dialect.check_writable()
            return self._transact(
                engine,
                lambda connection: work(Writer(connection, self.dialect, self._current_seals(connection))),
                writes=True,
                exclusive=exclusive,
            )

    def _transact(
        self, engine: Engine, work: Callable[[Connection], T], writes: bool, exclusive: bool = True
    ) -> T:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            begun = done = False
            try:
                with engine.connect() as connection, connection.begin():
                    self.dialect.begin(connection, writes=writes, exclusive=exclusive)
                    begun = True
                    result = work(connection)
                    done = True
                return result  # noqa: TRY300  once it is committed
            except self.dialect.errors as error:
                if self.dialect.tables_missing(error):
                    self._identity = None  # the next call opens the database anew
                if done and writes:
                    raise self.dialect.translated(error, committing=True) from error
                # A read is repeated as a whole; of a write only its beginning.
                if not self.dialect.is_busy(error) or (begun and writes) or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.001, 0.02))  # noqa: S311  not for secrets

    def _upgraded(self, engine: Engine, create: bool) -> str | None:
        """Upgrade the schema; returns the store's identity, None without a store."""
        current = self._transact(engine, migrations.current, writes=False)
        self._transact(engine, self.dialect.check_ours, writes=False)
        if current is None and not create:
            return None
        if current != migrations.HEAD:
            self.dialect.check_writable()
            with self.dialect.upgrade_lock():
                try:
                    self._transact(engine, migrations.upgrade, writes=True)
                except StorageCorruptError as error:
                    raise StorageCorruptError(
                        f"{self.dialect.name} cannot be upgraded: {error} Nothing was changed."
                    ) from error
                self.dialect.upgraded(current)
            # Older versions left removed data in the file.
            if current is not None:
                self.eraser.removed()
        self.dialect.prepare_engine(engine)
        # Only the identity: a damaged counter is reported where it is needed, and `check` repairs it.
        row = self._transact(engine, lambda connection: connection.execute(_IDENTITY).first(), writes=False)
        identity, mark = (str(row[0] or ""), row[1] or "") if row is not None else ("", "")
        self._check_mark(identity, mark)
        return identity

    def _check_mark(self, identity: str, mark: str) -> None:
        """Raise where the store is encrypted under another key."""
        try:
            check_mark(self._seals.sealing, identity, mark)
        except SealingError as error:
            raise StorageCorruptError(f"{self.dialect.name}: {error} Nothing was changed.") from error
        self._seals.mark = mark

    def _current_seals(self, connection: Connection) -> StoreSeals:
        """The seals, which accept plain records only for as long as the store has some."""
        if self._seals.sealing is not None and mark_state(self._seals.mark) != ON:
            row = connection.execute(_IDENTITY).first()
            if row is not None:
                self._check_mark(str(row[0] or ""), row[1] or "")
        return self._seals

    def identity(self) -> str:
        """The identity of the store, read once for each database at this place; "" for none."""
        with fork_gate.entered(), translated(self.dialect):
            self._current_engine(create=False)
            return self._identity or ""

    def release(self) -> None:
        """Close the unused connections; they open again when needed."""
        if self.replica is not None:
            self.replica.release()
        if self._engine is None:
            return
        try:
            state = self.dialect.state()
        except StorageUnavailableError:  # no right to look at the file: closing cannot harm it
            state = None
        if state is None or state == self._state:
            self._engine.dispose()
        else:
            # Another database has taken this place. The last connection to close removes the log by its name,
            # which is now the other's log: these stay open, even when the interpreter ends.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._engine))

    @classmethod
    def release_all(cls) -> None:
        """Before a fork: an SQLite connection that crosses one may damage its file."""
        for database in list(cls._opened):
            database.release()

    @classmethod
    def forget_all(cls) -> None:
        """After a fork, in the child."""
        for database in list(cls._opened):
            database.forget()

    def forget(self) -> None:
        """After a fork: start anew, and leave the connections of the parent alone."""
        self._lock = threading.Lock()
        if self.replica is not None:
            self.replica.forget()
        if self._engine is not None:
            self._inherited.append(self._engine)
        self._engine = None


def schema_revision(dialect: Dialect) -> str | None:
    """The schema revision of a database, None if it has none; nothing is created or upgraded."""
    with translated(dialect):
        dialect.prepare(create=False)
    if not dialect.exists():
        return None
    engine = dialect.engine()
    try:
        with fork_gate.entered(), translated(dialect), engine.connect() as connection:
            return migrations.current(connection)
    finally:
        engine.dispose()


# After the gate's own, which wait for the statements of other threads and reset it in the child.
_fork.register(_fork.Step.STORE, before=Database.release_all, in_child=Database.forget_all)
