"""The connections to one database: transactions, waiting for others, upgrades, and forks."""

from __future__ import annotations

import atexit
import ctypes
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, TypeVar
from weakref import WeakSet

from sqlalchemy import select

from voiceprint import _fork, migrations
from voiceprint.errors import StorageCorruptError, StorageError, StorageUnavailableError
from voiceprint.storage.sightings import Sighting
from voiceprint.storage.sql.dialects import BUSY_TIMEOUT_S, Dialect
from voiceprint.storage.sql.queries import Queries
from voiceprint.storage.sql.tables import store

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

T = TypeVar("T")
S = TypeVar("S")

log = logging.getLogger(__name__)

# How long a change waits for other connections before what it removed is erased by a later operation.
ERASE_S = 1.0
_SPARING = 20

_IDENTITY = select(store.c.identity)


class _Gate:
    """No fork happens while another thread is inside the database library, whose locks would then stay
    locked in the child for ever."""

    PATIENCE_S = 10.0

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside: Counter[int] = Counter()
        self._forking = False

    @contextmanager
    def entered(self) -> Iterator[None]:
        me = threading.get_ident()
        with self._condition:
            while self._forking and me not in self._inside:
                self._condition.wait()
            self._inside[me] += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                    self._condition.notify_all()

    def before_fork(self) -> None:
        me = threading.get_ident()
        with self._condition:
            self._forking = True
            self._condition.wait_for(lambda: set(self._inside) <= {me}, timeout=self.PATIENCE_S)
        for database in list(Database.opened):
            # What is closed is not inherited: an SQLite connection that crosses a fork may damage its file.
            database.release()

    def after_in_parent(self) -> None:
        with self._condition:
            self._forking = False
            self._condition.notify_all()

    def after_in_child(self) -> None:
        me = threading.get_ident()
        inside = self._inside[me]
        self.__init__()  # type: ignore[misc]
        if inside:
            self._inside[me] = inside
        for database in list(Database.opened):
            database.forget()
        Eraser.forget_all()


class Eraser:
    """Erases from the disk what this process has removed from the database at one location.

    All handles of the process share it, as a service may open its store for every call. No more than a
    twentieth of the time goes into it, and where it takes long, it goes on in a thread.
    """

    _all: ClassVar[dict[str, Eraser]] = {}
    _all_lock: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def of(cls, dialect: Dialect) -> Eraser:
        """The process's one for the location of this database."""
        with cls._all_lock:
            return cls._all.setdefault(dialect.location, cls(dialect))

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._state: object = None  # of the database that something was removed from
        self._remains = False
        # By the monotonic clock: for a large database, and for one that others hold up.
        self._not_before = self._held_up_until = 0.0
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None

    def removed(self) -> None:
        """Something was removed, and the change is committed."""
        self._state = self._dialect.state()
        self._remains = True

    def when_due(self) -> None:
        """Erase what was removed: now, or where it takes long in a thread, not too soon after the last."""
        if not self._remains:
            return
        if self._dialect.erases_quickly():
            if time.monotonic() >= self._held_up_until:
                self.now(ERASE_S)
        elif time.monotonic() < self._not_before:
            return
        elif self._thread is None or not self._thread.is_alive():
            log.info(
                "%s: what was removed is being erased from the disk in the background, which takes some "
                "seconds in a large database. flush_removals waits for it.",
                self._dialect.name,
            )
            self._thread = threading.Thread(
                target=self.now, args=(ERASE_S,), name="voiceprint-erasure", daemon=True
            )
            self._thread.start()

    def now(self, timeout_s: float) -> bool:
        """Erase what was removed; False, and a line in the log, where it cannot be done yet."""
        with self._turn:
            if not self._remains:
                return True
            began = time.monotonic()
            try:
                with _gate.entered(), translated(self._dialect):
                    self._remains = False  # before: another thread may remove something meanwhile
                    if self._dialect.state() != self._state:
                        return True  # the file was replaced: there is nothing in this one to erase
                    done, why = self._dialect.erase_remains(timeout_s), "other connections are using it"
            except StorageError as error:  # the change itself is committed
                done, why = False, str(error)
            now = time.monotonic()
            self._not_before = now + _SPARING * (now - began)
            if not done:
                self._remains = True
                self._held_up_until = self._not_before
                log.warning(
                    "%s: what was removed cannot be erased from the disk yet (%s). It is gone from the "
                    "store; the next operations try again, and flush_removals waits for it.",
                    self._dialect.name,
                    why,
                )
            return done

    def at_the_end(self) -> None:
        """Erase what was removed, as a handle is closed; what takes long is left to a thread."""
        if self._dialect.erases_quickly():
            self.now(ERASE_S)
        else:
            self.when_due()

    @classmethod
    def _finish(cls) -> None:
        """At the end of the process: erase what is left."""
        for eraser in list(cls._all.values()):
            eraser.now(ERASE_S)

    @classmethod
    def forget_all(cls) -> None:
        """After a fork: what the parent removed is the parent's to erase."""
        cls._all_lock = threading.Lock()
        for eraser in cls._all.values():
            eraser.__init__(eraser._dialect)  # type: ignore[misc]


