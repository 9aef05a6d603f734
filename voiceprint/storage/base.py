"""The contract of every record store. The store is the system of record; a derived index follows it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from voiceprint._audited import Recorder, audited_verb
from voiceprint._files import reading_descriptor
from voiceprint.consent import Consent, OptOut, check_consent, check_groups
from voiceprint.errors import InvalidArgumentError, StorageError
from voiceprint.models import RESEMBLYZER_SPACE, Caller, ErasedPlace, Finding, Voiceprint
from voiceprint.storage.arguments import (
    DEFAULT_MAX_VOICEPRINTS,
    check_after,
    check_caller_ids,
    check_ids,
    check_limit,
    check_page,
    check_space,
)
from voiceprint.storage.encrypted import EncryptedStorage
from voiceprint.storage.feed import (
    START,
    Batch,
    Changes,
    ConsistentView,
    Deletion,
    LineTable,
    Position,
    Progress,
    SpaceCounts,
)
from voiceprint.storage.metadata_search import MetadataFilter
from voiceprint.storage.presence import StorePresence
from voiceprint.storage.sealing import Sealing
from voiceprint.validation import check_caller_id, now

if TYPE_CHECKING:
    from typing_extensions import Self

    from voiceprint.retention import Expiry
    from voiceprint.storage.records import CallerRecord
    from voiceprint.storage.transaction import Transaction

__all__ = [
    "DEFAULT_BATCH",
    "DEFAULT_MAX_CONNECTIONS",
    "DEFAULT_MAX_VOICEPRINTS",
    "DEFAULT_PAGE",
    "FLUSH_S",
    "MOST_PRINTS",
    "REWRITE_S",
    "START",
    "Batch",
    "Changes",
    "ConsistentView",
    "Deletion",
    "LineTable",
    "Position",
    "Progress",
    "SpaceCounts",
    "Storage",
]

DEFAULT_PAGE = 1_000
DEFAULT_BATCH = 10_000

DEFAULT_MAX_CONNECTIONS = 10
"""Connections of a process to a PostgreSQL server, which takes 100 by default, of all processes together."""
MOST_PRINTS = 1_000  # ids reserved for a renamed or merged caller; far more voiceprints than a caller has
FLUSH_S = 30.0
REWRITE_S = 600.0

T = TypeVar("T")


class Storage(EncryptedStorage):
    """Callers and their voiceprints, durable and shared by threads and processes. Stores are subclasses.

    Every change is atomic, also for other processes. Returned objects are the reader's own: changing them
    changes nothing in the store. All methods may be called from many threads.

    Errors, alike on every store: `InvalidArgumentError` for values that cannot be stored,
    `CallerNotFoundError`, `StorageUnavailableError` when the store cannot be reached, read or written, has
    vanished or was replaced by another (nothing was changed), `StorageCorruptError` when its content is
    damaged, `StorageError` after `close`.
    """

    is_persistent: ClassVar[bool] = True
    """Whether the records outlive the process, so that a snapshot of their index is of use."""

    rewrites_server_files: ClassVar[bool] = False
    """Whether `server_remains(rewrite=True)` has the server rewrite its files."""

    presence: StorePresence | None = None
    """The check of a persistent store's identity, whose `guard` a program may set."""

    def __init__(
        self,
        *,
        max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS,
        encryption: Sealing | None = None,
    ) -> None:
        self.sealing = encryption
        self.max_voiceprints_per_caller = check_limit(max_voiceprints_per_caller)
        self._closed = False
        self.auditor: Recorder | None = None
        """Records the operations on this store, see `voiceprint.privacy.audit`."""
        # Paths of index snapshots over this store, beside which lie those of other embedding spaces. They
        # hold embeddings: a change that removes or replaces one also removes the snapshots of all spaces,
        # before it returns. Code that writes a snapshot elsewhere adds its path.
        self.snapshot_places: set[Path] = set()
        self.index_servers: set[str] = set()
        """Locations of PostgreSQL databases that hold an index of this store, without secrets."""

    def _add_default_snapshot_place(self) -> None:
        """Note the default path of the snapshot, where other processes may keep theirs."""
        with suppress(OSError):  # no home folder for a cache: nobody has written a snapshot there
            path = self.default_snapshot_path()
            if path is not None:
                self.snapshot_places.add(path)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"The store {self.location} was closed: open it again.")

    # Place

    @property
    @abstractmethod
    def location(self) -> str:
        """URL of the records, without secrets; two handles on one store have the same."""

    def files(self) -> list[Path]:
        """All files of the store, temporary ones too. Nothing else may be written to these paths."""
        return []

    def default_snapshot_path(self) -> Path | None:
        """Path of the index's snapshot unless the configuration names one; None: no snapshot.

        Raises OSError where it would lie in the cache of a user without a home folder.
        """
        return None

    def line_table(self) -> LineTable | None:
        """The table of the audit log, independent of this handle; None where the store has none."""
        return None

    @abstractmethod
    def exists(self) -> bool:
        """Whether the store exists: its file, its tables, its keys.

        Opening and reading create nothing: a missing store reads as one without callers, and the first save
        creates it. Raises `StorageUnavailableError`, as every method, for one that has vanished.
        """

    @abstractmethod
    def identity(self) -> str:
        """Random name of this store, from its first save on; "" before. Snapshots are stamped with it."""

    # Writing

    def save(
        self,
        voiceprint: Voiceprint,
        *,
        max_voiceprints: int | None = None,
        require_consent: bool = False,
    ) -> Voiceprint:
        """Store a voiceprint and return it as it is stored; a new caller is created.

        A voiceprint whose `id` this caller already has in this store is replaced in place; any other gets a
        new id. With more than `max_voiceprints` (default: the store's `max_voiceprints_per_caller`) of its
        embedding space, the caller's oldest of that space are removed in the same change. The metadata is
        merged into the caller's, new keys winning; the consent replaces one that was obtained earlier; groups
        are added. Missing times are set to now; `last_seen` never moves back. Returns once the record is
        durable.

        require_consent: raise `ConsentRequiredError` for a caller without a consent. One whose consent has
        ended is always refused so, and one who has opted out with `CallerOptedOutError`.
        """
        return self.save_many([voiceprint], max_voiceprints=max_voiceprints, require_consent=require_consent)[
            0
        ]

    @abstractmethod
    def save_many(
        self,
        voiceprints: Iterable[Voiceprint],
        *,
        max_voiceprints: int | None = None,
        require_consent: bool = False,
        progress: Progress | None = None,
    ) -> list[Voiceprint]:
        """`save` for many, in order, as one change: all are stored, or none.

        progress: called now and then with the number of finished ones, before they are committed.
        """

    @abstractmethod
    def restore_many(self, callers: Iterable[Caller], *, progress: Progress | None = None) -> int:
        """Store callers exactly as given, with their ids and times, as one change: all, or none.

        Each replaces the caller of the same id with all voiceprints; an equal one changes nothing. Returns
        the number of changed callers. For copies and backups: `save` is for enrollment. Drops a noted
        deletion of the caller since `created_at`. Raises `InvalidArgumentError` for a voiceprint whose id is
        missing, outside 1 to 10**15 - 1, or taken by another of these voiceprints or another caller.
        """

    @abstractmethod
    def _transact(
        self,
        caller_ids: list[str],
        work: Callable[[Transaction], T],
        *,
        creates: bool = False,
        fresh: int = 0,
    ) -> T:
        """The result of `work` on a transaction over these callers, once that is committed.

        `work` may be called again, after a change by another process. creates: whether a missing store is
        created; without it, the transaction on one must stay empty. fresh: the most new voiceprint ids that
        `work` takes.
        """

    @audited_verb("delete")
    def delete(self, caller_id: str, *, unless_seen_since: str | None = None) -> int:
        """Remove a caller with all voiceprints; returns their number, 0 for an unknown caller.

        The deletion is noted, see `deletions`. An opt-out goes with the caller.

        unless_seen_since: keep the caller (and return 0) if `last_seen` is at this time or later; checked
        within the change, so that a caller who is just calling is not lost.
        """
        name = check_caller_id(caller_id)
        return self._transact([name], lambda transaction: transaction.delete(name, unless_seen_since))

    @audited_verb("delete")
    def delete_expired(self, caller_id: str, expiry: Expiry) -> int:
        """Remove a caller who is expired; returns the number of voiceprints, 0 for one who is not.

        Checked within the change, so that a caller who has called or agreed again meanwhile stays.
        """
        name = check_caller_id(caller_id)
        return self._transact([name], lambda transaction: transaction.delete_expired(name, expiry))

    @audited_verb("delete_voiceprints")
    def delete_voiceprints(
        self, caller_ids: Iterable[str], *, encoder: str, delete_callers: bool = False
    ) -> int:
        """Remove these callers' voiceprints of one embedding space, as one change; returns their number.

        A caller with no voiceprint of another space keeps these, or with `delete_callers` is deleted as by
        `delete`. Unknown callers are skipped. No deletion is noted of the others, so an older backup brings
        their voiceprints back.
        """
        names, space = check_caller_ids(caller_ids), check_space(encoder)
        return self._transact(
            names,
            lambda transaction: sum(
                transaction.delete_voiceprints(name, space, delete_callers=delete_callers) for name in names
            ),
        )

    @audited_verb("delete_voiceprints")
    def delete_voiceprint(self, voiceprint_id: int) -> bool:
        """Remove one voiceprint; False for an unknown id.

        Its caller stays, also without another voiceprint. No deletion is noted.
        """
        ids = check_ids([voiceprint_id])
        owners = [caller.caller_id for caller in self.callers_of(ids)]
        return bool(owners) and self._transact(
            owners, lambda transaction: transaction.delete_voiceprint(owners[0], ids[0])
        )

    @audited_verb("metadata")
    def update_metadata(self, caller_id: str, metadata: dict[str, Any], *, replace: bool = False) -> Caller:
        """Merge `metadata` into the caller's, new keys winning, or `replace` it all.

        Raises `CallerNotFoundError`, and `CallerOptedOutError`.
        """
        name = check_caller_id(caller_id)
        return self._transact(
            [name], lambda transaction: transaction.update_metadata(name, metadata, replace_all=replace)
        ).caller()

    def touch(self, caller_id: str, when: str | None = None) -> bool:
        """Move the caller's `last_seen` to `when` (default: now), never back.

        False: no such caller, or one who has opted out.
        """
        name = check_caller_id(caller_id)
        return self._transact([name], lambda transaction: transaction.touch(name, when))

    @audited_verb("consent")
    def set_consent(self, caller_id: str, consent: Consent) -> Caller:
        """Store a caller's consent in place of an earlier one; a new caller is created, without voiceprints.

        Raises `CallerOptedOutError`.
        """
        name = check_caller_id(caller_id)
        checked = check_consent(consent)
        if checked is None:
            raise InvalidArgumentError("The consent is None: give a Consent.")
        return self._transact(
            [name], lambda transaction: transaction.set_consent(name, checked), creates=True
        ).caller()

    @audited_verb("opt_out")
    def opt_out(self, caller_id: str, *, reason: str | None = None, by: str | None = None) -> int:
        """Remove all data of a caller but the id, and note the refusal; returns the number of voiceprints.

        A new caller is created, so that nobody enrolls a caller who said no before. Nothing is stored of the
        caller until `opt_in`. The deletion is noted as by `delete`, so that no older copy brings the caller
        back. For a caller who has opted out already, nothing changes. reason, by: see `OptOut`.
        """
        name = check_caller_id(caller_id)
        OptOut(at=now(), reason=reason, by=by)  # checked before the store is created
        return self._transact([name], lambda transaction: transaction.opt_out(name, reason, by), creates=True)

    @audited_verb("opt_in")
    def opt_in(self, caller_id: str) -> Caller:
        """Remove a caller's refusal; the caller then has no voiceprints, metadata and consent.

        Raises `CallerNotFoundError`. A caller who has not opted out stays as is.
        """
        name = check_caller_id(caller_id)
        return self._transact([name], lambda transaction: transaction.opt_in(name)).caller()

    @audited_verb("groups")
    def set_groups(self, caller_id: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> Caller:
        """Add a caller to groups and remove from others; returns the caller.

        A group exists while a caller is in it. Raises `CallerNotFoundError`, and `CallerOptedOutError`.
        """
        name, added, removed = check_caller_id(caller_id), check_groups(add), check_groups(remove)
        return self._transact(
            [name], lambda transaction: transaction.set_groups(name, added, removed)
        ).caller()

    @audited_verb("rename", detail="to")
    def rename(self, caller_id: str, new_id: str) -> Caller:
        """Give a caller another id; returns the caller. The voiceprints get new ids.

        The deletion of the old id is noted. Raises `CallerNotFoundError`, `CallerOptedOutError`, and
        `InvalidArgumentError` where there is a caller of the new id.
        """
        return self._rename(check_caller_id(caller_id), check_caller_id(new_id)).caller()

    def _rename(self, name: str, new: str) -> CallerRecord:
        """Rename a caller; a store without one transaction over both ids does so otherwise."""
        return self._transact(
            [*dict.fromkeys((name, new))],
            lambda transaction: transaction.rename(name, new),
            fresh=MOST_PRINTS,
        )

    @audited_verb("merge", detail="into")
    def merge(
        self, caller_id: str, into: str, *, max_voiceprints: int | None = None
    ) -> tuple[Caller, list[int]]:
        """Add the voiceprints and data of a caller to those of another, and delete the first.

        Of more than `max_voiceprints` (default: the store's limit) of an embedding space, the oldest are
        removed; returns the merged caller and their ids. Moved voiceprints get new ids. Of a metadata key
        that both have, the value of `into` stays; groups are united; of two consents, the one that ends
        first stays; `last_seen` is the later.

        Raises `CallerNotFoundError`, `CallerOptedOutError` where one of them has opted out, and
        `InvalidArgumentError` for one caller given twice.
        """
        limit = check_limit(max_voiceprints, self.max_voiceprints_per_caller)
        merged, removed = self._merge(check_caller_id(caller_id), check_caller_id(into), limit)
        return merged.caller(), removed

    def _merge(self, name: str, into: str, limit: int) -> tuple[CallerRecord, list[int]]:
        """Merge two callers, as `_rename`."""
        return self._transact(
            [*dict.fromkeys((name, into))],
            lambda transaction: transaction.merge(name, into, limit),
            fresh=MOST_PRINTS,
        )

    @abstractmethod
    def note_deletions(self, deletions: Iterable[Deletion]) -> int:
        """Add the deletions of another store to this one's; returns the number of new or later ones.

        Removes no caller. Of one digest the later time stays. Raises `InvalidArgumentError`.
        """

    # Reading

    @abstractmethod
    def deletions(self) -> list[Deletion]:
        """The noted deletions of callers, so that an old export or backup does not bring a caller back.

        `voiceprint.storage.deletions.DeletionList` looks callers up in them.
        """

    @abstractmethod
    def get(self, caller_id: str) -> Caller | None:
        """The caller with all voiceprints, oldest first, or None."""

    def get_callers(self, caller_ids: Iterable[str]) -> dict[str, Caller]:
        """Callers by their ids, in the order of `caller_ids`; unknown ids are left out."""
        found = {name: self.get(name) for name in check_caller_ids(caller_ids)}
        return {name: caller for name, caller in found.items() if caller is not None}

    def get_many(self, ids: Iterable[int]) -> dict[int, Voiceprint]:
        """Voiceprints by their ids, in the order of `ids`; unknown ids are left out."""
        wanted = check_ids(ids)
        found = {print_.id: print_ for caller in self.callers_of(wanted) for print_ in caller.voiceprints}
        return {id_: found[id_] for id_ in wanted if id_ in found}

    @abstractmethod
    def callers_of(self, ids: Iterable[int]) -> list[Caller]:
        """The callers who have these voiceprints, each once and with all voiceprints, in the order of `ids`.

        Unknown ids are skipped.
        """

    @abstractmethod
    def callers(self, *, after: str = "", limit: int = DEFAULT_PAGE) -> list[Caller]:
        """One page of callers, in the code-point order of their ids.

        `after`: the last caller id of the page before ("" for the first page). A page with fewer
        than `limit` callers is the last one.
        """

    def find_callers(
        self, metadata: Mapping[str, Any], *, after: str = "", limit: int = DEFAULT_PAGE
    ) -> list[Caller]:
        """One page of the callers whose metadata has these values, as `callers`: in the order of their ids.

        metadata: the value of each top-level key. Values are equal with their types: 1, 1.0, true and "1" are
        four; the order of the keys of an object is no matter. Every caller is read, but in an SQL store with
        an index of the key (`SQLStorage.index_metadata`). Raises `InvalidArgumentError` without a key.
        """
        wanted, size, found = MetadataFilter(metadata), check_page(limit), list[Caller]()
        start = check_after(after)
        while True:
            page = self.callers(after=start, limit=DEFAULT_PAGE)
            found += [caller for caller in page if wanted.accepts(caller.metadata)]
            if len(page) < DEFAULT_PAGE or len(found) >= size:
                return found[:size]
            start = page[-1].caller_id

    @abstractmethod
    def count(self) -> int:
        """Number of voiceprints."""

    @abstractmethod
    def count_callers(self) -> int:
        """Number of callers, also of those without voiceprints."""

    @abstractmethod
    def count_enrolled(self) -> int:
        """Number of callers with a voiceprint."""

    @abstractmethod
    def group_ids(self, *, encoder: str = RESEMBLYZER_SPACE) -> dict[str, NDArray[np.int64]]:
        """Voiceprint ids int64[n] of each group, of one embedding space."""

    @abstractmethod
    def spaces(self) -> dict[str, int]:
        """Number of voiceprints of each embedding space, by the name of its encoder."""

    @abstractmethod
    def coverage(self) -> dict[str, SpaceCounts]:
        """The voiceprints and callers of each embedding space, by the name of its encoder.

        Unlike `spaces`, this looks at every record, without reading the embeddings into this process.
        """

    def get_all(self) -> list[Voiceprint]:
        """Every voiceprint, in the order of caller ids. For large stores, use `callers` or `scan`."""
        return [voiceprint for caller in self.iter_callers() for voiceprint in caller.voiceprints]

    @abstractmethod
    def read_consistently(self, work: Callable[[ConsistentView], T]) -> T:
        """The result of `work` on the whole store as of one moment, while others write: for backups.

        The view is valid while `work` runs. `work` may be called again if reading failed halfway.
        """

    def iter_callers(self, *, page: int = DEFAULT_PAGE) -> Iterator[Caller]:
        """All callers in the order of their ids, read a page at a time."""
        after = ""
        while True:
            callers = self.callers(after=after, limit=page)
            yield from callers
            if len(callers) < page:
                return
            after = callers[-1].caller_id

    # Following, for a derived index

    @abstractmethod
    def revision(self) -> int:
        """A number that grows with every committed change of any process, but not with every `touch`."""

    @abstractmethod
    def position(self) -> Position:
        """The present position in the history of the voiceprints. Cheap.

        It differs after every commit that changes a voiceprint, and not after changes of metadata or times.
        """

    @abstractmethod
    def changes(self, since: Position, *, encoder: str = RESEMBLYZER_SPACE) -> Changes | None:
        """The changes after position `since` of the voiceprints of one embedding space.

        None: the feed does not reach that far back, or `since` is not of its history, as after a rewind. The
        follower then rebuilds: read `position()`, then `scan()`, then `changes()` from there.
        """

    @abstractmethod
    def scan(self, *, encoder: str = RESEMBLYZER_SPACE, batch_size: int = DEFAULT_BATCH) -> Iterator[Batch]:
        """All voiceprints of one embedding space in batches of ids int64[n], float32[n, dimension]."""

    # Erasure

    def flush_removals(self, timeout_s: float = FLUSH_S) -> bool:  # noqa: ARG002  nothing to wait for
        """Wait until the data removed through this handle is erased from the disk; False: not in time.

        A change that removes or replaces an embedding or metadata erases it before it returns, with two
        exceptions on SQLite. If other connections prevent that for more than 1 s, which is logged, a later
        operation of this process or its end erases it. And in a database of more than 20 MB a thread does,
        for no more than a twentieth of the time: within about a minute a GB. The disks of a Redis or
        PostgreSQL server are the server's, see `server_remains`.
        """
        return True

    @contextmanager
    def removing_many(self) -> Iterator[None]:
        """Within it, the removals of this thread are erased from the disk once, at the end."""
        yield

    def record_files(self) -> list[Path]:
        """The `files` that may hold content of records, for a search for remains."""
        return self.files()

    def open_for_search(self, path: Path) -> AbstractContextManager[int]:
        """File descriptor of one of the `record_files` or another file, for `os.pread`. Raises OSError."""
        return reading_descriptor(path)

    def server_remains(
        self,
        *,
        rewrite: bool = False,  # noqa: ARG002
        timeout_s: float = REWRITE_S,  # noqa: ARG002
    ) -> list[ErasedPlace]:
        """Files of the store's server that may hold removed records, which this process cannot read.

        rewrite: have the server write its files anew first, where `rewrites_server_files`, and wait for at
        most `timeout_s`. Raises `StorageUnavailableError` where that fails or takes longer.
        """
        return []

    # Upkeep

    @abstractmethod
    def check(self, *, fix: bool = False) -> list[Finding]:
        """Read every record and return what is wrong; an empty list when all is well.

        fix: repair data that derives from the records, such as a counter or an order; records are never
        changed. Repaired problems are not among the findings.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the resources of this handle. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"
