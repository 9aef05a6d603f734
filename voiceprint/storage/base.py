"""The contract of every record store: the system of record, which a derived index follows."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError
from voiceprint.models import RESEMBLYZER_SPACE, Caller, Finding, Voiceprint
from voiceprint.validation import check_caller_id

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_MAX_VOICEPRINTS = 3
DEFAULT_PAGE = 1_000
DEFAULT_BATCH = 10_000
FLUSH_S = 30.0

# Called with the number of items that are done.
Progress = Callable[[int], None]

T = TypeVar("T")


class Position(NamedTuple):
    """A point in the history of a store's voiceprints, where a follower stands.

    revision: of the last commit that changed a voiceprint; 0 before the first. It repeats where a store is
        rewound (a restored backup, a failover) and goes on.
    token: drawn at random for that commit, so that no other history has this position; "" before the first.
    """

    revision: int
    token: str


START = Position(0, "")
"""Before the first change: the position of a follower that holds nothing."""


class Deletion(NamedTuple):
    """That a caller was deleted, without saying whom.

    key: identity of the store that deleted the caller; digest: 32 hexadecimal digits, HMAC-SHA256 of the
    caller id with that key, cut to 128 bits; deleted_at: ISO 8601 UTC with a `Z`.
    """

    key: str
    digest: str
    deleted_at: str


class Moment(NamedTuple):
    """The whole of a store as of one moment: the callers in the order of their ids."""

    identity: str
    position: Position
    deletions: list[Deletion]
    callers: Iterator[Caller]


@dataclass(frozen=True)
class Changes:
    """What a derived index applies to catch up: the removals first, then the additions.

    position: where the index stands once these are applied.
    removed: int64[m], ids of voiceprints that are no more.
    ids, embeddings: int64[n] and float32[n, dimension], voiceprints that are new or replaced.
    more: whether further changes wait; ask again with `position`.
    """

    position: Position
    removed: NDArray[np.int64] = field(repr=False)
    ids: NDArray[np.int64] = field(repr=False)
    embeddings: NDArray[np.float32] = field(repr=False)
    more: bool = False


class Storage(ABC):
    """Callers and their voiceprints, durable and shared by threads and processes.

    Every change is atomic: it is there as a whole, also for other processes, or not at all. Returned
    objects are the reader's own: changing them changes nothing in the store. All methods may be
    called from many threads.

    Errors, alike on every store: `InvalidArgumentError` for what cannot be stored,
    `CallerNotFoundError`, `StorageUnavailableError` when the store cannot be reached, read or
    written, is gone or was replaced by another (nothing was changed), `StorageCorruptError` when its
    content cannot be trusted.
    """

    def __init__(self, *, max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS) -> None:
        self.max_voiceprints_per_caller = check_limit(max_voiceprints_per_caller)
        # Where snapshots of indexes over this store lie. They hold embeddings: a change that removes or
        # replaces one removes them, before it returns. Whoever keeps one elsewhere adds the place.
        self.snapshot_places: set[Path] = set()

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the records are, as a URL without secrets; two handles on one store give the same."""

    def files(self) -> list[Path]:
        """The files that the store keeps, those included that come and go: nothing else is written there."""
        return []

    @abstractmethod
    def exists(self) -> bool:
        """Whether the store is there: its file, its tables, its keys.

        Opening and reading create nothing: a store that is not there reads as one without callers. The
        save creates it. Raises `StorageUnavailableError` for one that was there and is gone, as all else.
        """

    @abstractmethod
    def identity(self) -> str:
        """Of this store and no other, from its first save on; "" before. A snapshot is stamped with it."""

    # Writing

    def save(self, voiceprint: Voiceprint, *, max_voiceprints: int | None = None) -> Voiceprint:
        """Store a voiceprint of a new or known caller, and return it as it is stored.

        A voiceprint whose `id` is one of this caller's in this store is replaced in place; any other
        gets a new id. With more than `max_voiceprints` (default: the store's
        `max_voiceprints_per_caller`) the caller's oldest are removed in the same change. The
        metadata is merged into the caller's, new keys winning. Missing times are set to now;
        `last_seen` never moves back. Returns once the record is durable.
        """
        return self.save_many([voiceprint], max_voiceprints=max_voiceprints)[0]

    @abstractmethod
    def save_many(
        self,
        voiceprints: Iterable[Voiceprint],
        *,
        max_voiceprints: int | None = None,
        progress: Progress | None = None,
    ) -> list[Voiceprint]:
        """`save` for many, in order, as one change: all are stored, or none.

        progress: called now and then with how many of them are done, before they are committed.
        """

    @abstractmethod
    def restore_many(self, callers: Iterable[Caller], *, progress: Progress | None = None) -> int:
        """Put callers in exactly as they are, with their ids and times, as one change: all, or none.

        Each takes the place of the caller of the same id, with all voiceprints; one that is there
        already just so changes nothing. Gives how many callers were changed. For copies between
        stores and backups: `save` is for enrollment. A note that the caller was deleted since `created_at` is
        dropped. Raises `InvalidArgumentError` for a voiceprint without an id, with one that is not from 1 to
        10**15 - 1, or with one that another print of these callers, or another caller in this store, has.
        """

    @abstractmethod
    def delete(self, caller_id: str, *, unless_seen_since: str | None = None) -> int:
        """Remove a caller with all voiceprints; gives how many there were, 0 for an unknown caller.

        That the caller was deleted is noted, see `deletions`.

        unless_seen_since: leave the caller alone (and give 0) whose `last_seen` is at this time or
        later; looked at within the change, so that a caller who is just calling is not lost.
        """

    @abstractmethod
    def update_metadata(self, caller_id: str, metadata: dict[str, Any], *, replace: bool = False) -> Caller:
        """Merge `metadata` into the caller's, new keys winning; or put it in place of it (`replace`).

        Raises `CallerNotFoundError`.
        """

    @abstractmethod
    def touch(self, caller_id: str, when: str | None = None) -> bool:
        """Move the caller's `last_seen` to `when` (default: now), never back. False: no such caller."""

    @abstractmethod
    def note_deletions(self, deletions: Iterable[Deletion]) -> int:
        """Add the deletions of another store to this one's; gives how many were news.

        No caller is removed. Of one digest the later time stays. Raises `InvalidArgumentError`.
        """

    # Reading

    @abstractmethod
    def deletions(self) -> list[Deletion]:
        """The deletions of callers that are noted, so that an old export or backup does not bring them back.

        `voiceprint.storage.deletions.DeletionList` looks callers up in them.
        """

    @abstractmethod
    def get(self, caller_id: str) -> Caller | None:
        """The caller with all voiceprints, oldest first, or None."""

    @abstractmethod
    def get_many(self, ids: Iterable[int]) -> dict[int, Voiceprint]:
        """Voiceprints by their ids; an id that is not in the store is left out."""

    def callers_of(self, ids: Iterable[int]) -> list[Caller]:
        """The callers who have these voiceprints, each once and with all voiceprints, in the order of `ids`.

        An id that is not in the store is passed over. Stores that can read many callers at once do.
        """
        owners = dict.fromkeys(voiceprint.caller_id for voiceprint in self.get_many(ids).values())
        found = (self.get(caller_id) for caller_id in owners)
        return [caller for caller in found if caller is not None]

    @abstractmethod
    def callers(self, *, after: str = "", limit: int = DEFAULT_PAGE) -> list[Caller]:
        """One page of callers, in the code-point order of their ids.

        `after`: the last caller id of the page before ("" for the first page). A page with fewer
        than `limit` callers is the last one.
        """

    @abstractmethod
    def count(self) -> int:
        """How many voiceprints there are."""

    @abstractmethod
    def count_callers(self) -> int:
        """How many callers there are."""

    @abstractmethod
    def spaces(self) -> dict[str, int]:
        """How many voiceprints there are of each embedding space, by the name of its encoder."""

    def get_all(self) -> list[Voiceprint]:
        """Every voiceprint, in the order of caller ids. For large stores, use `callers` or `scan`."""
        return [voiceprint for caller in self.iter_callers() for voiceprint in caller.voiceprints]

    @abstractmethod
    def at_one_moment(self, work: Callable[[Moment], T]) -> T:
        """The result of `work` on the whole store as of one moment, while others go on writing: for backups.

        work: called with the state; the callers can be iterated once, while it runs. It may be called again
        where the store could not be read to the end.
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

    # Following: what a derived index lives on

    @abstractmethod
    def revision(self) -> int:
        """A number that grows with every committed change, whichever process made it. Cheap.

        With a `touch` it may grow or not: that is no change to who follows the store.
        """

    @abstractmethod
    def position(self) -> Position:
        """Where the history of the voiceprints stands: another value after every commit that changes one,
        and the same while only metadata and times change. Cheap.
        """

    @abstractmethod
    def changes(self, since: Position, *, encoder: str = RESEMBLYZER_SPACE) -> Changes | None:
        """The changes after position `since` of the voiceprints of one embedding space.

        None: the store does not remember that far back, or `since` is not of its history, as after a
        rewind. Then the follower rebuilds: read `position()`, then `scan()`, then `changes()` from there.
        """

    @abstractmethod
    def scan(
        self, *, encoder: str = RESEMBLYZER_SPACE, batch_size: int = DEFAULT_BATCH
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """All voiceprints of one embedding space in batches of ids int64[n], float32[n, dimension]."""

    # Keeping

    def flush_removals(self, timeout_s: float = FLUSH_S) -> bool:  # noqa: ARG002  there is nothing to wait for
        """Wait until what was removed through this handle is gone from the disk too; False if not in time.

        A change that removes or replaces an embedding or metadata does so itself before it returns, with
        two exceptions on SQLite. Where other connections keep it up for more than 1 s, which is logged, a
        later operation of this process or its end does it. And a database of more than 20 MB is seen to in a
        thread, for no more than a twentieth of the time: within about a minute a GB. What a Redis server and
        a PostgreSQL server keep on their disks is theirs to see to.
        """
        return True

    @contextmanager
    def removing_many(self) -> Iterator[None]:
        """Within it, the changes of this thread leave the disk to be seen to once at the end."""
        yield

    @abstractmethod
    def check(self, *, fix: bool = False) -> list[Finding]:
        """Read every record and say what is wrong with it; an empty list when all is well.

        fix: repair what can be derived anew from the records, such as a counter or an order; a record
        itself is never changed. What was repaired is not among the findings.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what this handle holds. May be called twice; anything else then is a `StorageError`."""

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


def check_limit(limit: int | None, default: int = DEFAULT_MAX_VOICEPRINTS) -> int:
    """A limit of voiceprints a caller: a whole number from 1, or `default` for None."""
    if limit is None:
        return default
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidArgumentError(
            f"The limit of voiceprints per caller is {limit!r}: a whole number from 1 is allowed."
        )
    return limit


def check_page(limit: int) -> int:
    """The size of a page or batch: a whole number from 1."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidArgumentError(f"The page size is {limit!r}: a whole number from 1 is allowed.")
    return limit


def check_ids(ids: Iterable[int]) -> list[int]:
    """Ids of voiceprints as plain ints; numpy's integers are taken too."""
    try:
        return [operator.index(id_) for id_ in ids]
    except TypeError as error:
        raise InvalidArgumentError("The ids of voiceprints are whole numbers in a list or array.") from error


def check_after(after: str) -> str:
    """The caller id that a page comes after; "" for the first page."""
    return after if after == "" else check_caller_id(after)


def check_position(since: Position) -> Position:
    """A position to read the change feed from."""
    if not isinstance(since, Position):
        raise InvalidArgumentError(
            f"The position in the feed is a {type(since).__name__}: give what `position()` gave, or START."
        )
    return since


def reported(items: list[T], progress: Progress | None, every: int = 1_000) -> Iterator[T]:
    """The items; `progress` is told at every `every`th, and at the end, how many are done."""
    for done, item in enumerate(items, start=1):
        yield item
        if progress is not None and (done % every == 0 or done == len(items)):
            progress(done)
