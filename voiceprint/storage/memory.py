"""The store in memory, and the base of every store that answers from memory."""

from __future__ import annotations

import threading
import uuid
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from heapq import nsmallest
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from voiceprint.models import RESEMBLYZER_SPACE, Caller, Finding, Voiceprint
from voiceprint.storage.arguments import (
    check_after,
    check_caller_ids,
    check_ids,
    check_limit,
    check_page,
    check_position,
    with_progress,
)
from voiceprint.storage.base import (
    DEFAULT_BATCH,
    DEFAULT_MAX_VOICEPRINTS,
    DEFAULT_PAGE,
    Batch,
    Changes,
    ConsistentView,
    Deletion,
    Position,
    Progress,
    SpaceCounts,
    Storage,
)
from voiceprint.storage.data_keys import KeyedChanges
from voiceprint.storage.records import as_arrays
from voiceprint.storage.state import StoreState
from voiceprint.storage.transaction import Transaction, check_incoming
from voiceprint.validation import check_caller_id

__all__ = ["InMemoryStateStorage", "MemoryStorage"]

T = TypeVar("T")


class InMemoryStateStorage(Storage):
    """A store with its whole state in memory. A subclass reads the state and commits transactions."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[StoreState]:
        """The committed state, which does not change until the context ends."""

    @abstractmethod
    def _writing(self, *, creates: bool = True) -> AbstractContextManager[Transaction]:
        """An empty transaction, which is committed when the context ends without an error.

        creates: whether a missing store is created. Without it, the transaction on one must stay empty.
        """

    def identity(self) -> str:
        with self._reading() as state:
            return state.identity

    def save_many(
        self,
        voiceprints: Iterable[Voiceprint],
        *,
        max_voiceprints: int | None = None,
        require_consent: bool = False,
        progress: Progress | None = None,
    ) -> list[Voiceprint]:
        limit = check_limit(max_voiceprints, self.max_voiceprints_per_caller)
        given = list(voiceprints)  # before the lock: the iterable may be slow, or use this store
        with self._writing(creates=bool(given)) as transaction:
            return [
                transaction.save(voiceprint, limit, require_consent=require_consent)
                for voiceprint in with_progress(given, progress)
            ]

    def restore_many(self, callers: Iterable[Caller], *, progress: Progress | None = None) -> int:
        given = check_incoming(callers)
        with self._writing(creates=bool(given)) as transaction:
            return sum(transaction.restore(caller) for caller in with_progress(given, progress))

    def _transact(
        self,
        caller_ids: list[str],  # noqa: ARG002  the state has all callers
        work: Callable[[Transaction], T],
        *,
        creates: bool = False,
        fresh: int = 0,  # noqa: ARG002  ids need no reservation
    ) -> T:
        with self._writing(creates=creates) as transaction:
            return work(transaction)

    def note_deletions(self, deletions: Iterable[Deletion]) -> int:
        given = list(deletions)
        with self._writing(creates=bool(given)) as transaction:
            return transaction.note_deletions(given, transaction.base.deletions)

    def deletions(self) -> list[Deletion]:
        with self._reading() as state:
            return _deletions(state)

    def get(self, caller_id: str) -> Caller | None:
        caller_id = check_caller_id(caller_id)
        with self._reading() as state:
            record = state.callers.get(caller_id)
        return None if record is None else record.caller()

    def get_callers(self, caller_ids: Iterable[str]) -> dict[str, Caller]:
        wanted = check_caller_ids(caller_ids)
        with self._reading() as state:
            found = [state.callers[name] for name in wanted if name in state.callers]
        return {record.caller_id: record.caller() for record in found}

    def callers_of(self, ids: Iterable[int]) -> list[Caller]:
        wanted = check_ids(ids)
        with self._reading() as state:
            owners = dict.fromkeys(state.owner[id_] for id_ in wanted if id_ in state.owner)
            found = [state.callers[owner] for owner in owners]
        return [record.caller() for record in found]

    def callers(self, *, after: str = "", limit: int = DEFAULT_PAGE) -> list[Caller]:
        limit = check_page(limit)
        after = check_after(after)
        with self._reading() as state:
            names = nsmallest(limit, (name for name in state.callers if name > after))
            page = [state.callers[name] for name in names]
        return [record.caller() for record in page]

    def read_consistently(self, work: Callable[[ConsistentView], T]) -> T:
        with self._reading() as state:
            records = [state.callers[name] for name in sorted(state.callers)]
            identity, position, deletions = state.identity, state.position, _deletions(state)
        return work(ConsistentView(identity, position, deletions, (record.caller() for record in records)))

    def count(self) -> int:
        with self._reading() as state:
            return len(state.owner)

    def spaces(self) -> dict[str, int]:
        with self._reading() as state:
            return dict(Counter(print_.encoder for c in state.callers.values() for print_ in c.voiceprints))

    def coverage(self) -> dict[str, SpaceCounts]:
        with self._reading() as state:
            return state.coverage()

    def count_callers(self) -> int:
        with self._reading() as state:
            return len(state.callers)

    def count_enrolled(self) -> int:
        with self._reading() as state:
            return sum(bool(caller.voiceprints) for caller in state.callers.values())

    def group_ids(self, *, encoder: str = RESEMBLYZER_SPACE) -> dict[str, NDArray[np.int64]]:
        with self._reading() as state:
            return state.group_ids(encoder)

    def revision(self) -> int:
        with self._reading() as state:
            return state.revision

    def position(self) -> Position:
        with self._reading() as state:
            return state.position

    def changes(self, since: Position, *, encoder: str = RESEMBLYZER_SPACE) -> Changes | None:
        check_position(since)
        with self._reading() as state:
            return state.changes(since, encoder)

    def scan(self, *, encoder: str = RESEMBLYZER_SPACE, batch_size: int = DEFAULT_BATCH) -> Iterator[Batch]:
        size = check_page(batch_size)
        with self._reading() as state:
            prints = state.prints(encoder)
        return (as_arrays(prints[at : at + size]) for at in range(0, len(prints), size))

    def encryption_mark(self) -> str:
        with self._reading() as state:
            return state.encryption

    def data_keys(self, *, after: str = "", limit: int = DEFAULT_PAGE) -> list[tuple[str, bytes | None]]:
        with self._reading() as state:
            names = nsmallest(check_page(limit), (name for name in state.callers if name > after))
            return [(name, state.callers[name].data_key) for name in names]

    def forgotten_callers(self) -> list[str]:
        with self._reading() as state:
            return state.forgotten

    def data_key(self, caller_id: str) -> bytes | None:
        with self._reading() as state:
            record = state.callers.get(caller_id)
            return None if record is None else record.data_key

    def _change_keys(self, caller_ids: list[str], work: Callable[[KeyedChanges], T]) -> list[T]:
        return [self._transact(caller_ids, work)]

    def check(self, *, fix: bool = False) -> list[Finding]:
        findings = self.check_keys(fix=fix)
        with self._reading() as state:
            return findings + state.check(self.max_voiceprints_per_caller)

    def close(self) -> None:
        self._closed = True


class MemoryStorage(InMemoryStateStorage):
    """Callers in the memory of this process. Each object is a store of its own.

    For tests and trials, and the model that the other stores are tested against.
    """

    is_persistent: ClassVar[bool] = False

    def __init__(self, *, max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS) -> None:
        super().__init__(max_voiceprints_per_caller=max_voiceprints_per_caller)
        self._lock = threading.RLock()
        self._state = StoreState(identity=uuid.uuid4().hex)

    @property
    def location(self) -> str:
        return f"memory:{self._state.identity}"

    @contextmanager
    def _reading(self) -> Iterator[StoreState]:
        with self._lock:
            self._check_open()
            yield self._state

    def exists(self) -> bool:
        self._check_open()
        return True

    @contextmanager
    def _writing(self, *, creates: bool = True) -> Iterator[Transaction]:  # noqa: ARG002  it exists
        with self._lock:
            self._check_open()
            transaction = Transaction(self._state)
            yield transaction
            if transaction:
                self._state.apply(transaction)


def _deletions(state: StoreState) -> list[Deletion]:
    return [Deletion(key, digest, time) for (key, digest), time in state.deletions.items()]
