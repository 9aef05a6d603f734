"""The SQL stores: callers in the tables of a database.

Opening the first store imports SQLAlchemy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError, StorageCorruptError
from voiceprint.models import RESEMBLYZER_SPACE, Caller, ErasedPlace, Finding, Voiceprint
from voiceprint.storage.arguments import (
    cached_snapshot_path,
    check_after,
    check_caller_ids,
    check_ids,
    check_limit,
    check_page,
    check_position,
    snapshot_path_beside,
    with_progress,
)
from voiceprint.storage.base import (
    DEFAULT_BATCH,
    DEFAULT_MAX_CONNECTIONS,
    DEFAULT_MAX_VOICEPRINTS,
    DEFAULT_PAGE,
    FLUSH_S,
    REWRITE_S,
    START,
    Batch,
    Changes,
    ConsistentView,
    Deletion,
    LineTable,
    Position,
    Progress,
    SpaceCounts,
    Storage,
)
from voiceprint.storage.data_keys import KeyedChanges
from voiceprint.storage.deletions import check_deletion
from voiceprint.storage.metadata_search import MetadataFilter
from voiceprint.storage.presence import StorePresence
from voiceprint.storage.records import as_arrays
from voiceprint.storage.sealing import Sealing
from voiceprint.storage.snapshot_files import erase_snapshots
from voiceprint.storage.state import StoreState
from voiceprint.storage.transaction import Transaction, check_incoming
from voiceprint.validation import check_caller_id, check_time, now, shown

if TYPE_CHECKING:
    from sqlalchemy import URL

    from voiceprint.storage.sql.reader import Reader
    from voiceprint.storage.sql.writer import Writer

__all__ = ["SQLStorage", "SQLiteStorage"]

T = TypeVar("T")
S = TypeVar("S")

# Each is some ten relations, all of which a statement may lock: a server can lock 6,400 by default.
_FEWEST_PARTITIONS, _MOST_PARTITIONS = 2, 128


class SQLStorage(Storage):
    """Callers in a database, shared by threads and processes.

    Opening the store upgrades the tables; the first save creates them. Tested on SQLite and PostgreSQL.

    url: sqlite:///voiceprints.db, or postgresql://USER:PASSWORD@HOST:PORT/DATABASE with the parameters of
    libpq, such as several hosts, TLS and a schema; PostgreSQL needs the extra `postgresql`. A store is in one
    schema of a database: the current one, by default `public`.

    read_url: a streaming replica of a PostgreSQL store, which answers reads of records where it has the last
    revision. max_connections: to a PostgreSQL server, of this store; as many again to the replica.

    Raises `ConfigurationError` for a bad URL, and for a replica of another store.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS,
        encryption: Sealing | None = None,
        read_url: str | None = None,
        max_connections: int = DEFAULT_MAX_CONNECTIONS,
    ) -> None:
        super().__init__(max_voiceprints_per_caller=max_voiceprints_per_caller, encryption=encryption)
        from voiceprint.storage.sql.database import Database
        from voiceprint.storage.sql.dialect import dialect_of
        from voiceprint.storage.sql.replica import replica_of

        self._dialect = dialect_of(url, max_connections)
        self._add_default_snapshot_place()
        replica = None if read_url is None else replica_of(url, read_url, max_connections)
        self._database = Database(self._dialect, encryption, replica)
        self.presence: StorePresence = self._database.presence

    @property
    def location(self) -> str:
        return self._dialect.location

    def files(self) -> list[Path]:
        path = self._dialect.path
        ends = ("", "-wal", "-shm", "-journal", ".lock")
        return [] if path is None else [path.with_name(path.name + end) for end in ends]

    def record_files(self) -> list[Path]:
        # Without the index of SQLite's log: it holds only page numbers, and SQLite's locks, which closing a
        # second descriptor of it would release.
        return [path for path in self.files() if not path.name.endswith("-shm")]

    def open_for_search(self, path: Path) -> AbstractContextManager[int]:
        if path != self._dialect.path:
            return super().open_for_search(path)
        from voiceprint.storage.sql.sqlite_erasure import pinned

        return nullcontext(pinned(path))

    def default_snapshot_path(self) -> Path:
        path = self._dialect.path
        return cached_snapshot_path(self.location) if path is None else snapshot_path_beside(path)

    def line_table(self) -> LineTable:
        from voiceprint.storage.sql.line_table import SQLLineTable

        return SQLLineTable(self._dialect)

    def exists(self) -> bool:
        self._check_open()
        return self._database.exists()

    def create(self) -> None:
        """Create an empty store if it is missing, as the first save does."""
        self._check_open()
        self._database.create()

    def identity(self) -> str:
        self._check_open()
        return self._database.identity()

    # Writing

    def save_many(
        self,
        voiceprints: Iterable[Voiceprint],
        *,
        max_voiceprints: int | None = None,
        require_consent: bool = False,
        progress: Progress | None = None,
    ) -> list[Voiceprint]:
        limit = check_limit(max_voiceprints, self.max_voiceprints_per_caller)
        prints = list(voiceprints)  # before the transaction: the iterable may be slow, or use this store
        sound = [voiceprint for voiceprint in prints if isinstance(voiceprint, Voiceprint)]
        names = dict.fromkeys(voiceprint.caller_id for voiceprint in sound)
        return self._change(
            names,
            lambda transaction: [
                transaction.save(voiceprint, limit, require_consent=require_consent)
                for voiceprint in with_progress(prints, progress)
            ],
            spaces={voiceprint.encoder for voiceprint in sound},
            creates=bool(prints),
        )

    def restore_many(self, callers: Iterable[Caller], *, progress: Progress | None = None) -> int:
        given = check_incoming(callers)
        prints = [voiceprint for caller in given for voiceprint in caller.voiceprints]
        return self._change(
            dict.fromkeys(caller.caller_id for caller in given),
            lambda transaction: sum(transaction.restore(caller) for caller in with_progress(given, progress)),
            ids=[voiceprint.id for voiceprint in prints if voiceprint.id is not None],
            spaces={voiceprint.encoder for voiceprint in prints},
            creates=bool(given),
        )

    def _transact(
        self,
        caller_ids: list[str],
        work: Callable[[Transaction], T],
        *,
        creates: bool = False,
        fresh: int = 0,  # noqa: ARG002  ids need no reservation
    ) -> T:
        return self._change(caller_ids, work, creates=creates)

    def touch(self, caller_id: str, when: str | None = None) -> bool:
        # Not as a transaction of the rules, which would have every match wait for all other writers.
        name = check_caller_id(caller_id)
        seen = check_time(when) or now()
        self._check_open()
        if not self._database.exists():
            return False
        return self._database.write(lambda writer: writer.touch(name, seen), exclusive=False)

    def note_deletions(self, deletions: Iterable[Deletion]) -> int:
        given = [check_deletion(deletion) for deletion in deletions]

        def note(writer: Writer) -> int:
            transaction = Transaction(writer.base([], [], []), self.sealing)
            noted = transaction.note_deletions(given, writer.noted(given))
            if transaction:
                writer.write(transaction)
            return noted

        self._check_open()
        return self._database.write(note) if given else 0

    def _change(
        self,
        caller_ids: Iterable[str],
        work: Callable[[Transaction], T],
        *,
        ids: Iterable[int] = (),
        spaces: Iterable[str] = (),
        creates: bool = True,
    ) -> T:
        """The result of `work` on a transaction over these callers, once it is committed.

        ids, spaces: of the voiceprints that it may add. creates: whether a missing store is created; without
        it, the transaction on one must stay empty.
        """

        unused: list[bytes] = []

        def run(writer: Writer) -> tuple[T, Transaction, bool]:
            nonlocal unused
            transaction = Transaction(writer.base(caller_ids, ids, spaces), self.sealing)
            result = work(transaction)
            removes = transaction.removes_personal_data()
            unused = transaction.give_data_keys()
            if transaction:
                writer.write(transaction)
            if removes:
                self._dialect.mark_removal(writer.connection)
            return result, transaction, removes

        self._check_open()
        if not creates and not self._database.exists():
            return work(Transaction(StoreState()))
        result, transaction, removes = self._database.write(run)
        if removes:
            self._database.eraser.removed()
        if transaction.removes_voiceprints():
            erase_snapshots(self.snapshot_places)
        self._database.eraser.when_due()
        if self.sealing is not None:
            self.sealing.forget(unused)
        return result

    @contextmanager
    def removing_many(self) -> Iterator[None]:
        with self._database.eraser.deferred():
            yield

    def flush_removals(self, timeout_s: float = FLUSH_S) -> bool:
        self._check_open()
        return self._database.eraser.now(timeout_s)

    def server_remains(
        self,
        *,
        rewrite: bool = False,  # noqa: ARG002  no server of these rewrites on request
        timeout_s: float = REWRITE_S,  # noqa: ARG002
    ) -> list[ErasedPlace]:
        if self._dialect.path is not None:
            return []
        return [
            ErasedPlace(
                place=f"tables and write-ahead log of {self.location}",
                state="kept_by_server",
                detail="Removed data stays in the tables' files until VACUUM and later writes reuse its "
                "place, and in the write-ahead log and its archives for as long as the server keeps these.",
            )
        ]

    # Reading

    def deletions(self) -> list[Deletion]:
        return self._read(lambda reader: reader.deletions(), [])

    def get(self, caller_id: str) -> Caller | None:
        name = check_caller_id(caller_id)
        record = self._read(lambda reader: reader.caller(name), None)
        return None if record is None else record.caller()

    def get_callers(self, caller_ids: Iterable[str]) -> dict[str, Caller]:
        wanted = check_caller_ids(caller_ids)
        found = self._read_records(lambda reader: reader.callers(wanted), {})
        return {name: found[name].caller() for name in wanted if name in found}

    def callers_of(self, ids: Iterable[int]) -> list[Caller]:
        wanted = check_ids(ids)
        return [
            record.caller() for record in self._read_records(lambda reader: reader.callers_of(wanted), [])
        ]

    def callers(self, *, after: str = "", limit: int = DEFAULT_PAGE) -> list[Caller]:
        limit = check_page(limit)
        after = check_after(after)
        page = self._read_records(lambda reader: reader.page(after, limit), [])
        return [record.caller() for record in page]

    def find_callers(
        self, metadata: Mapping[str, Any], *, after: str = "", limit: int = DEFAULT_PAGE
    ) -> list[Caller]:
        """As the contract says. A key with an index (`index_metadata`) is looked up; others are compared."""
        from voiceprint.storage.sql.metadata_search import find

        wanted, size, start = MetadataFilter(metadata), check_page(limit), check_after(after)
        found = self._read_records(lambda reader: find(reader, self._dialect, wanted, start, size), [])
        return [record.caller() for record in found]

    def index_metadata(self, key: str) -> None:
        """Index a key of the callers' metadata for `find_callers`; a missing store is created.

        Takes some seconds a million callers, during which others cannot write. The database keeps it up to
        date from then on. Raises `InvalidArgumentError` for an encrypted store, and for a key of other
        characters than letters, digits, spaces and _ . : @ / + -, or of more than 40 bytes.
        """
        from voiceprint.storage.sql.metadata_search import add_index, check_key

        name = check_key(key)
        self._check_open()
        if self.sealing is not None:
            raise InvalidArgumentError(
                f"{self.location} is encrypted, and its metadata can have no index, which holds plain values."
            )
        self._database.write(lambda writer: add_index(writer.connection, self._dialect, name))

    def drop_metadata_index(self, key: str) -> None:
        """Remove the index of a metadata key, if it has one."""
        from voiceprint.storage.sql.metadata_search import check_key, drop_index

        name = check_key(key)
        self._check_open()
        if self._database.exists():
            self._database.write(lambda writer: drop_index(writer.connection, name))
            self._database.eraser.removed()

    def metadata_indexes(self) -> tuple[str, ...]:
        """The metadata keys that have an index, sorted."""
        from voiceprint.storage.sql.metadata_search import indexed_keys

        return self._read(lambda reader: indexed_keys(reader.connection, self._dialect), ())

    def partition(self, partitions: int) -> int:
        """Partition the tables of a PostgreSQL store by hash, while nobody is enrolled.

        A missing store is created.

        partitions: of each table, 2 to 128. Returns their former number, 0 for a store without; with the same
        number nothing is changed. The new tables have the rights of new tables.

        Raises `ConfigurationError` for SQLite, and `StorageError` where callers are enrolled, or for tables
        that are not the user's.
        """
        from voiceprint.storage.sql.metadata_search import add_index, indexed_keys

        if type(partitions) is not int or not _FEWEST_PARTITIONS <= partitions <= _MOST_PARTITIONS:
            raise InvalidArgumentError(
                f"partitions must be {_FEWEST_PARTITIONS} to {_MOST_PARTITIONS}, and is {shown(partitions)}."
            )
        self._dialect.check_can_partition()
        self._check_open()

        def replace(writer: Writer) -> int:
            keys = indexed_keys(writer.connection, self._dialect)
            before = self._dialect.partition(writer.connection, partitions)
            for key in keys:
                add_index(writer.connection, self._dialect, key)
            return before

        return self._database.write(replace)

    def partitions(self) -> int:
        """Number of partitions of the tables of callers and voiceprints; 0 for a store without."""
        return self._read(lambda reader: self._dialect.partition_count(reader.connection), 0)

    def read_consistently(self, work: Callable[[ConsistentView], T]) -> T:
        def read(reader: Reader) -> tuple[T]:
            identity = str(reader.header()["identity"])
            callers = (record.caller() for record in reader.all_callers())
            return (work(ConsistentView(identity, reader.position(), reader.deletions(), callers)),)

        self._check_open()
        found = self._database.read(read, None)
        return work(ConsistentView("", START, [], iter(()))) if found is None else found[0]

    def count(self) -> int:
        return self._read_records(lambda reader: reader.count(), 0)

    def spaces(self) -> dict[str, int]:
        return self._read_records(lambda reader: reader.spaces(), {})

    def coverage(self) -> dict[str, SpaceCounts]:
        return self._read_records(lambda reader: reader.coverage(), {})

    def count_callers(self) -> int:
        return self._read_records(lambda reader: reader.count_callers(), 0)

    def count_enrolled(self) -> int:
        return self._read_records(lambda reader: reader.count_enrolled(), 0)

    def group_ids(self, *, encoder: str = RESEMBLYZER_SPACE) -> dict[str, NDArray[np.int64]]:
        return self._read_records(lambda reader: reader.group_ids(encoder), {})

    def revision(self) -> int:
        return self._read(lambda reader: int(reader.header()["revision"]), 0)

    def position(self) -> Position:
        return self._read(lambda reader: reader.position(), START)

    def changes(self, since: Position, *, encoder: str = RESEMBLYZER_SPACE) -> Changes | None:
        check_position(since)
        return self._read(lambda reader: reader.changes(since, encoder), StoreState().changes(since, encoder))

    def scan(self, *, encoder: str = RESEMBLYZER_SPACE, batch_size: int = DEFAULT_BATCH) -> Iterator[Batch]:
        size = check_page(batch_size)
        self._check_open()
        return self._batches(encoder, size)

    def _batches(self, encoder: str, batch_size: int) -> Iterator[Batch]:
        # A transaction for each batch: SQLite's log grows as long as one is open.
        after: int | None = 0
        while after is not None:
            batch, after = self._batch_after(encoder, after, batch_size)
            if len(batch[0]):
                yield batch

    def _batch_after(self, encoder: str, after: int, size: int) -> tuple[Batch, int | None]:
        return self._read_records(lambda reader: reader.scan(encoder, after, size), (as_arrays([]), None))

    def _read(self, work: Callable[[Reader], T], empty: S) -> T | S:
        """The result of `work` from the primary, or `empty` if the store does not exist yet."""
        self._check_open()
        return self._database.read(work, empty)

    def _read_records(self, work: Callable[[Reader], T], empty: S) -> T | S:
        """As `_read`, from the replica if it has the last revision. For reads of more than a row or two: to
        ask the primary for its revision takes as long."""
        self._check_open()
        return self._database.read(work, empty, replica=True)

    # Encryption

    def encryption_mark(self) -> str:
        return self._read(lambda reader: reader.header()["encryption"] or "", "")

    def data_keys(self, *, after: str = "", limit: int = DEFAULT_PAGE) -> list[tuple[str, bytes | None]]:
        size = check_page(limit)
        return self._read(lambda reader: reader.data_keys(after, size), [])

    def data_key(self, caller_id: str) -> bytes | None:
        return self._read(lambda reader: reader.data_key(caller_id), None)

    def _change_keys(self, caller_ids: list[str], work: Callable[[KeyedChanges], T]) -> list[T]:
        return [self._transact(caller_ids, work)]

    # Upkeep

    def check(self, *, fix: bool = False) -> list[Finding]:
        from voiceprint.storage.sql.check import examine

        self._check_open()
        try:
            if not self._database.exists():
                return []
            findings = self._database.read(lambda reader: self._dialect.findings(reader.connection), [])
            findings += self.check_keys(fix=fix)
            findings += examine(self._database, self.max_voiceprints_per_caller, fix=fix)
        except StorageCorruptError as error:
            return [Finding(code="corrupt", place=self._dialect.name, message=str(error))]
        if fix:  # it may have removed unused augmented voiceprints
            self._database.eraser.removed()
            self._database.eraser.when_due()
        return findings

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._database.eraser.at_the_end()
            self._database.release()


