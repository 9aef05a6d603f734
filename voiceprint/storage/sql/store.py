"""The SQL store: callers and voiceprints in the tables of a database, by any URL that SQLAlchemy takes.

SQLAlchemy is loaded when the first store is opened.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import StorageCorruptError, StorageError
from voiceprint.models import RESEMBLYZER_SPACE, Caller, Finding, Voiceprint
from voiceprint.storage.base import (
    DEFAULT_BATCH,
    DEFAULT_MAX_VOICEPRINTS,
    DEFAULT_PAGE,
    FLUSH_S,
    START,
    Changes,
    Deletion,
    Moment,
    Position,
    Progress,
    Storage,
    check_after,
    check_ids,
    check_limit,
    check_page,
    check_position,
    reported,
)
from voiceprint.storage.incoming import check_incoming
from voiceprint.storage.records import Change, Records, check_deletion
from voiceprint.storage.removals import erase_snapshots, removes, removes_voiceprints
from voiceprint.validation import check_caller_id, check_time, now

if TYPE_CHECKING:
    from sqlalchemy import URL

    from voiceprint.storage.sql.queries import Queries

__all__ = ["SQLStorage"]

T = TypeVar("T")
S = TypeVar("S")


class SQLStorage(Storage):
    """Callers in a database, shared by threads and processes.

    The tables are brought up to date when the store is opened, and created by the first save. The tests
    run on SQLite and on PostgreSQL.

    url: sqlite:///voiceprints.db, or postgresql://USER:PASSWORD@HOST:PORT/DATABASE with the parameters that
    libpq takes, such as several hosts, TLS and a schema; the latter needs the extra `postgresql`. A store is
    in one schema of a database: the current one, which is `public` unless told otherwise.
    """

    def __init__(self, url: str | URL, *, max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS) -> None:
        super().__init__(max_voiceprints_per_caller=max_voiceprints_per_caller)
        from voiceprint.storage.sql.database import Database
        from voiceprint.storage.sql.dialects import dialect_of

        self._dialect = dialect_of(url)
        self._closed = False
        self._removing = threading.local()  # .many: within `removing_many`
        self._database = Database(self._dialect)

    @property
    def location(self) -> str:
        return self._dialect.location

    def exists(self) -> bool:
        self._check_open()
        return self._database.exists()

    def create(self) -> None:
        """Create the store without callers if it is not there, as the first save does by itself."""
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
        progress: Progress | None = None,
    ) -> list[Voiceprint]:
        limit = check_limit(max_voiceprints, self.max_voiceprints_per_caller)
        # Taken in before the transaction: the iterable may be slow, or use this store.
        prints = list(voiceprints)
        sound = [voiceprint for voiceprint in prints if isinstance(voiceprint, Voiceprint)]
        names = dict.fromkeys(voiceprint.caller_id for voiceprint in sound)
        return self._change(
            names,
            lambda change: [change.save(voiceprint, limit) for voiceprint in reported(prints, progress)],
            spaces={voiceprint.encoder for voiceprint in sound},
            creates=bool(prints),
        )

    def restore_many(self, callers: Iterable[Caller], *, progress: Progress | None = None) -> int:
        given = check_incoming(callers)
        prints = [voiceprint for caller in given for voiceprint in caller.voiceprints]
        return self._change(
            dict.fromkeys(caller.caller_id for caller in given),
            lambda change: sum(change.restore(caller) for caller in reported(given, progress)),
            ids=[voiceprint.id for voiceprint in prints if voiceprint.id is not None],
            spaces={voiceprint.encoder for voiceprint in prints},
            creates=bool(given),
        )

    def delete(self, caller_id: str, *, unless_seen_since: str | None = None) -> int:
        name = check_caller_id(caller_id)
        return self._change([name], lambda change: change.delete(name, unless_seen_since), creates=False)

    def update_metadata(self, caller_id: str, metadata: dict[str, Any], *, replace: bool = False) -> Caller:
        name = check_caller_id(caller_id)
        return self._change(
            [name], lambda change: change.update_metadata(name, metadata, put=replace), creates=False
        ).caller()

    def touch(self, caller_id: str, when: str | None = None) -> bool:
        # No change of the store's: it would have every match of a call wait for all other writers.
        name = check_caller_id(caller_id)
        seen = check_time(when) or now()
        self._check_open()
        if not self._database.exists():
            return False
        return self._database.write(lambda queries: queries.touch(name, seen), alone=False)

    def note_deletions(self, deletions: Iterable[Deletion]) -> int:
        given = [check_deletion(deletion) for deletion in deletions]

        def transaction(queries: Queries) -> int:
            change = Change(queries.base([], [], []))
            news = change.note_deletions(given, queries.noted(given))
            if change:
                queries.write(change)
            return news

        self._check_open()
        return self._database.write(transaction) if given else 0

    def _change(
        self,
        caller_ids: Iterable[str],
        work: Callable[[Change], T],
        *,
        ids: Iterable[int] = (),
        spaces: Iterable[str] = (),
        creates: bool = True,
    ) -> T:
        """What `work` gives for a change on top of the records of these callers, once it is committed.

        ids, spaces: of the voiceprints that may be brought in. creates: whether the store is created if it
        is not there; without it, the change must be none then.
        """

        def transaction(queries: Queries) -> tuple[T, Change, bool]:
            change = Change(queries.base(caller_ids, ids, spaces))
            result = work(change)
            if change:
                queries.write(change)
            removed = removes(change)
            if removed:
                self._dialect.mark_removal(queries.connection)
            return result, change, removed

        self._check_open()
        if not creates and not self._database.exists():
            return work(Change(Records()))
        result, change, removed = self._database.write(transaction)
        if removed:
            self._database.eraser.removed()
        if removes_voiceprints(change):
            erase_snapshots(self.snapshot_places)
        if not getattr(self._removing, "many", False):
            self._database.eraser.when_due()
        return result

    @contextmanager
    def removing_many(self) -> Iterator[None]:
        if getattr(self._removing, "many", False):
            yield
            return
        self._removing.many = True
        try:
            yield
        finally:
            self._removing.many = False
            self._database.eraser.when_due()

    def flush_removals(self, timeout_s: float = FLUSH_S) -> bool:
        self._check_open()
        return self._database.eraser.now(timeout_s)

    # Reading

    def deletions(self) -> list[Deletion]:
        return self._read(lambda queries: queries.deletions(), [])

    def get(self, caller_id: str) -> Caller | None:
        name = check_caller_id(caller_id)
        record = self._read(lambda queries: queries.caller(name), None)
        return None if record is None else record.caller()

    def get_many(self, ids: Iterable[int]) -> dict[int, Voiceprint]:
        wanted = check_ids(ids)

        def find(queries: Queries) -> dict[int, Voiceprint]:
            owners = queries.owners(wanted)
            records = queries.callers(dict.fromkeys(owners.values()))
            prints = {print_.id: (record, print_) for record in records.values() for print_ in record.prints}
            return {
                id_: prints[id_][0].voiceprint(prints[id_][1])
                for id_ in dict.fromkeys(wanted)
                if id_ in prints
            }

        return self._read(find, {})

    def callers_of(self, ids: Iterable[int]) -> list[Caller]:
        wanted = check_ids(ids)
        return [record.caller() for record in self._read(lambda queries: queries.callers_of(wanted), [])]

    def callers(self, *, after: str = "", limit: int = DEFAULT_PAGE) -> list[Caller]:
        check_page(limit)
        after = check_after(after)
        page = self._read(lambda queries: queries.page(after, limit), [])
        return [record.caller() for record in page]

    def at_one_moment(self, work: Callable[[Moment], T]) -> T:
        def read(queries: Queries) -> tuple[T]:
            identity = str(queries.header()["identity"])
            callers = (record.caller() for record in queries.all_callers())
            return (work(Moment(identity, queries.position(), queries.deletions(), callers)),)

        self._check_open()
        found = self._database.read(read, None)
        return work(Moment("", START, [], iter(()))) if found is None else found[0]

    def count(self) -> int:
        return self._read(lambda queries: queries.count(), 0)

    def spaces(self) -> dict[str, int]:
        return self._read(lambda queries: queries.spaces(), {})

    def count_callers(self) -> int:
        return self._read(lambda queries: queries.count_callers(), 0)

    def revision(self) -> int:
        return self._read(lambda queries: int(queries.header()["revision"]), 0)

    def position(self) -> Position:
        return self._read(lambda queries: queries.position(), START)

    def changes(self, since: Position, *, encoder: str = RESEMBLYZER_SPACE) -> Changes | None:
        check_position(since)
        return self._read(lambda queries: queries.changes(since, encoder), Records().changes(since, encoder))

    def scan(
        self, *, encoder: str = RESEMBLYZER_SPACE, batch_size: int = DEFAULT_BATCH
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        check_page(batch_size)
        self._check_open()
        return self._batches(encoder, batch_size)

    def _batches(
        self, encoder: str, batch_size: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        # A transaction for each batch: one over the whole would keep SQLite's log growing meanwhile.
        after = 0
        while True:
            batch = self._batch(encoder, after, batch_size)
            if batch is not None:
                yield batch
            if batch is None or len(batch[0]) < batch_size:
                return
            after = int(batch[0][-1])

    def _batch(
        self, encoder: str, after: int, size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        return self._read(lambda queries: queries.scan(encoder, after, size), None)

    def _read(self, work: Callable[[Queries], T], empty: S) -> T | S:
        """What `work` gives, or `empty` where the store is not there yet."""
        self._check_open()
        return self._database.read(work, empty)

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"The store {self.location} was closed: open it again.")

    # Keeping

    def check(self, *, fix: bool = False) -> list[Finding]:
        from voiceprint.storage.sql.check import examine

        self._check_open()
        try:
            if not self._database.exists():
                return []
            findings = self._database.read(lambda queries: self._dialect.findings(queries.connection), [])
            findings += examine(self._database, self.max_voiceprints_per_caller, fix=fix)
        except StorageCorruptError as error:
            return [Finding(code="corrupt", place=self._dialect.name, message=str(error))]
        if fix:  # prints that are no longer used may have been removed
            self._database.eraser.removed()
            self._database.eraser.when_due()
        return findings

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._database.eraser.at_the_end()
            self._database.release()
