"""What the stores that hold all records in memory have in common: every method but how to commit."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from heapq import nsmallest
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import StorageError
from voiceprint.models import RESEMBLYZER_SPACE, Caller, Finding, Voiceprint
from voiceprint.storage.base import (
    DEFAULT_BATCH,
    DEFAULT_MAX_VOICEPRINTS,
    DEFAULT_PAGE,
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
from voiceprint.storage.records import Change, Records, as_arrays
from voiceprint.validation import check_caller_id

T = TypeVar("T")


class ResidentStorage(Storage):
    """A store that answers from memory. A subclass says how a state is read and a change committed."""

    def __init__(self, *, max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS) -> None:
        super().__init__(max_voiceprints_per_caller=max_voiceprints_per_caller)
        self._closed = False

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Records]:
        """The committed state, which stays as it is until the context ends."""

    @abstractmethod
    def _writing(self, *, creates: bool = True) -> AbstractContextManager[Change]:
        """An empty change on the committed state; it is committed when the context ends without an error.

        creates: whether the store is created if it is not there. Without it, the change must be none then.
        """

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"The store {self.location} was closed: open it again.")

    def identity(self) -> str:
        with self._reading() as records:
            return records.identity

    def save_many(
        self,
        voiceprints: Iterable[Voiceprint],
        *,
        max_voiceprints: int | None = None,
        progress: Progress | None = None,
    ) -> list[Voiceprint]:
        limit = check_limit(max_voiceprints, self.max_voiceprints_per_caller)
        # Taken in before the lock: the iterable may be slow, or use this store.
        voiceprints = list(voiceprints)
        with self._writing(creates=bool(voiceprints)) as change:
            return [change.save(voiceprint, limit) for voiceprint in reported(voiceprints, progress)]

    def restore_many(self, callers: Iterable[Caller], *, progress: Progress | None = None) -> int:
        given = check_incoming(callers)
        with self._writing(creates=bool(given)) as change:
            return sum(change.restore(caller) for caller in reported(given, progress))

    def delete(self, caller_id: str, *, unless_seen_since: str | None = None) -> int:
        with self._writing(creates=False) as change:
            return change.delete(caller_id, unless_seen_since)

    def update_metadata(self, caller_id: str, metadata: dict[str, Any], *, replace: bool = False) -> Caller:
        with self._writing(creates=False) as change:
            return change.update_metadata(caller_id, metadata, put=replace).caller()

    def touch(self, caller_id: str, when: str | None = None) -> bool:
        with self._writing(creates=False) as change:
            return change.touch(caller_id, when)

    def note_deletions(self, deletions: Iterable[Deletion]) -> int:
        given = list(deletions)
        with self._writing(creates=bool(given)) as change:
            return change.note_deletions(given, change.base.deletions)

    def deletions(self) -> list[Deletion]:
        with self._reading() as records:
            return [Deletion(key, digest, time) for (key, digest), time in records.deletions.items()]

    def get(self, caller_id: str) -> Caller | None:
        caller_id = check_caller_id(caller_id)
        with self._reading() as records:
            record = records.callers.get(caller_id)
        return None if record is None else record.caller()

    def get_many(self, ids: Iterable[int]) -> dict[int, Voiceprint]:
        wanted = check_ids(ids)
        found = {}
        with self._reading() as records:
            for id_ in wanted:
                owner = records.owner.get(id_)
                if owner is not None:
                    caller = records.callers[owner]
                    found[id_] = (caller, next(p for p in caller.prints if p.id == id_))
        return {id_: caller.voiceprint(print_) for id_, (caller, print_) in found.items()}

    def callers_of(self, ids: Iterable[int]) -> list[Caller]:
        wanted = check_ids(ids)
        with self._reading() as records:
            owners = dict.fromkeys(records.owner[id_] for id_ in wanted if id_ in records.owner)
            found = [records.callers[owner] for owner in owners]
        return [record.caller() for record in found]

    def callers(self, *, after: str = "", limit: int = DEFAULT_PAGE) -> list[Caller]:
        check_page(limit)
        after = check_after(after)
        with self._reading() as records:
            names = nsmallest(limit, (name for name in records.callers if name > after))
            page = [records.callers[name] for name in names]
        return [record.caller() for record in page]

    def at_one_moment(self, work: Callable[[Moment], T]) -> T:
        with self._reading() as records:
            held = [records.callers[name] for name in sorted(records.callers)]
            identity, position = records.identity, records.position
        noted = self.deletions()
        return work(Moment(identity, position, noted, (record.caller() for record in held)))

    def count(self) -> int:
        with self._reading() as records:
            return len(records.owner)

    def spaces(self) -> dict[str, int]:
        with self._reading() as records:
            return dict(Counter(print_.encoder for c in records.callers.values() for print_ in c.prints))

    def count_callers(self) -> int:
        with self._reading() as records:
            return len(records.callers)

    def revision(self) -> int:
        with self._reading() as records:
            return records.revision

    def position(self) -> Position:
        with self._reading() as records:
            return records.position

    def changes(self, since: Position, *, encoder: str = RESEMBLYZER_SPACE) -> Changes | None:
        check_position(since)
        with self._reading() as records:
            return records.changes(since, encoder)

    def scan(
        self, *, encoder: str = RESEMBLYZER_SPACE, batch_size: int = DEFAULT_BATCH
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        check_page(batch_size)
        with self._reading() as records:
            prints = records.prints(encoder)
        return (as_arrays(prints[at : at + batch_size]) for at in range(0, len(prints), batch_size))

    def check(self, *, fix: bool = False) -> list[Finding]:  # noqa: ARG002  nothing is derived here
        with self._reading() as records:
            return records.check(self.max_voiceprints_per_caller)
