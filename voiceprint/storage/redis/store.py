"""The Redis store: callers on a Redis server or cluster, shared by processes and machines.

keys.py lists the keys, format.py the records, scripts.py the scripts that run on the server. commit.py
writes, reader.py reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError, StorageUnavailableError
from voiceprint.models import RESEMBLYZER_SPACE, Caller, ErasedPlace, Finding, Voiceprint
from voiceprint.storage.arguments import (
    cached_snapshot_path,
    check_after,
    check_caller_ids,
    check_ids,
    check_limit,
    check_page,
    check_position,
    check_space,
)
from voiceprint.storage.base import (
    DEFAULT_BATCH,
    DEFAULT_MAX_VOICEPRINTS,
    DEFAULT_PAGE,
    REWRITE_S,
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
from voiceprint.storage.deletions import check_deletion, deletion_digest
from voiceprint.storage.presence import StorePresence
from voiceprint.storage.records import CallerRecord, PrintRecord, as_arrays
from voiceprint.storage.redis.adoption import adopt
from voiceprint.storage.redis.caller_move import CallerMove
from voiceprint.storage.redis.check import StoreChecker
from voiceprint.storage.redis.commit import Committed, Committer, PartialTransaction, Task
from voiceprint.storage.redis.connection import RedisConnection
from voiceprint.storage.redis.format import FORMATS, corrupt
from voiceprint.storage.redis.keys import Shard, check_prefix, check_shards, joined_position
from voiceprint.storage.redis.progress import Item, progress_over_groups
from voiceprint.storage.redis.reader import PAGE_SIZE, Reader
from voiceprint.storage.redis.scripts import FORGET_DELETIONS, LOAD
from voiceprint.storage.redis.server_files import rewrite_files, server_files
from voiceprint.storage.redis.urls import DEFAULT_PREFIX, client_of
from voiceprint.storage.sealed_codec import StoreSeals
from voiceprint.storage.sealing import Sealing, SealingError, check_mark
from voiceprint.storage.snapshot_files import erase_snapshots
from voiceprint.storage.state import StoreState, ids_by_group
from voiceprint.storage.transaction import Transaction, check_incoming
from voiceprint.validation import EMBEDDING_DIMENSIONS, check_caller_id, is_number

__all__ = ["RedisStorage"]

DEFAULT_TIMEOUT_S = 5.0
CLUSTER_SHARDS = 16

# Repetitions of a consistent reading that other processes disturb.
_TRIES = 20

T = TypeVar("T")


class RedisStorage(Storage):
    """Callers on a Redis server (6.2 or later), or on a Redis Cluster.

    redis_client: a `redis.Redis` or `redis.cluster.RedisCluster`. It is not used itself: connections are
        made from its settings, with our own time limit. It stays yours to close.
    prefix: begins OpusAgent's keys, and is in the hash tag of this store's keys. Stores of different prefixes
        are independent; no prefix should begin another's.
    timeout_s: how long to wait for an answer, before a `StorageUnavailableError`.
    shards: number of slots that the keys of a new store are spread over: default 1, and 16 in a cluster.

    On a server every change is atomic. In a cluster, no command can change keys of several slots: a change of
    several callers (`save_many`, `restore_many`) is atomic for each caller, and is checked as a whole before
    any of it is written; if a node fails meanwhile, the callers of other nodes may be stored. The same holds
    for reading several callers at once. `Voiceprint.revision` then counts the changes of the caller's shard.

    The first opening adopts the records of OpusAgent (string keys PREFIX + caller id).
    """

    rewrites_server_files: ClassVar[bool] = True

    def __init__(
        self,
        redis_client: Any,
        *,
        prefix: str = DEFAULT_PREFIX,
        max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        shards: int | None = None,
        encryption: Sealing | None = None,
    ) -> None:
        super().__init__(max_voiceprints_per_caller=max_voiceprints_per_caller, encryption=encryption)
        self._prefix = check_prefix(prefix)
        if not is_number(timeout_s) or not 0 < timeout_s <= 3600:
            raise InvalidArgumentError(f"timeout_s is {timeout_s!r}: seconds above 0, to 3600, are allowed.")
        self._new_shards = check_shards(shards) if shards is not None else None
        self._identity = ""  # of the store, once it was found
        # Read anew while unknown: another process may have created the store since.
        self._seals = StoreSeals(encryption, lambda: self._identity or self._read_identity())
        self._open_connection = RedisConnection(redis_client, float(timeout_s))
        self._location = self._open_connection.location(prefix)
        self.presence: StorePresence = StorePresence(self._location)
        self._add_default_snapshot_place()
        try:
            if not self._read_header():
                adopt(self._committer, self._prefix, self._reader.shard_of)
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS,
        encryption: Sealing | None = None,
    ) -> RedisStorage:
        """The store at redis://HOST:PORT/DB, rediss://... or unix://PATH?db=N.

        The query takes `prefix` beside the client's own options. The server says whether it is one of a
        cluster. Raises `ConfigurationError` for a bad URL, also for a database that is no number.
        """
        client, prefix = client_of(url, DEFAULT_TIMEOUT_S)
        try:
            return cls(
                client,
                prefix=prefix,
                max_voiceprints_per_caller=max_voiceprints_per_caller,
                encryption=encryption,
            )
        finally:
            client.close()

    def _read_header(self) -> bool:
        """Read identity and number of shards; returns whether OpusAgent's keys were adopted."""
        head = Shard(self._prefix, 0)
        expected = self.presence.is_expected
        form, shards, identity, adopted, mark = self._connection.call(
            "HMGET", head.meta, "format", "shards", "identity", "adopted", "encryption"
        )
        if form is not None and form.decode(errors="replace") not in FORMATS:
            corrupt(head.meta, f"is of the format {form[:20]!r}, and this version reads up to {FORMATS[-1]}")
        if identity is not None and not (shards or b"").isdigit():
            corrupt(head.meta, "has no number of shards")
        count = int(shards or self._new_shards or (CLUSTER_SHARDS if self._connection.is_cluster else 1))
        self._shards = [Shard(self._prefix, number) for number in range(check_shards(count))]
        self._committer = Committer(self._connection, self._shards, self._seals)
        self._reader = Reader(self._connection, self._shards, self._seals)
        self._identity = "" if identity is None else identity.decode(errors="replace")
        self._follow_mark(self._identity, mark)
        if self._identity:
            self.presence.confirm(self._identity)
        else:
            self.presence.report_missing(expected=expected)
        return adopted is not None

    def _check_present(self) -> None:
        """Called first by every operation: raises if the store has vanished, or is another than before."""
        self._check_open()
        if not self._identity:  # another process may have created it since, with another number of shards
            self._read_header()
        elif identity := self._read_identity():
            self.presence.confirm(identity)
        else:
            for shard in self._shards:  # raises if callers are left: the store is damaged
                self._connection.run(LOAD, shard.fixed, {"fresh": 0, "ids": []})
            self.presence.report_missing(expected=True)

    @property
    def _connection(self) -> RedisConnection:
        self._check_open()
        return self._open_connection

    @property
    def location(self) -> str:
        return self._location

    def default_snapshot_path(self) -> Path:
        return cached_snapshot_path(self._location)

    def exists(self) -> bool:
        return bool(self.identity())

    def identity(self) -> str:
        self._check_present()
        return self._identity

    def _read_identity(self) -> str:
        value, mark = self._connection.call("HMGET", self._shards[0].meta, "identity", "encryption")
        identity = "" if value is None else str(value.decode(errors="replace"))
        self._follow_mark(identity, mark)
        return identity

    def _follow_mark(self, identity: str, value: bytes | None) -> None:
        """Take over the mark of the store, which another process may have changed."""
        mark = "" if value is None else value.decode(errors="replace")
        if mark == self._seals.mark:
            return
        try:
            check_mark(self.sealing, identity, mark)
        except SealingError as error:
            corrupt(self._shards[0].meta, f"has a damaged mark of its encryption ({str(error).rstrip('.')})")
        self._seals.mark = mark

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
        counted = progress_over_groups(progress)

        def saving(group: list[Voiceprint]) -> Callable[[PartialTransaction], list[Voiceprint]]:
            return lambda transaction: [
                transaction.save(print_, limit, require_consent=require_consent) for print_ in counted(group)
            ]

        given = list(voiceprints)
        self._check_present()
        groups = self._by_shard(given, Voiceprint)
        committed = self._run(
            [
                Task(
                    shard,
                    names,
                    saving([given[place] for place in places]),
                    fresh=len(places),
                    new_spaces=any(
                        getattr(given[place], "encoder", None) not in EMBEDDING_DIMENSIONS for place in places
                    ),
                )
                for shard, names, places in groups
            ]
        )
        saved: dict[int, Voiceprint] = {}
        for (_, _, places), part in zip(groups, committed, strict=True):
            for place, voiceprint in zip(places, part.result, strict=True):
                if part.revision != part.planned:  # other processes have changed the shard in between
                    voiceprint = voiceprint.model_copy(update={"revision": part.revision})
                saved[place] = voiceprint
        return [saved[place] for place in range(len(given))]

    def restore_many(self, callers: Iterable[Caller], *, progress: Progress | None = None) -> int:
        counted = progress_over_groups(progress)

        def restoring(group: list[Caller]) -> Callable[[PartialTransaction], int]:
            return lambda transaction: sum(transaction.restore(caller) for caller in counted(group))

        given = check_incoming(callers)
        self._check_present()
        tasks = []
        for shard, names, places in self._by_shard(given, Caller):
            group = [given[place] for place in places]
            prints = [print_ for caller in group for print_ in caller.voiceprints]
            ids = list(dict.fromkeys(print_.id for print_ in prints if print_.id is not None))
            spaces = any(print_.encoder not in EMBEDDING_DIMENSIONS for print_ in prints)
            tasks.append(Task(shard, names, restoring(group), ids=ids, new_spaces=spaces))
        changed = sum(part.result for part in self._run(tasks))
        self._forget_deletions(given)
        return changed

    def _forget_deletions(self, restored: list[Caller]) -> None:
        """Drop the noted deletions of restored callers. After the commit: one that remains does no harm."""
        for shard in self._shards:
            keys = (self._connection.call("HGET", shard.meta, "deletion_keys") or b"").decode(
                errors="replace"
            )
            deletions = [
                {"name": f"{key}:{deletion_digest(key, caller.caller_id)}", "since": caller.created_at or ""}
                for key in keys.split()
                for caller in restored
            ]
            for start in range(0, len(deletions), PAGE_SIZE):
                page = {"deletions": deletions[start : start + PAGE_SIZE]}
                self._connection.run(FORGET_DELETIONS, shard.fixed, page)

    def _by_shard(self, given: list[Item], kind: type[Item]) -> list[tuple[Shard, list[str], list[int]]]:
        """The shards of the given items, each with its caller ids and the places of its items in the list."""
        groups: dict[int, tuple[Shard, dict[str, None], list[int]]] = {}
        for place, item in enumerate(given):
            # The rules refuse an item of another kind.
            name = check_caller_id(item.caller_id) if isinstance(item, kind) else None
            shard = self._reader.shard_of(name) if name is not None else self._shards[0]
            group = groups.setdefault(shard.number, (shard, {}, []))
            group[2].append(place)
            if name is not None:
                group[1][name] = None
        return [(shard, list(names), places) for shard, names, places in groups.values()]

    def _transact(
        self,
        caller_ids: list[str],
        work: Callable[[Transaction], T],
        *,
        creates: bool = False,
        fresh: int = 0,
    ) -> T:
        """As the contract says, for callers of one shard."""
        if not self.exists() and not creates:  # a change of nothing does not create the store
            return work(PartialTransaction(StoreState(), {}))
        shard = self._reader.shard_of(caller_ids[0])
        return self._run([Task(shard, caller_ids, work, fresh=fresh)])[0].result

    def delete_voiceprints(
        self, caller_ids: Iterable[str], *, encoder: str, delete_callers: bool = False
    ) -> int:
        """As the contract says; in a cluster, as one change of each caller."""
        names, space = check_caller_ids(caller_ids), check_space(encoder)
        groups: dict[int, list[str]] = {}
        for name in names if self.exists() else ():
            groups.setdefault(self._reader.shard_of(name).number, []).append(name)
        remove = super().delete_voiceprints
        return sum(remove(group, encoder=space, delete_callers=delete_callers) for group in groups.values())

    def _rename(self, name: str, new: str) -> CallerRecord:
        if not self.exists() or self._reader.shard_of(name) is self._reader.shard_of(new):
            return super()._rename(name, new)
        return CallerMove(self._reader, self._run, name, new).rename()

    def _merge(self, name: str, into: str, limit: int) -> tuple[CallerRecord, list[int]]:
        if not self.exists() or self._reader.shard_of(name) is self._reader.shard_of(into):
            return super()._merge(name, into, limit)
        return CallerMove(self._reader, self._run, name, into).merge(limit)

    def _run(self, tasks: list[Task[T]]) -> list[Committed[T]]:
        committed = self._committer.run(tasks)
        if not self._identity:
            self._read_header()
        if any(part.removes for part in committed):
            erase_snapshots(self.snapshot_places)
        return committed

    def note_deletions(self, deletions: Iterable[Deletion]) -> int:
        given = [check_deletion(deletion) for deletion in deletions]
        if not given:
            return 0
        # In the first shard: a deletion does not show its caller's shard.
        noted = {(one.key, one.digest): one.deleted_at for one in self.deletions()}
        task = Task(self._shards[0], [], lambda transaction: transaction.note_deletions(given, noted))
        return self._run([task])[0].result

    # Reading

    def deletions(self) -> list[Deletion]:
        self._check_present()
        latest: dict[tuple[str, str], str] = {}
        for shard in self._shards:
            for name, time in self._connection.call("HGETALL", shard.deleted).items():
                key, _, digest = name.decode(errors="replace").rpartition(":")
                entry = key, digest
                latest[entry] = max(latest.get(entry, ""), time.decode(errors="replace"))
        return [Deletion(key, digest, time) for (key, digest), time in latest.items()]

    def get(self, caller_id: str) -> Caller | None:
        name = check_caller_id(caller_id)
        self._check_present()
        record = self._reader.caller(name)
        return None if record is None else record.caller()

    def get_callers(self, caller_ids: Iterable[str]) -> dict[str, Caller]:
        wanted = check_caller_ids(caller_ids)
        self._check_present()
        found = self._reader.named(wanted)
        return {name: found[name].caller() for name in wanted if name in found}

    def callers_of(self, ids: Iterable[int]) -> list[Caller]:
        wanted = check_ids(ids)
        self._check_present()
        owner = {p.id: record for record in self._reader.owners(wanted) for p in record.voiceprints}
        found = {owner[id_].caller_id: owner[id_] for id_ in wanted if id_ in owner}
        return [record.caller() for record in found.values()]

    def callers(self, *, after: str = "", limit: int = DEFAULT_PAGE) -> list[Caller]:
        size = check_page(limit)
        start = check_after(after)
        self._check_present()
        return [record.caller() for record in self._reader.callers(start, size)]

    def read_consistently(self, work: Callable[[ConsistentView], T]) -> T:
        """As the contract says for callers and voiceprints. Metadata and times of a caller that change while
        the callers are read may be later. All records are read into memory.
        """
        self._check_present()
        for _ in range(_TRIES):
            found = self._reader.read_consistently(self.position())
            if found is not None:
                position, records = found
                callers = (record.caller() for record in records)
                return work(ConsistentView(self.identity(), position, self.deletions(), callers))
        raise StorageUnavailableError(
            f"{self.location} is changed faster than it can be read as of one moment. Try again when fewer "
            "callers are enrolled or deleted."
        )

    def count(self) -> int:
        self._check_present()
        return sum(int(self._connection.call("HLEN", shard.owners)) for shard in self._shards)

    def spaces(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for shard in self._shards:
            for name, value in self._connection.call("HGETALL", shard.spaces).items():
                kind, _, space = name.decode(errors="replace").partition(":")
                if kind == "n" and value.isdigit() and int(value):
                    counts[space] = counts.get(space, 0) + int(value)
        return counts

    def coverage(self) -> dict[str, SpaceCounts]:
        """As the contract says. The server reads all records, a thousand in each of its steps."""
        self._check_present()
        return self._reader.coverage()

    def count_callers(self) -> int:
        self._check_present()
        return sum(int(self._connection.call("ZCARD", shard.names)) for shard in self._shards)

    def count_enrolled(self) -> int:
        bare = sum(int(self._connection.call("ZCARD", shard.bare)) for shard in self._shards)
        return self.count_callers() - bare

    def group_ids(self, *, encoder: str = RESEMBLYZER_SPACE) -> dict[str, NDArray[np.int64]]:
        self._check_present()
        return ids_by_group(
            (name, print_.id)
            for caller in self._reader.grouped()
            for name in caller.groups
            for print_ in caller.voiceprints
            if print_.encoder == encoder
        )

    # Following

    def revision(self) -> int:
        self._check_present()
        return sum(
            _counter(shard, self._connection.call("HGET", shard.meta, "rev")) for shard in self._shards
        )

    def position(self) -> Position:
        self._check_open()
        if not self._identity:
            self._read_header()
        return joined_position([self._position(shard) for shard in self._shards])

    def _position(self, shard: Shard) -> Position:
        fields = self._connection.call("HMGET", shard.meta, "rev", "at", "token", "identity")
        revision, at, token, identity = fields
        if (
            shard.number == 0 and self._identity
        ):  # here, as each match asks for the position: no more round trips
            if identity is None:
                self._check_present()
            else:
                self.presence.confirm(identity.decode(errors="replace"))
        # Without `at`: no commit of a voiceprint since commits have tokens.
        return Position(
            _counter(shard, revision if at is None else at), (token or b"").decode(errors="replace")
        )

    def changes(self, since: Position, *, encoder: str = RESEMBLYZER_SPACE) -> Changes | None:
        check_position(since)
        self._check_present()
        return self._reader.changes(since, encoder)

    def scan(self, *, encoder: str = RESEMBLYZER_SPACE, batch_size: int = DEFAULT_BATCH) -> Iterator[Batch]:
        size = check_page(batch_size)
        self._check_present()
        return self._scan(encoder, size)

    def _scan(self, encoder: str, batch_size: int) -> Iterator[Batch]:
        batch: list[PrintRecord] = []
        for record in self._reader.all_callers():
            batch += [print_ for print_ in record.voiceprints if print_.encoder == encoder]
            while len(batch) >= batch_size:
                yield as_arrays(batch[:batch_size])
                del batch[:batch_size]
        if batch:
            yield as_arrays(batch)

    # Encryption

    def encryption_mark(self) -> str:
        self._check_present()
        return self._seals.mark

    def data_keys(self, *, after: str = "", limit: int = DEFAULT_PAGE) -> list[tuple[str, bytes | None]]:
        size, start = check_page(limit), check_after(after)
        self._check_present()
        page = self._reader.callers(start, size, forgotten=True)
        return [(record.caller_id, record.data_key) for record in page]

    def data_key(self, caller_id: str) -> bytes | None:
        self._check_present()
        record = self._reader.caller(caller_id)
        return None if record is None else record.data_key

    def _change_keys(self, caller_ids: list[str], work: Callable[[KeyedChanges], T]) -> list[T]:
        groups: dict[int, list[str]] = {} if caller_ids else {0: []}
        for name in caller_ids:
            groups.setdefault(self._reader.shard_of(name).number, []).append(name)
        return [
            part.result
            for number, names in groups.items()
            for part in self._run([Task(self._shards[number], names, work)])
        ]

    # Upkeep

    def server_remains(self, *, rewrite: bool = False, timeout_s: float = REWRITE_S) -> list[ErasedPlace]:
        """As the contract says; rewrite: by BGREWRITEAOF and BGSAVE, which write all data of the server."""
        self._check_present()
        if rewrite:
            rewrite_files(self._connection, timeout_s)
        return list(server_files(self._connection, rewritten=rewrite))

    def check(self, *, fix: bool = False) -> list[Finding]:
        self._check_open()
        if not self._identity:
            self._read_header()
        if fix:
            adopt(self._committer, self._prefix, self._reader.shard_of)
        checker = StoreChecker(
            self._connection, self._prefix, self._shards, self.max_voiceprints_per_caller, self._seals
        )
        findings = self.check_keys(fix=fix) + checker.run(fix=fix)
        if fix and self._read_identity() != self._identity:  # it was lost, and the repair gave a new one
            self.presence = self.presence.renewed()
        if not findings:
            self._read_header()
        return findings

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._open_connection.close()


def _counter(shard: Shard, value: bytes | None) -> int:
    if value is not None and not value.isdigit():
        corrupt(shard.meta, "has no whole number where a counter should be")
    return int(value or 0)