class SQLiteStorage(SQLStorage):
    """Callers in an SQLite database, shared by threads and processes of one machine.

    For up to millions of voiceprints: a change writes only the changed rows. Writers take turns, and readers
    go on meanwhile, each with the last committed state. The first save creates the database, with the folders
    above it, readable for its owner alone; opening adopts the table of OpusAgent. Not for a network file
    system, on which SQLite's locks do not work.

    db_path: the file. A damaged one raises `StorageCorruptError` and is left as it is.
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str] = "voiceprints.db",
        *,
        max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS,
        encryption: Sealing | None = None,
    ) -> None:
        super().__init__(
            _sqlite_url(db_path),
            max_voiceprints_per_caller=max_voiceprints_per_caller,
            encryption=encryption,
        )

    @property
    def db_path(self) -> Path:
        """The file, absolute and with symbolic links resolved."""
        return self.files()[0]

    @classmethod
    def schema_revision(cls, db_path: str | os.PathLike[str]) -> str | None:
        """The schema revision of a database, None if it has none; nothing is created or upgraded."""
        from voiceprint.storage.sql.database import schema_revision
        from voiceprint.storage.sql.dialect import dialect_of

        return schema_revision(dialect_of(_sqlite_url(db_path)))


def _sqlite_url(db_path: str | os.PathLike[str]) -> URL:
    path: object = os.fspath(db_path) if isinstance(db_path, os.PathLike) else db_path
    if not isinstance(path, str) or not path or "\0" in path or path == ":memory:":
        raise InvalidArgumentError(
            f"The path of the SQLite store is {shown(path)}: give the path of a file, or use MemoryStorage."
        )
    from sqlalchemy import URL

    # Absolute, so that SQLite takes no name of a file for one of its own, such as file:.
    return URL.create("sqlite", database=str(Path(os.path.expanduser(path)).absolute()))  # noqa: PTH111