atexit.register(Eraser._finish)


class Database:
    """One database. Opening it upgrades the schema; the first write creates one."""

    opened: ClassVar[WeakSet[Database]] = WeakSet()

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._state: object = None
        # Of the store that the engine is on; None where there is none yet.
        self._identity: str | None = None
        self._sighting = Sighting(dialect.location)
        self.eraser = Eraser.of(dialect)
        # Engines whose connections are another process's: not used, and never closed.
        self._inherited: list[Engine] = []
        Database.opened.add(self)
        with _gate.entered(), translated(self.dialect):
            self._connect()

    def exists(self) -> bool:
        """Whether there is a database, with a schema."""
        with _gate.entered(), translated(self.dialect):
            return self._connect() is not None

    def create(self) -> None:
        """Make the database, and its schema, if there is none."""
        with _gate.entered(), translated(self.dialect):
            self._create()

    def _connect(self) -> Engine | None:
        """The engine on the database that is in place now; None where there is none yet."""
        return self._opened(create=False)

    def _create(self) -> Engine:
        """The engine on the database that is in place now; one is made where there is none yet."""
        engine = self._opened(create=True)
        assert engine is not None  # noqa: S101  for the types
        return engine

    def _opened(self, *, create: bool) -> Engine | None:
        state = self.dialect.state()
        engine = self._engine
        if engine is not None and state == self._state and self._identity is not None:
            return engine
        with self._lock:
            if self._engine is None or self.dialect.state() != self._state or self._identity is None:
                return self._open(create)
            return self._engine

    def _open(self, create: bool) -> Engine | None:
        expected = self._sighting.expected
        create = create and not expected
        self.dialect.prepare(create=create)
        if not self.dialect.exists():
            self._sighting.missing(expected=expected)
            return None
        state = self.dialect.state()
        file = state[:2] if isinstance(state, tuple) else None  # device and inode
        if self._sighting.is_another_file(file):
            self.dialect.check_log_is_empty()
        known = self._engine if state == self._state else None
        engine = known or self.dialect.engine()
        try:
            identity = self._upgraded(engine, create)
            if identity is None:
                self._sighting.missing(expected=expected, what="holds no store any more: it was emptied")
            else:
                self._sighting.found(identity)
                self._sighting.file_found(file)
                if self._transact(engine, self.dialect.removal_is_pending, writes=False):
                    self.eraser.removed()
        except BaseException:
            if engine is not known:
                engine.dispose()
            raise
        if engine is not known:
            self.release()
        self._engine, self._state, self._identity = engine, state, identity
        return None if identity is None else engine

    def read(self, work: Callable[[Queries], T], empty: S) -> T | S:
        """What `work` gives, in a transaction that sees one committed state; `empty` without a database."""
        with _gate.entered(), translated(self.dialect):
            engine = self._connect()
            if engine is None:
                return empty
            result = self._transact(engine, self._working(work), writes=False)
        self.eraser.when_due()
        return result

    def write(self, work: Callable[[Queries], T], *, alone: bool = True) -> T:
        """What `work` gives, in a transaction that is committed when it ends without an error.

        alone: as `Dialect.begin`.
        """
        with _gate.entered(), translated(self.dialect):
            engine = self._create()
            self.dialect.check_writable()
            return self._transact(engine, self._working(work), writes=True, alone=alone)

    def _working(self, work: Callable[[Queries], T]) -> Callable[[Connection], T]:
        return lambda connection: work(Queries(connection, self.dialect.name))

    def _transact(
        self, engine: Engine, work: Callable[[Connection], T], writes: bool, alone: bool = True
    ) -> T:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            begun = done = False
            try:
                with engine.connect() as connection, connection.begin():
                    self.dialect.begin(connection, writes=writes, alone=alone)
                    begun = True
                    result = work(connection)
                    done = True
                return result  # noqa: TRY300  once it is committed
            except self.dialect.errors as error:
                if self.dialect.is_gone(error):
                    self._identity = None  # the next call looks at what is there now
                if done and writes:
                    raise self.dialect.translated(error, committing=True) from error
                # A read may be tried again as a whole; of a write only its beginning.
                if not self.dialect.is_busy(error) or (begun and writes) or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.001, 0.02))  # noqa: S311  not for secrets

    def _upgraded(self, engine: Engine, create: bool) -> str | None:
        """Bring the schema up to date; gives the store's identity, None where there is and will be none."""
        current = self._transact(engine, migrations.current, writes=False)
        self._transact(engine, self.dialect.check_ours, writes=False)
        if current is None and not create:
            return None
        if current != migrations.HEAD:
            self.dialect.check_writable()
            with self.dialect.alone():
                try:
                    self._transact(engine, migrations.upgrade, writes=True)
                except StorageCorruptError as error:
                    raise StorageCorruptError(
                        f"{self.dialect.name} cannot be upgraded: {error} Nothing was changed."
                    ) from error
                self.dialect.upgraded(current)
            # Older versions left in the file what they removed.
            if current is not None:
                self.eraser.removed()
        self.dialect.prepare_engine(engine)
        # Not more of it: a damaged counter is told of by what needs it, and `check` repairs it.
        identity = self._transact(engine, lambda connection: connection.scalar(_IDENTITY), writes=False)
        return str(identity or "")

    def identity(self) -> str:
        """The identity of the store, read once for each database that is in this place; "" for none."""
        with _gate.entered(), translated(self.dialect):
            self._connect()
            return self._identity or ""

    def release(self) -> None:
        """Close the connections that nobody is using; they open again by themselves."""
        if self._engine is None:
            return
        try:
            state = self.dialect.state()
        except StorageUnavailableError:  # it cannot be looked at: then nothing is there to be harmed
            state = None
        if state is None or state == self._state:
            self._engine.dispose()
        else:
            # Another database is in this place by now. The last connection to close removes the log by its
            # name, and that is the other's log: these stay open, even when the interpreter ends.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._engine))

    def forget(self) -> None:
        """After a fork: start anew, and leave alone what belongs to the parent."""
        self._lock = threading.Lock()
        if self._engine is not None:
            self._inherited.append(self._engine)
        self._engine = None


@contextmanager
def translated(dialect: Dialect) -> Iterator[None]:
    """What the database raises becomes one of our errors."""
    try:
        yield
    except dialect.errors as error:
        ours = dialect.translated(error)
        # A message about text that is not UTF-8 quotes the text.
        quotes = isinstance(error, UnicodeDecodeError) or "Could not decode" in str(error)
        raise ours from (None if quotes else error)


def schema_revision(dialect: Dialect) -> str | None:
    """The schema revision of a database, None where there is none; nothing is created or upgraded."""
    with translated(dialect):
        dialect.prepare(create=False)
    if not dialect.exists():
        return None
    engine = dialect.engine()
    try:
        with _gate.entered(), translated(dialect), engine.connect() as connection:
            return migrations.current(connection)
    finally:
        engine.dispose()


_gate = _Gate()
_fork.register(
    _fork.Step.STORE,
    before=_gate.before_fork,
    in_parent=_gate.after_in_parent,
    in_child=_gate.after_in_child,
)
