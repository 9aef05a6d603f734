"""Commits to a Redis store: the rules run here, on the records that they need, and one script commits.

The script compares the version of each record with the one that the rules ran on. If another process was
faster, nothing is written, and the rules run again on the new records.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from voiceprint.errors import StorageUnavailableError
from voiceprint.storage.deletions import deletion_digest
from voiceprint.storage.records import CallerRecord
from voiceprint.storage.redis.connection import RedisConnection
from voiceprint.storage.redis.format import (
    data_key_of,
    decode_record,
    encode_record,
    record_format,
    version_of,
)
from voiceprint.storage.redis.keys import Shard
from voiceprint.storage.redis.scripts import BUMP_NEXT_ID, COMMIT, INIT_STORE, LOAD
from voiceprint.storage.sealed_codec import StoreSeals
from voiceprint.storage.sealing import Sealing, missing_key
from voiceprint.storage.state import MAX_COMMITS, MAX_TOMBSTONES, StoreState
from voiceprint.storage.transaction import Transaction

T = TypeVar("T")

# Records of one request; 3 KB each.
_LOAD_SIZE = 500

# A server writes about 50,000 records a second. A large commit gets a second more for each of these.
_RECORDS_PER_SECOND = 10_000

# Embedding space to the number of its voiceprints and their length.
_Spaces = dict[str, tuple[int, int]]


class PartialTransaction(Transaction):
    """A transaction on the callers that it needs; spaces: the server's counts of embedding spaces."""

    def __init__(
        self,
        base: StoreState,
        spaces: _Spaces,
        sealing: Sealing | None = None,
        *,
        is_new: bool | None = None,
    ) -> None:
        super().__init__(base, sealing, is_new=is_new)
        self._spaces = spaces

    def growth(self) -> dict[str, int]:
        """The growth of each embedding space, in voiceprints."""
        grown: dict[str, int] = {}
        for caller_id, after in self.callers.items():
            before = self.base.callers.get(caller_id)
            for record, step in ((before, -1), (after, 1)):
                for print_ in record.voiceprints if record is not None else ():
                    grown[print_.encoder] = grown.get(print_.encoder, 0) + step
        return grown

    def put(self, record: CallerRecord) -> None:
        """Add a new caller, whose voiceprints get ids."""
        prints = []
        for print_ in record.voiceprints:
            self._check_dimension(print_.encoder, print_.embedding.size)
            prints.append(replace(print_, id=self.new_id(record.caller_id)))
        self.callers[record.caller_id] = replace(record, voiceprints=tuple(prints))
        self.changes_voiceprints = True

    def _has_prints(self, encoder: str) -> bool:
        return self._spaces.get(encoder, (0, 0))[0] + self.growth().get(encoder, 0) > 0


@dataclass
class Task(Generic[T]):
    """A transaction on callers of one shard.

    work: applies the rules, and may be called again. fresh: the most new ids that it needs; ids: given ones,
    whose owners it needs. new_spaces: whether it may add an embedding space that no shard has yet. old: keys
    of OpusAgent and their values, which the commit removes.
    """

    shard: Shard
    callers: list[str]
    work: Callable[[PartialTransaction], T]
    fresh: int = 0
    ids: Sequence[int] = ()
    new_spaces: bool = False
    old: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Committed(Generic[T]):
    """Result of a task. revision: of its commit; planned: the one that the rules assumed; removes: whether it
    removed or replaced a voiceprint."""

    result: T
    revision: int
    planned: int
    removes: bool


@dataclass
class _Prepared(Generic[T]):
    task: Task[T]
    transaction: PartialTransaction
    result: T
    versions: dict[str, str]  # of the records that the transaction is based on
    clock_offset_us: float  # the server's clock minus this process's monotonic one
    unused_keys: list[bytes] = field(default_factory=list)  # data keys that the commit leaves without use


