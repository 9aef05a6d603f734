"""Changes of a Redis store: the rules run here, on the records that they touch, and one script commits.

The script looks whether each record is still the version that the rules ran on. If another process was
faster, nothing is written, and the rules run again on what it left.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from voiceprint.errors import StorageUnavailableError
from voiceprint.storage.records import (
    MAX_COMMITS,
    MAX_TOMBSTONES,
    CallerRecord,
    Change,
    Records,
    deletion_digest,
)
from voiceprint.storage.redis.client import Server
from voiceprint.storage.redis.format import decode_record, encode_record, record_format, token_of
from voiceprint.storage.redis.keys import Shard
from voiceprint.storage.redis.scripts import BEGIN, COMMIT, LOAD, RAISE
from voiceprint.storage.removals import removes_voiceprints

T = TypeVar("T")

# Records asked for at once; 3 KB each.
_LOADED_AT_ONCE = 500

# A server changes about 50,000 records a second: so much longer may a large change take.
_RECORDS_A_SECOND = 10_000

# Embedding spaces are looked up by name alone, so two shards may learn of one at the same time.
_Spaces = dict[str, tuple[int, int]]


class PartialChange(Change):
    """A change on those records that it touches; how many prints a space has is the server's count."""

    def __init__(self, base: Records, spaces: _Spaces) -> None:
        super().__init__(base)
        self._spaces = spaces

    def growth(self) -> dict[str, int]:
        """By how many prints this change makes each space larger."""
        grown: dict[str, int] = {}
        for caller_id, after in self.callers.items():
            before = self.base.callers.get(caller_id)
            for record, step in ((before, -1), (after, 1)):
                for print_ in record.prints if record is not None else ():
                    grown[print_.encoder] = grown.get(print_.encoder, 0) + step
        return grown

    def put(self, record: CallerRecord) -> None:
        """Add a caller who is not there yet, with prints of this change, which get ids."""
        prints = []
        for print_ in record.prints:
            self._check_dimension(print_.encoder, print_.embedding.size)
            prints.append(replace(print_, id=self.new_id(record.caller_id)))
        self.callers[record.caller_id] = replace(record, prints=tuple(prints))
        self.touches_prints = True

    def _has_prints(self, encoder: str) -> bool:
        return self._spaces.get(encoder, (0, 0))[0] + self.growth().get(encoder, 0) > 0


@dataclass
class Task(Generic[T]):
    """A change of some callers of one shard.

    work: applies the rules, and may be called again. fresh: how many new ids it may need; ids: given ones,
    whose owners it must know. new_spaces: whether it may bring an embedding space that no shard has yet.
    old: keys of OpusAgent and what they hold, which go with the commit.
    """

    shard: Shard
    callers: list[str]
    work: Callable[[PartialChange], T]
    fresh: int = 0
    ids: Sequence[int] = ()
    new_spaces: bool = False
    old: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Done(Generic[T]):
    """Result of a task; revision: of its commit, planned: what the rules took it to be; removes: whether it
    removed or replaced a voiceprint."""

    result: T
    revision: int
    planned: int
    removes: bool


@dataclass
class _Ready(Generic[T]):
    task: Task[T]
    change: PartialChange
    result: T
    tokens: dict[str, bytes]
    clock_ahead_us: float  # of the server's clock, before this process's monotonic one


