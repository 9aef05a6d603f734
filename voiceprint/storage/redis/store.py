"""The Redis store: callers on a Redis server or cluster, shared by processes and machines.

The rules run in this process on the records that they touch, and one script on the server commits the
change if nobody else has changed them meanwhile (commit.py). The keys are in keys.py, what
they hold in format.py, the scripts in scripts.py.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import (
    ConfigurationError,
    InvalidArgumentError,
    StorageError,
    StorageUnavailableError,
)
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
from voiceprint.storage.records import (
    CallerRecord,
    PrintRecord,
    Records,
    as_arrays,
    check_deletion,
    deletion_digest,
)
from voiceprint.storage.redis.adoption import adopt
from voiceprint.storage.redis.check import Checkup
from voiceprint.storage.redis.client import Server
from voiceprint.storage.redis.commit import Committer, Done, PartialChange, Task
from voiceprint.storage.redis.format import FORMATS, corrupt, decode_record
from voiceprint.storage.redis.keys import (
    Shard,
    check_prefix,
    check_shards,
    joined_position,
    shard_number,
    split_position,
)
from voiceprint.storage.redis.persistence import Kept, kept_on_disk
from voiceprint.storage.redis.persistence import rewrite as rewrite_files
from voiceprint.storage.redis.scripts import CHANGES, FORGET, LOAD, OWNERS, PAGE
from voiceprint.storage.removals import erase_snapshots
from voiceprint.storage.sightings import Sighting
from voiceprint.validation import EMBEDDING_DIMENSIONS, check_caller_id, hide_passwords

__all__ = ["RedisStorage"]

DEFAULT_PREFIX = "voiceprint:"
DEFAULT_TIMEOUT_S = 5.0
REWRITE_S = 600.0
CLUSTER_SHARDS = 16

# Records that one script reads: some 3 MB, which keep the server from others for some milliseconds.
_PAGE = 1_000

# How often what changes meanwhile is read again before it is given up.
_TRIES = 20

# Voiceprints that `changes` gives at once, unless more of them are of one revision.
_CHANGES = 10_000

T = TypeVar("T")


class RedisStorage(Storage):
    """Callers on a Redis server (6.2 or later), or on a Redis Cluster.

    redis_client: a `redis.Redis` or `redis.cluster.RedisCluster`. It is not used itself: connections are
        made from its settings, with our own time limit. It stays yours to close.
    prefix: what OpusAgent's keys begin with, and what this store's keys hold in their hash tag. Stores of
        different prefixes have nothing in common; no prefix should begin another's.
    timeout_s: how long to wait for an answer, before a `StorageUnavailableError`.
    shards: over how many slots the keys are spread, when the store is new: default 1, and 16 in a cluster.

    On a server every change is atomic. In a cluster, no command can change keys of several slots: a
    change of several callers (`save_many`, `restore_many`) is atomic for each caller, and is checked as a
    whole before any of it is written; if a node fails meanwhile, the callers of other nodes may be stored.
    The same holds for what is read of several callers at once. `Voiceprint.revision` then counts the
    changes of the caller's shard.

    Records of OpusAgent (string keys PREFIX + caller id) are taken over when the store is first opened.
    """

    def __init__(
        self,
        redis_client: Any,
        *,
        prefix: str = DEFAULT_PREFIX,
        max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        shards: int | None = None,
    ) -> None:
        super().__init__(max_voiceprints_per_caller=max_voiceprints_per_caller)
        self._prefix = check_prefix(prefix)
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s <= 3600:
            raise InvalidArgumentError(f"timeout_s is {timeout_s!r}: seconds above 0, to 3600, are allowed.")
        wanted = check_shards(shards) if shards is not None else None
        self._closed = False
        self._wanted = wanted
        self._identity = ""  # of the store, once it was seen
        self._server_ = Server(redis_client, float(timeout_s))
        self._location = self._server_.location(prefix)
        self._sighting = Sighting(self._location)
        try:
            if not self._look():
                adopt(self._committer, self._prefix, self._shard)
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_url(cls, url: str, *, max_voiceprints_per_caller: int = DEFAULT_MAX_VOICEPRINTS) -> RedisStorage:
        """The store at redis://HOST:PORT/DB, rediss://... or unix://PATH?db=N.

        Beside the client's own options, `prefix` may stand in the query. Whether the server is one of a
        cluster is asked of the server. Raises `ConfigurationError`, also for a database that is no number.
        """
        import redis

        plain, prefix = _without_prefix(url)
        _check_database(url)
        try:
            client: Any = redis.Redis.from_url(plain)
            server = Server(client, DEFAULT_TIMEOUT_S)
            try:
                clustered = server.call("INFO", "cluster").get("cluster_enabled")
                if clustered:
                    client.close()
                    limits = {"socket_timeout": server.timeout_s, "socket_connect_timeout": server.timeout_s}
                    with server.translated():
                        client = redis.RedisCluster.from_url(plain, **limits)
            finally:
                server.close()
        except (ValueError, TypeError) as error:  # an unknown option is a TypeError at the first connection
            raise ConfigurationError(
                f"{hide_passwords(url)!r} is no Redis URL that the client takes."
            ) from error
        try:
            return cls(client, prefix=prefix, max_voiceprints_per_caller=max_voiceprints_per_caller)
        finally:
            client.close()

    def _look(self) -> bool:
        """Learn whether the store is there, and over how many shards; gives whether old keys were adopted."""
        head = Shard(self._prefix, 0)
        expected = self._sighting.expected
        form, shards, identity, adopted = self._server.call(
            "HMGET", head.meta, "format", "shards", "identity", "adopted"
        )
        if form is not None and form.decode(errors="replace") not in FORMATS:
            corrupt(head.meta, f"is of the format {form[:20]!r}, and this version reads up to {FORMATS[-1]}")
        if identity is not None and not (shards or b"").isdigit():
            corrupt(head.meta, "does not say how many shards there are")
        count = int(shards or self._wanted or (CLUSTER_SHARDS if self._server.is_cluster else 1))
        self._shards = [Shard(self._prefix, number) for number in range(check_shards(count))]
        self._committer = Committer(self._server, self._shards)
        self._identity = "" if identity is None else identity.decode(errors="replace")
        if self._identity:
            self._sighting.found(self._identity)
        else:
            self._sighting.missing(expected=expected)
        return adopted is not None

    def _ready(self) -> None:
        """Called by every operation first: raises if the store is gone, or another than before."""
        self._check_open()
        if not self._identity:  # another process may have created it meanwhile, with shards of another number
            self._look()
        elif identity := self._read_identity():
            self._sighting.found(identity)
        else:
            for shard in self._shards:  # where callers are still there, it is damaged
                self._server.run(LOAD, shard.fixed, [0])
            self._sighting.missing(expected=True)

    @property
    def _server(self) -> Server:
        if self._closed:
            raise StorageError(f"The store {self.location} was closed: open it again.")
        return self._server_

    @property
    def location(self) -> str:
        return self._location

    def exists(self) -> bool:
        return bool(self.identity())

    def identity(self) -> str:
        self._ready()
        return self._identity

    def _read_identity(self) -> str:
        value = self._server.call("HGET", self._shards[0].meta, "identity")
        return "" if value is None else str(value.decode(errors="replace"))

    def _shard(self, caller_id: str) -> Shard:
        if len(self._shards) == 1:
            return self._shards[0]
        return self._shards[shard_number(caller_id, len(self._shards))]

    # Writing

    def save_many(
        self,
        voiceprints: Iterable[Voiceprint],
        *,
        max_voiceprints: int | None = None,
        progress: Progress | None = None,
    ) -> list[Voiceprint]:
        limit = check_limit(max_voiceprints, self.max_voiceprints_per_caller)
        told = _told(progress)

        def saving(group: list[Voiceprint]) -> Callable[[PartialChange], list[Voiceprint]]:
            return lambda change: [change.save(voiceprint, limit) for voiceprint in told(group)]

        given = list(voiceprints)
        self._ready()
        groups = self._grouped(given, Voiceprint)
        done = self._run(
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
        for (_, _, places), part in zip(groups, done, strict=True):
            for place, voiceprint in zip(places, part.result, strict=True):
                if part.revision != part.planned:  # others have changed the shard in between
                    voiceprint = voiceprint.model_copy(update={"revision": part.revision})
                saved[place] = voiceprint
        return [saved[place] for place in range(len(given))]

    def restore_many(self, callers: Iterable[Caller], *, progress: Progress | None = None) -> int:
        told = _told(progress)

        def restoring(group: list[Caller]) -> Callable[[PartialChange], int]:
            return lambda change: sum(change.restore(caller) for caller in told(group))

        given = check_incoming(callers)
        self._ready()
        tasks = []
        for shard, names, places in self._grouped(given, Caller):
            group = [given[place] for place in places]
            prints = [print_ for caller in group for print_ in caller.voiceprints]
            ids = list(dict.fromkeys(print_.id for print_ in prints if print_.id is not None))
            spaces = any(print_.encoder not in EMBEDDING_DIMENSIONS for print_ in prints)
            tasks.append(Task(shard, names, restoring(group), ids=ids, new_spaces=spaces))
        changed = sum(part.result for part in self._run(tasks))
        self._forget_deletions(given)
        return changed

    def _forget_deletions(self, restored: list[Caller]) -> None:
        """Drop the notes of deletions that are undone. After the commit: one that stays does no harm."""
        for shard in self._shards:
            keys = (self._server.call("HGET", shard.meta, "deletion_keys") or b"").decode(errors="replace")
            names = [
                (f"{key}:{deletion_digest(key, caller.caller_id)}", caller.created_at or "")
                for key in keys.split()
                for caller in restored
            ]
            for start in range(0, len(names), _PAGE):
                asked = [item for pair in names[start : start + _PAGE] for item in pair]
                self._server.run(FORGET, shard.fixed, asked)

    def _grouped(self, given: list[Any], kind: type[Any]) -> list[tuple[Shard, list[str], list[int]]]:
        """The places of what is given by the shards of its callers, with the callers' ids."""
        groups: dict[int, tuple[Shard, dict[str, None], list[int]]] = {}
        for place, item in enumerate(given):
            # What is of another kind is refused by the rules.
            name = check_caller_id(item.caller_id) if isinstance(item, kind) else None
            shard = self._shard(name) if name is not None else self._shards[0]
            group = groups.setdefault(shard.number, (shard, {}, []))
            group[2].append(place)
            if name is not None:
                group[1][name] = None
        return [(shard, list(names), places) for shard, names, places in groups.values()]

    def delete(self, caller_id: str, *, unless_seen_since: str | None = None) -> int:
        return self._change_one(caller_id, lambda change: change.delete(caller_id, unless_seen_since))

    def update_metadata(self, caller_id: str, metadata: dict[str, Any], *, replace: bool = False) -> Caller:
        return self._change_one(
            caller_id, lambda change: change.update_metadata(caller_id, metadata, put=replace).caller()
        )

    def touch(self, caller_id: str, when: str | None = None) -> bool:
        return self._change_one(caller_id, lambda change: change.touch(caller_id, when))

    def _change_one(self, caller_id: str, work: Callable[[PartialChange], T]) -> T:
        name = check_caller_id(caller_id)
        if not self.exists():  # what changes nothing creates nothing
            return work(PartialChange(Records(), {}))
        return self._run([Task(self._shard(name), [name], work)])[0].result

    def _run(self, tasks: list[Task[T]]) -> list[Done[T]]:
        done = self._committer.run(tasks)
        if not self._identity:
            self._look()
        if any(part.removes for part in done):
            erase_snapshots(self.snapshot_places)
        return done

    def note_deletions(self, deletions: Iterable[Deletion]) -> int:
        given = [check_deletion(deletion) for deletion in deletions]
        if not given:
            return 0
        # A deletion does not say whose it is, so it may lie in any shard: the first.
        known = {(one.key, one.digest): one.deleted_at for one in self.deletions()}
        return self._run([Task(self._shards[0], [], lambda change: change.note_deletions(given, known))])[
            0
        ].result

    # Reading

    def deletions(self) -> list[Deletion]:
        self._ready()
        latest: dict[tuple[str, str], str] = {}
        for shard in self._shards:
            for name, time in self._server.call("HGETALL", shard.deleted).items():
                key, _, digest = name.decode(errors="replace").rpartition(":")
                entry = key, digest
                latest[entry] = max(latest.get(entry, ""), time.decode(errors="replace"))
        return [Deletion(key, digest, time) for (key, digest), time in latest.items()]

    def get(self, caller_id: str) -> Caller | None:
        name = check_caller_id(caller_id)
        self._ready()
        key = self._shard(name).caller(name)
        value = self._server.call("GET", key)
        return None if value is None else decode_record(value, name, key).caller()

    def get_many(self, ids: Iterable[int]) -> dict[int, Voiceprint]:
        wanted = check_ids(ids)
        found: dict[int, tuple[CallerRecord, PrintRecord]] = {}
        for record in self._owners(wanted):
            found.update((print_.id, (record, print_)) for print_ in record.prints)
        return {id_: found[id_][0].voiceprint(found[id_][1]) for id_ in wanted if id_ in found}

    def callers_of(self, ids: Iterable[int]) -> list[Caller]:
        wanted = check_ids(ids)
        owner = {print_.id: record for record in self._owners(wanted) for print_ in record.prints}
        found = {owner[id_].caller_id: owner[id_] for id_ in wanted if id_ in owner}
        return [record.caller() for record in found.values()]

    def _owners(self, ids: list[int]) -> list[CallerRecord]:
        """The callers who have these voiceprints; one may come twice."""
        self._ready()
        wanted = list(dict.fromkeys(id_ for id_ in ids if 0 < id_ < 2**63))
        found = []
        for start in range(0, len(wanted), _PAGE):
            asked = wanted[start : start + _PAGE]
            for shard in self._shards:
                _, names, values = self._server.run(OWNERS, shard.fixed, [shard.base, *asked])
                found += _records(shard, names, values)
        return found

    def callers(self, *, after: str = "", limit: int = DEFAULT_PAGE) -> list[Caller]:
        check_page(limit)
        page: list[CallerRecord] = []
        after = check_after(after)
        self._ready()
        while len(page) < limit:
            size = min(_PAGE, limit - len(page))
            parts = [self._page(shard, after, size) for shard in self._shards]
            found = list(heapq.merge(*parts, key=lambda record: record.caller_id))[:size]
            page += found
            if len(found) < size:
                break
            after = found[-1].caller_id
        return [record.caller() for record in page]

    def _page(self, shard: Shard, after: str, size: int) -> list[CallerRecord]:
        _, names, values = self._server.run(PAGE, shard.fixed, [after, size, shard.base])
        return _records(shard, names, values)

    def at_one_moment(self, work: Callable[[Moment], T]) -> T:
        """As the contract says for callers and voiceprints; metadata and times of a caller are those of the
        moment or, where they change while the callers are read, later ones. All records are held in memory.
        """
        self._ready()
        for _ in range(_TRIES):
            held: dict[str, CallerRecord] = {}
            position = self.position()
            starts = split_position(position, len(self._shards))
            for record in self._all_records():
                held[record.caller_id] = record
            # What has changed meanwhile is read again, until nothing has.
            for _ in range(_TRIES):
                starts = None if starts is None else self._catch_up(held, starts)
                if starts is None:  # the feed does not reach back so far: all over again
                    break
                reached = joined_position(starts)
                if reached == position:
                    callers = (held[name].caller() for name in sorted(held))
                    return work(Moment(self.identity(), position, self.deletions(), callers))
                position = reached
        raise StorageUnavailableError(
            f"{self.location} is changed faster than it can be read as of one moment. Try again when fewer "
            "callers are enrolled or deleted."
        )

    def _catch_up(self, held: dict[str, CallerRecord], starts: list[Position]) -> list[Position] | None:
        """Read again those whose voiceprints have changed since; gives the positions that are reached."""
        owner = {print_.id: name for name, record in held.items() for print_ in record.prints}
        reached = []
        stale = {name for name, record in held.items() if not record.prints}  # which no feed tells of
        for shard, start in zip(self._shards, starts, strict=True):
            is_last, upto = False, start
            while not is_last:
                found = self._feed(shard, upto)
                if found is None:
                    return None
                upto, is_last, gone, ids = found
                stale |= {owner[int(id_)] for id_ in (*gone, *ids) if int(id_) in owner}
                for record in self._owners([int(id_) for id_ in ids]):
                    held[record.caller_id] = record
                    stale.discard(record.caller_id)
            reached.append(upto)
        for name in stale:
            key = self._shard(name).caller(name)
            value = self._server.call("GET", key)
            if value is None:
                held.pop(name, None)
            else:
                held[name] = decode_record(value, name, key)
        return reached

    def count(self) -> int:
        self._ready()
        return sum(int(self._server.call("HLEN", shard.owners)) for shard in self._shards)

    def spaces(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for shard in self._shards:
            for name, value in self._server.call("HGETALL", shard.spaces).items():
                kind, _, space = name.decode(errors="replace").partition(":")
                if kind == "n" and value.isdigit() and int(value):
                    counts[space] = counts.get(space, 0) + int(value)
        return counts

    def count_callers(self) -> int:
        self._ready()
        return sum(int(self._server.call("ZCARD", shard.names)) for shard in self._shards)

    # Following

    def revision(self) -> int:
        self._ready()
        return sum(self._revision(shard) for shard in self._shards)

    def _revision(self, shard: Shard) -> int:
        value = self._server.call("HGET", shard.meta, "rev")
        if value is not None and not value.isdigit():
            corrupt(shard.meta, "has no whole number where a counter should be")
        return int(value or 0)

    def position(self) -> Position:
        self._check_open()
        if not self._identity:
            self._look()
        return joined_position([self._position(shard) for shard in self._shards])

    def _position(self, shard: Shard) -> Position:
        fields = self._server.call("HMGET", shard.meta, "rev", "at", "token", "identity")
        revision, at, token, identity = fields
        if shard.number == 0 and self._identity:  # without a round trip of its own, as each match asks for it
            if identity is None:
                self._ready()
            else:
                self._sighting.found(identity.decode(errors="replace"))
        if at is None:  # no commit of a voiceprint since there are tokens
            at = revision or b"0"
        if not at.isdigit():
            corrupt(shard.meta, "has no whole number where a counter should be")
        return Position(int(at), (token or b"").decode(errors="replace"))

    def changes(self, since: Position, *, encoder: str = RESEMBLYZER_SPACE) -> Changes | None:
        check_position(since)
        self._ready()
        starts = split_position(since, len(self._shards))
        if starts is None:
            return None
        removed: list[int] = []
        prints: dict[int, PrintRecord] = {}
        reached, more = [], False
        for shard, start in zip(self._shards, starts, strict=True):
            page = self._feed(shard, start)
            if page is None:
                return None
            upto, is_last, gone, ids = page
            reached.append(upto)
            more = more or not is_last
            removed += map(int, gone)
            wanted = {int(id_) for id_ in ids}
            # What was removed since is left out: a later revision tells of its removal.
            for print_ in self._prints_of(shard, ids):
                if print_.id in wanted and print_.encoder == encoder:
                    prints[print_.id] = print_
        found, embeddings = as_arrays(list(prints.values()))
        return Changes(joined_position(reached), np.array(removed, dtype=np.int64), found, embeddings, more)

    def _feed(self, shard: Shard, start: Position) -> tuple[Position, bool, list[bytes], list[bytes]] | None:
        """The next page of a shard's feed, of all spaces: its end, whether that is the last, and the ids of
        the voiceprints that are gone and that are new."""
        answer = self._server.run(CHANGES, shard.fixed, [start.revision, _CHANGES, start.token])
        if answer[0] != b"ok":
            return None
        _, upto, last, gone, ids, token = answer
        return Position(int(upto), token.decode(errors="replace")), upto == last, gone, ids

    def _prints_of(self, shard: Shard, ids: list[bytes]) -> Iterator[PrintRecord]:
        for start in range(0, len(ids), _PAGE):
            asked = ids[start : start + _PAGE]
            _, names, values = self._server.run(OWNERS, shard.fixed, [shard.base, *asked])
            for record in _records(shard, names, values):
                yield from record.prints

    def scan(
        self, *, encoder: str = RESEMBLYZER_SPACE, batch_size: int = DEFAULT_BATCH
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        check_page(batch_size)
        self._ready()
        return self._scan(encoder, batch_size)

    def _scan(self, encoder: str, batch_size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        waiting: list[PrintRecord] = []
        for record in self._all_records():
            waiting += [print_ for print_ in record.prints if print_.encoder == encoder]
            while len(waiting) >= batch_size:
                yield as_arrays(waiting[:batch_size])
                del waiting[:batch_size]
        if waiting:
            yield as_arrays(waiting)

    def _all_records(self) -> Iterator[CallerRecord]:
        for shard in self._shards:
            after = ""
            while page := self._page(shard, after, _PAGE):
                yield from page
                after = page[-1].caller_id

    # Keeping

    def check(self, *, fix: bool = False) -> list[Finding]:
        self._check_open()
        if not self._identity:
            self._look()
        if fix:
            adopt(self._committer, self._prefix, self._shard)
        checkup = Checkup(self._server, self._prefix, self._shards, self.max_voiceprints_per_caller)
        findings = checkup.run(fix=fix)
        if fix and self._read_identity() != self._identity:  # it was lost, and is new
            self._sighting = Sighting(self._location)
        if not findings:
            self._look()
        return findings

    def persistence(self, *, rewrite: bool = False, timeout_s: float = REWRITE_S) -> list[Kept]:
        """The files of the server that still hold removed records; nothing here reads them.

        rewrite: have it write its files anew first (BGREWRITEAOF and BGSAVE), and wait for at most
        `timeout_s`. It takes the server as long as it takes to write all that it holds.
        """
        self._ready()
        if rewrite:
            rewrite_files(self._server, timeout_s)
        return list(kept_on_disk(self._server, rewritten=rewrite))

    def _check_open(self) -> None:
        _ = self._server

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._server_.close()


def _records(shard: Shard, names: list[bytes], values: list[bytes | None]) -> list[CallerRecord]:
    records = []
    for name, value in zip(names, values, strict=True):
        caller_id = name.decode(errors="replace")
        key = shard.caller(caller_id)
        if value is None:
            corrupt(key, "is listed and is not there")
        records.append(decode_record(value, caller_id, key))
    return records


def _told(progress: Progress | None) -> Callable[[list[Any]], Iterator[Any]]:
    """`reported` for groups, one after the other: each adds to those before it."""
    done = 0

    def told(group: list[Any]) -> Iterator[Any]:
        nonlocal done
        before = done
        yield from reported(group, None if progress is None else lambda count: progress(before + count))
        done = before + len(group)

    return told


def _check_database(url: str) -> None:
    """The client takes a database that it cannot read for 0, and "1/2" for 12."""
    try:
        parts = urlsplit(url)
    except ValueError:  # the client refuses it too, and its error is told
        return
    named = [parts.path.removeprefix("/")] if parts.scheme != "unix" else []
    named = [database for database in named if database]
    named += [value for name, value in parse_qsl(parts.query, keep_blank_values=True) if name == "db"]
    if len(set(named)) > 1 or not all(re.fullmatch("[0-9]{1,9}", database) for database in named):
        raise ConfigurationError(
            f"{hide_passwords(url)!r} does not name one database by its number: the forms are "
            "redis://HOST:PORT/DB and unix://PATH?db=DB."
        )


def _without_prefix(url: str) -> tuple[str, str]:
    # By hand: urlunsplit() drops the slashes of unix:///path.
    place, _, options = url.partition("?")
    query = parse_qsl(options, keep_blank_values=True)
    prefix = dict(query).get("prefix", DEFAULT_PREFIX)
    # A location names a cluster by `cluster`; the client has no such option.
    kept = [(name, value) for name, value in query if name not in ("prefix", "cluster")]
    return f"{place}?{urlencode(kept)}" if kept else place, prefix