class Committer:
    """Runs tasks against the shards of one store. seals: of its callers."""

    def __init__(self, connection: RedisConnection, shards: list[Shard], seals: StoreSeals) -> None:
        self.seals = seals
        self.connection = connection
        self.shards = shards

    def run(self, tasks: list[Task[T]], *, adopted: str = "1") -> list[Committed[T]]:
        """Run all tasks. The rules run on all of them, and may refuse them, before the first commit."""
        prepared = [self._prepare(task) for task in tasks]
        return [self._commit(each, adopted) for each in prepared]

    def try_once(self, task: Task[T]) -> bool:
        """Run a task that removes old keys; False if another process has changed them or the callers."""
        return self._try_commit(self._prepare(task), adopted="") is not None

    def _prepare(self, task: Task[T]) -> _Prepared[T]:
        spaces: _Spaces = {}
        identity, first_id, mark = "", None, b""
        if len(self.shards) > 1:
            identity = self.init_store()
            head = self._load_head(self.shards[0], fresh=task.fresh)
            first_id, mark = int(head[4]), head[11]
            if task.new_spaces:
                for shard in self.shards:
                    _merge(spaces, _spaces(self._load_head(shard)[7]))
        # No ids are reserved while the store has no identity: of several first writers that encrypt, one
        # gives it, and the records of the others are prepared again.
        is_unnamed = self.seals.sealing is not None and not self.seals.store
        loaded = self._load(task, 0 if len(self.shards) > 1 or is_unnamed else task.fresh)
        _, clock, revision, floor, next_id, _, own_identity, own_spaces, owners, *_ = loaded[0]
        if not spaces:
            spaces = _spaces(own_spaces)
        store = identity or (own_identity or b"").decode()
        mark = mark or loaded[0][11]
        seals = StoreSeals(self.seals.sealing, lambda: store, mark.decode(errors="replace"))
        offset = int(clock[0]) * 1e6 + int(clock[1]) - time.monotonic() * 1e6
        values = [value for answer in loaded for value in answer[9]]
        with seals.prefetched(map(data_key_of, values)):
            records = [
                decode_record(value, caller_id, task.shard.caller(caller_id), seals)
                for caller_id, value in zip(task.callers, values, strict=True)
                if value is not None
            ]
        state = StoreState(
            records,
            identity=store,
            revision=int(revision),
            next_id=first_id if first_id is not None else int(next_id),
            feed_floor=int(floor),
            encryption=seals.mark,
        )
        if any(answer[10] for answer in loaded):
            state.deletions = self._deletions_of(task, state)
        found = list(owners)
        for shard in self.shards if task.ids else ():
            if shard is not task.shard:
                others = self._load_head(shard, ids=task.ids)[8]
                found = [mine or other for mine, other in zip(found, others, strict=True)]
        for id_, owner in zip(task.ids, found, strict=True):
            if owner is not None:
                state.owner[id_] = owner.decode()
        state.dimensions.update({encoder: size for encoder, (count, size) in spaces.items() if count > 0})
        # A store of several shards is marked by `init_store`.
        is_new = None if len(self.shards) == 1 else False
        transaction = PartialTransaction(state, spaces, self.seals.sealing, is_new=is_new)
        result = task.work(transaction)
        versions = {name: version_of(value) for name, value in zip(task.callers, values, strict=True)}
        return _Prepared(task, transaction, result, versions, offset)

    def _deletions_of(self, task: Task[T], state: StoreState) -> dict[tuple[str, str], str]:
        """The noted deletions of the callers of the task who are not in the store."""
        digests = [
            deletion_digest(state.identity, name) for name in task.callers if name not in state.callers
        ]
        if not digests:
            return {}
        fields = [f"{state.identity}:{digest}" for digest in digests]
        times = self.connection.call("HMGET", task.shard.deleted, *fields)
        return {
            (state.identity, digest): time.decode(errors="replace")
            for digest, time in zip(digests, times, strict=True)
            if time is not None
        }

    def _load(self, task: Task[T], fresh: int) -> list[list[Any]]:
        answers = []
        for start in range(0, max(1, len(task.callers)), _LOAD_SIZE):
            names = task.callers[start : start + _LOAD_SIZE]
            keys = [*task.shard.fixed, *(task.shard.caller(name) for name in names)]
            request = _load_request(fresh, task.ids) if start == 0 else _load_request()
            answers.append(self.connection.run(LOAD, keys, request))
        return answers

    def _load_head(self, shard: Shard, *, fresh: int = 0, ids: Sequence[int] = ()) -> list[Any]:
        return self.connection.run(LOAD, shard.fixed, _load_request(fresh, ids))

    def init_store(self) -> str:
        """The identity of a store of several shards, which gets one if it has none."""
        new = Transaction(StoreState(), self.seals.sealing)
        request = {
            "identity": new.identity,
            "shards": str(len(self.shards)),
            "encryption": new.encryption,
        }
        _, identity, shards = self.connection.run(INIT_STORE, self.shards[0].fixed, request)
        self._check_shards(shards)
        return str(identity.decode())

    def _check_shards(self, shards: bytes) -> None:
        if int(shards) != len(self.shards):
            raise StorageUnavailableError(
                f"The store was created anew with {int(shards)} shards, and this handle has "
                f"{len(self.shards)}: open it again."
            )

    def _commit(self, prepared: _Prepared[T], adopted: str) -> Committed[T]:
        deadline = time.monotonic() + self.connection.timeout_s
        conflicts = 0
        while True:
            transaction = prepared.transaction
            if not transaction and not prepared.task.old:
                revision = transaction.base.revision
                return Committed(prepared.result, revision, transaction.revision, removes=False)
            committed = self._try_commit(prepared, adopted)
            if committed is not None:
                if self.seals.sealing is not None:
                    self.seals.sealing.forget(prepared.unused_keys)
                removes = transaction.removes_voiceprints()
                return Committed(prepared.result, committed, transaction.revision, removes)
            if time.monotonic() > deadline:
                raise StorageUnavailableError(
                    f"Other processes have changed the same callers for "
                    f"{self.connection.timeout_s:g} s. Try again."
                )
            conflicts += 1
            # At random, so that competing processes do not collide again.
            time.sleep(random.uniform(0, min(0.05, 0.001 * 2**conflicts)))  # noqa: S311  not for secrets
            prepared = self._prepare(prepared.task)

    def _try_commit(self, prepared: _Prepared[T], adopted: str) -> int | None:
        """The revision of the commit, or None if another process was faster."""
        answer = self._send(prepared, adopted)
        if answer[0] == b"shards":
            self._check_shards(answer[1])
        if answer[0] == b"encrypted":
            raise missing_key()
        if answer[0] == b"late":
            raise StorageUnavailableError(
                "The Redis server was too slow to make the change in time: nothing was changed. Try again."
            )
        return int(answer[1]) if answer[0] == b"ok" else None

    def _send(self, prepared: _Prepared[T], adopted: str) -> list[Any]:
        task, transaction = prepared.task, prepared.transaction
        extra_s = len(transaction.callers) // _RECORDS_PER_SECOND
        now_us = time.monotonic() * 1e6 + prepared.clock_offset_us
        is_first = task.shard.number == 0
        owned: set[int] = set()
        callers: list[dict[str, Any]] = []
        prepared.unused_keys = transaction.give_data_keys()
        seals = StoreSeals(self.seals.sealing, lambda: transaction.identity, transaction.encryption)
        records = transaction.callers
        with seals.prefetched(record.data_key for record in records.values() if record is not None):
            bodies = [
                encode_record(record, transaction.revision, seals) if record is not None else b""
                for record in records.values()
            ]
        for caller_id, record in records.items():
            prints = record.voiceprints if record is not None else ()
            owned.update(print_.id for print_ in prints)
            callers.append(
                {
                    "id": caller_id,
                    "version": prepared.versions[caller_id],
                    "new": [str(print_.id) for print_ in prints if print_.revision == transaction.revision],
                    "format": record_format(record) if record is not None else "",
                    "grouped": record is not None and bool(record.groups),
                    "bare": not prints,
                }
            )
        request = {
            "until_us": int(now_us + (self.connection.timeout_s + extra_s) * 1e6),
            "identity": transaction.identity if is_first else "",
            "shards": str(len(self.shards)),
            "adopted": adopted if is_first else "",
            "store": transaction.identity,
            "encryption": transaction.encryption,
            "marks": transaction.encryption != transaction.base.encryption,
            "next_id": str(transaction.next_id),
            "spaces": [
                {"encoder": encoder, "growth": growth, "size": str(transaction.dimensions.get(encoder, ""))}
                for encoder, growth in transaction.growth().items()
            ],
            "removed": [str(id_) for id_ in transaction.removed],
            "ownerless": [str(id_) for id_ in transaction.removed if id_ not in owned],
            "token": transaction.token if transaction.changes_voiceprints else "",
            "tombstones": MAX_TOMBSTONES,
            "commits": MAX_COMMITS,
            "callers": callers,
            "deletions": [
                {"key": key, "digest": digest, "time": deleted_at}
                for (key, digest), deleted_at in transaction.deletions.items()
            ],
        }
        if len(self.shards) > 1:
            next_id = {"next_id": str(transaction.next_id)}
            self.connection.run(BUMP_NEXT_ID, self.shards[0].fixed, next_id)
        # In a cluster the old keys are in other slots; they are removed afterwards.
        old = {} if self.connection.is_cluster else task.old
        keys = [*task.shard.fixed, *map(task.shard.caller, transaction.callers), *old]
        return self.connection.run(COMMIT, keys, request, [*bodies, *old.values()], extra_s=extra_s)


def _load_request(fresh: int = 0, ids: Sequence[int] = ()) -> dict[str, Any]:
    return {"fresh": fresh, "ids": [str(id_) for id_ in ids]}


def _spaces(flat: list[bytes]) -> _Spaces:
    values = {flat[at].decode(): int(flat[at + 1]) for at in range(0, len(flat), 2)}
    return {
        name[2:]: (count, values.get(f"d:{name[2:]}", 0))
        for name, count in values.items()
        if name.startswith("n:")
    }


def _merge(spaces: _Spaces, more: _Spaces) -> None:
    for encoder, (count, size) in more.items():
        spaces[encoder] = spaces.get(encoder, (0, 0))[0] + count, size