class Committer:
    """Runs tasks against the shards of one store."""

    def __init__(self, server: Server, shards: list[Shard]) -> None:
        self.server = server
        self.shards = shards

    def run(self, tasks: list[Task[T]], *, adopted: str = "1") -> list[Done[T]]:
        """Do all the tasks. The rules run on all of them before the first is committed."""
        # Before the first commit, all that the rules refuse has been refused.
        ready = [self._prepare(task) for task in tasks]
        return [self._commit(each, adopted) for each in ready]

    def try_once(self, task: Task[T]) -> bool:
        """Do a task that goes with old keys; False if something has changed meanwhile."""
        return self._answered(self._prepare(task), adopted="") is not None

    def _prepare(self, task: Task[T]) -> _Ready[T]:
        spaces: _Spaces = {}
        identity, first_id = "", None
        if len(self.shards) > 1:
            identity = self.begin()
            first_id = int(self.server.run(LOAD, self.shards[0].fixed, [task.fresh])[4])
            if task.new_spaces:
                for shard in self.shards:
                    _merge(spaces, _spaces(self.server.run(LOAD, shard.fixed, [0])[7]))
        loaded = self._load(task, 0 if len(self.shards) > 1 else task.fresh)
        _, clock, revision, floor, next_id, _, own_identity, own_spaces, owners, *_ = loaded[0]
        if not spaces:
            spaces = _spaces(own_spaces)
        ahead = int(clock[0]) * 1e6 + int(clock[1]) - time.monotonic() * 1e6
        values = [value for answer in loaded for value in answer[9]]
        records = Records(
            [
                decode_record(value, caller_id, task.shard.caller(caller_id))
                for caller_id, value in zip(task.callers, values, strict=True)
                if value is not None
            ],
            identity=identity or (own_identity or b"").decode(),
            revision=int(revision),
            next_id=first_id if first_id is not None else int(next_id),
            feed_floor=int(floor),
        )
        if any(answer[10] for answer in loaded):
            records.deletions = self._deletions_of(task, records)
        found = list(owners)
        for shard in self.shards if task.ids else ():
            if shard is not task.shard:
                others = self.server.run(LOAD, shard.fixed, [0, *task.ids])[8]
                found = [mine or other for mine, other in zip(found, others, strict=True)]
        for id_, owner in zip(task.ids, found, strict=True):
            if owner is not None:
                records.owner[id_] = owner.decode()
        records.dimensions.update({encoder: size for encoder, (count, size) in spaces.items() if count > 0})
        change = PartialChange(records, spaces)
        result = task.work(change)
        tokens = {name: token_of(value) for name, value in zip(task.callers, values, strict=True)}
        return _Ready(task, change, result, tokens, ahead)

    def _deletions_of(self, task: Task[T], records: Records) -> dict[tuple[str, str], str]:
        """The noted deletions of those callers of the task who are not in the store."""
        digests = [
            deletion_digest(records.identity, name) for name in task.callers if name not in records.callers
        ]
        if not digests:
            return {}
        fields = [f"{records.identity}:{digest}" for digest in digests]
        times = self.server.call("HMGET", task.shard.deleted, *fields)
        return {
            (records.identity, digest): time.decode(errors="replace")
            for digest, time in zip(digests, times, strict=True)
            if time is not None
        }

    def _load(self, task: Task[T], fresh: int) -> list[list[Any]]:
        answers = []
        for start in range(0, max(1, len(task.callers)), _LOADED_AT_ONCE):
            names = task.callers[start : start + _LOADED_AT_ONCE]
            keys = [*task.shard.fixed, *(task.shard.caller(name) for name in names)]
            asked = [fresh, *task.ids] if start == 0 else [0]
            answer = self.server.run(LOAD, keys, asked)
            answers.append(answer)
        return answers

    def begin(self) -> str:
        """Give a store of several shards its identity, if it has none yet; and say which it has."""
        head = self.shards[0]
        _, identity, shards = self.server.run(
            BEGIN, head.fixed, [Change(Records()).identity, len(self.shards)]
        )
        self._check_shards(shards)
        return str(identity.decode())

    def _check_shards(self, shards: bytes) -> None:
        if int(shards) != len(self.shards):
            raise StorageUnavailableError(
                f"The store was made anew with {int(shards)} shards, and this handle knows "
                f"{len(self.shards)}: open it again."
            )

    def _commit(self, ready: _Ready[T], adopted: str) -> Done[T]:
        give_up = time.monotonic() + self.server.timeout_s
        lost = 0
        while True:
            change = ready.change
            if not change and not ready.task.old:
                return Done(ready.result, change.base.revision, change.revision, removes=False)
            revision = self._answered(ready, adopted)
            if revision is not None:
                return Done(ready.result, revision, change.revision, removes_voiceprints(change))
            if time.monotonic() > give_up:
                raise StorageUnavailableError(
                    f"Other processes have changed the same callers for "
                    f"{self.server.timeout_s:g} s. Try again."
                )
            lost += 1
            time.sleep(random.uniform(0, min(0.05, 0.001 * 2**lost)))  # noqa: S311  spreads those who compete
            ready = self._prepare(ready.task)

    def _answered(self, ready: _Ready[T], adopted: str) -> int | None:
        """The revision of the commit, or None if another process was faster."""
        answer = self._send(ready, adopted)
        if answer[0] == b"shards":
            self._check_shards(answer[1])
        if answer[0] == b"late":
            raise StorageUnavailableError(
                "The Redis server was too slow to make the change in time: nothing was changed. Try again."
            )
        return int(answer[1]) if answer[0] == b"ok" else None

    def _send(self, ready: _Ready[T], adopted: str) -> list[Any]:
        task, change = ready.task, ready.change
        extra_s = len(change.callers) // _RECORDS_A_SECOND
        until = time.monotonic() * 1e6 + ready.clock_ahead_us + (self.server.timeout_s + extra_s) * 1e6
        growth, sizes = change.growth(), change.dimensions
        spaces = [[encoder, step, sizes.get(encoder, "")] for encoder, step in growth.items()]
        remaining: set[int] = set()
        callers: list[Any] = []
        for caller_id, record in change.callers.items():
            if record is None:
                callers += [caller_id, ready.tokens[caller_id], b"", b"", b""]
                continue
            new = [print_.id for print_ in record.prints if print_.revision == change.revision]
            remaining.update(print_.id for print_ in record.prints)
            body = encode_record(record, change.revision)
            callers += [caller_id, ready.tokens[caller_id], body, _listed(new), record_format(record)]
        if len(self.shards) > 1:
            self.server.run(RAISE, self.shards[0].fixed, [change.next_id])
        # In a cluster the old keys are in other slots; they are removed afterwards.
        old = {} if self.server.is_cluster else task.old
        return self.server.run(
            COMMIT,
            [*task.shard.fixed, *map(task.shard.caller, change.callers), *old],
            [
                int(until),
                change.identity if task.shard.number == 0 else "",
                len(self.shards),
                adopted if task.shard.number == 0 else "",
                MAX_TOMBSTONES,
                change.next_id,
                len(change.callers),
                len(old),
                len(spaces),
                _listed(change.removed),
                _listed(id_ for id_ in change.removed if id_ not in remaining),
                change.token if change.touches_prints else "",
                MAX_COMMITS,
                len(change.deletions),
                *(item for space in spaces for item in space),
                *callers,
                *old.values(),
                *(item for entry, time in change.deletions.items() for item in (*entry, time)),
            ],
            extra_s=extra_s,
        )


def _listed(ids: Any) -> str:
    return ",".join(map(str, ids))


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
