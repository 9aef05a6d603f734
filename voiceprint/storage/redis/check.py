"""Looking through a Redis store, and repairing what can be derived from its records."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from voiceprint.errors import StorageCorruptError
from voiceprint.models import Finding
from voiceprint.storage.records import COUNTER_END, new_token, next_id_after
from voiceprint.storage.redis.adoption import old_keys
from voiceprint.storage.redis.client import Server
from voiceprint.storage.redis.format import decode_record
from voiceprint.storage.redis.keys import Shard
from voiceprint.storage.redis.scripts import REPAIR
from voiceprint.validation import shown

_KINDS = (b"hash", b"zset", b"hash", b"zset", b"zset", b"hash", b"zset", b"hash")
_META, _NAMES, _OWNERS, _FEED, _GONE, _SPACES = range(1, 7)
_AT_ONCE = 500

# Other processes go on meanwhile: what is found while they do is looked at again.
_TRIES = 5


@dataclass
class _Seen:
    """What one look through a shard found, and the commands that repair it."""

    findings: list[Finding] = field(default_factory=list)
    repairs: list[list[Any]] = field(default_factory=list)
    repaired: list[Finding] = field(default_factory=list)
    owners: dict[int, str] = field(default_factory=dict)
    feed: dict[int, int] = field(default_factory=dict)
    spaces: dict[str, str] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    revision: int = 0
    top_id: int = 0

    def tell(self, code: str, place: str, message: str) -> None:
        self.findings.append(Finding(code=code, place=place, message=message))

    def derived(self, code: str, place: str, message: str, *repair: Any) -> None:
        """Something that `repair` mends: a command, the number of its key, and its arguments."""
        self.repaired.append(
            Finding(code=code, place=place, message=f"{message} check(fix=True) repairs it.")
        )
        if repair:
            self.repairs.append([*repair, *[""] * (4 - len(repair))])


class Checkup:
    """One `Storage.check` of a Redis store."""

    def __init__(self, server: Server, prefix: str, shards: list[Shard], limit: int) -> None:
        self.server = server
        self.prefix = prefix
        self.shards = shards
        self.limit = limit

    def run(self, *, fix: bool) -> list[Finding]:
        """The findings of all shards; those that were repaired are not among them."""
        findings = [
            Finding(
                code="old_record",
                place=f"key {shown(key.decode(errors='replace'))}",
                message="OpusAgent wrote it after the store was opened: check(fix=True) takes it over.",
            )
            for key in old_keys(self.server, self.prefix)
        ]
        stored = self._stored_names()
        ids: dict[int, str] = {}
        for shard in self.shards:
            seen = self._settled(shard, stored.get(shard.number, set()), fix=fix)
            findings += seen.findings
            for id_, caller_id in seen.owners.items():
                other = ids.setdefault(id_, caller_id)
                if other != caller_id:
                    findings.append(_duplicate(id_, other, caller_id))
        return findings

    def _stored_names(self) -> dict[int, set[str]]:
        """The callers whose records there are, by the number of their shard: listed or not."""
        escaped = re.sub(r"([*?\[\]\\^])", r"\\\1", self.prefix).encode()
        bases = {shard.base.encode(): shard.number for shard in self.shards}
        found: dict[int, set[str]] = {}
        for batch in self.server.scan(b"{" + escaped + b"*}:c:*"):
            for key in batch:
                base, _, name = key.partition(b"}:c:")
                number = bases.get(base + b"}:c:")
                if number is not None:
                    found.setdefault(number, set()).add(name.decode(errors="replace"))
        return found

    def _settled(self, shard: Shard, stored: set[str], *, fix: bool) -> _Seen:
        seen = _Seen()
        for _ in range(_TRIES):
            before = self.server.call("HGET", shard.meta, "rev")
            seen = self._look(shard, stored, before)
            if self.server.call("HGET", shard.meta, "rev") != before:
                continue
            if not seen.repaired or not fix:
                break
            if self._repair(shard, seen, before):
                seen.repaired = []
                break
        seen.findings += seen.repaired
        return seen

    def _look(self, shard: Shard, stored: set[str], revision: bytes | None) -> _Seen:
        seen = _Seen()
        for key, kind in zip(shard.fixed, _KINDS, strict=True):
            actual = self.server.call("TYPE", key)
            if actual not in (kind, b"none"):
                seen.tell("wrong_type", f"key {key!r}", f"It is a {actual.decode()}, not a {kind.decode()}.")
        if seen.findings:  # nothing derived can be compared, nor repaired over a foreign value
            return seen
        listed = {name.decode(errors="replace") for name in self._names(shard)}
        counts: dict[str, int] = {}
        for name, value in self._records(shard, sorted(listed | stored), listed, seen):
            self._take_in(shard, name, value, seen, counts)
        self._compare(shard, seen)
        if not seen.damaged and {k: v for k, v in self._spaces(shard).items() if v != "0"} != seen.spaces:
            seen.derived("wrong_count", f"key {shard.spaces!r}", "The counts of embedding spaces are wrong.")
            known = self._spaces(shard)
            seen.repairs += [["HDEL", _SPACES, name, ""] for name in known if name not in seen.spaces]
            seen.repairs += [["HSET", _SPACES, name, value] for name, value in seen.spaces.items()]
        self._compare_counters(shard, seen, revision)
        return seen

    def _names(self, shard: Shard) -> Iterator[bytes]:
        after = b"-"
        while page := self.server.call("ZRANGEBYLEX", shard.names, after, "+", "LIMIT", 0, 1_000):
            yield from page
            after = b"(" + page[-1]

    def _records(
        self, shard: Shard, names: list[str], listed: set[str], seen: _Seen
    ) -> Iterator[tuple[str, bytes]]:
        for start in range(0, len(names), _AT_ONCE):
            asked = names[start : start + _AT_ONCE]
            values = self.server.call("MGET", *map(shard.caller, asked))
            for name, value in zip(asked, values, strict=True):
                key = shard.caller(name)
                place = f"key {key!r}"
                if value is None and self.server.call("TYPE", key) != b"none":
                    seen.damaged.add(name)
                    seen.tell("wrong_type", place, "It holds something other than a record.")
                elif value is None:
                    if name in listed:
                        seen.derived(
                            "not_there", place, "It is listed and is not there.", "ZREM", _NAMES, name
                        )
                else:
                    if name not in listed:
                        message = "It is not in the list of callers."
                        seen.derived("not_listed", place, message, "ZADD", _NAMES, "0", name)
                    yield name, value

    def _take_in(self, shard: Shard, name: str, value: bytes, seen: _Seen, counts: dict[str, int]) -> None:
        try:
            record = decode_record(value, name, shard.caller(name))
        except StorageCorruptError as error:
            seen.damaged.add(name)
            seen.tell("corrupt", f"key {shard.caller(name)!r}", str(error))
            return
        seen.revision = max(seen.revision, int(value[2:18]))
        for print_ in record.prints:
            other = seen.owners.setdefault(print_.id, name)
            if other != name:
                seen.findings.append(_duplicate(print_.id, other, name))
            seen.feed[print_.id] = print_.revision
            seen.top_id = max(seen.top_id, next_id_after(print_.id, 1) - 1)
            counts[print_.encoder] = counts.get(print_.encoder, 0) + 1
            seen.spaces[f"n:{print_.encoder}"] = str(counts[print_.encoder])
            seen.spaces[f"d:{print_.encoder}"] = str(print_.embedding.size)
        if len(record.prints) > self.limit:
            seen.tell(
                "too_many_voiceprints",
                f"caller {name!r}",
                f"{len(record.prints)} voiceprints, and {self.limit} are the limit: "
                "the next enrollment removes the oldest.",
            )

    def _compare(self, shard: Shard, seen: _Seen) -> None:
        owners = {int(id_): name.decode(errors="replace") for id_, name in self._hash(shard.owners)}
        feed = {int(id_): int(score) for id_, score in self._sorted_set(shard.feed)}
        for id_, name in seen.owners.items():
            place = f"voiceprint {id_}"
            if owners.get(id_) != name:
                message = "It cannot be found by its id."
                seen.derived("lookup_missing", place, message, "HSET", _OWNERS, id_, name)
            if feed.get(id_) != seen.feed[id_]:
                message = "The change feed does not tell of it."
                seen.derived("feed_missing", place, message, "ZADD", _FEED, seen.feed[id_], id_)
        for id_ in owners.keys() - seen.owners.keys():
            if owners[id_] not in seen.damaged:  # or else it may be the damaged record's
                message = "It can be looked up, and no caller has it."
                seen.derived("lookup_stray", f"voiceprint {id_}", message, "HDEL", _OWNERS, id_)
        for id_ in feed.keys() - seen.owners.keys():
            if owners.get(id_) not in seen.damaged:
                message = "The change feed tells of it, and no caller has it."
                seen.derived("feed_stray", f"voiceprint {id_}", message, "ZREM", _FEED, id_)

    def _compare_counters(self, shard: Shard, seen: _Seen, revision: bytes | None) -> None:
        place = f"key {shard.meta!r}"
        if revision is None and seen.owners:
            seen.derived("counters_lost", place, "The store has callers and no counters.")
        elif int(revision or 0) < seen.revision:
            seen.derived("revision_behind", place, "The revision is behind that of the records.")
        if shard.number == 0 and seen.owners:
            next_id = int(self.server.call("HGET", shard.meta, "next_id") or 1)
            if next_id <= seen.top_id:
                seen.derived("next_id_behind", place, "The next voiceprint would get an id that is in use.")

    def _spaces(self, shard: Shard) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self._hash(shard.spaces)}

    def _hash(self, key: str) -> Iterator[tuple[bytes, bytes]]:
        cursor: int | None = None
        while cursor != 0:
            cursor, found = self.server.call("HSCAN", key, cursor or 0, "COUNT", 1_000)
            yield from found.items()

    def _sorted_set(self, key: str) -> Iterator[tuple[bytes, float]]:
        cursor: int | None = None
        while cursor != 0:
            cursor, found = self.server.call("ZSCAN", key, cursor or 0, "COUNT", 1_000)
            yield from found

    def _repair(self, shard: Shard, seen: _Seen, before: bytes | None) -> bool:
        head = shard.number == 0
        lost = head and self.server.call("HGET", shard.meta, "identity") is None
        next_id = max(seen.top_id + 1, int(self.server.call("HGET", shard.meta, "next_id") or 1))
        # Every follower is to begin anew: what it was told may have been wrong.
        answer = self.server.run(
            REPAIR,
            shard.fixed,
            [
                before if before is not None else "",
                min(max(int(before or 0), seen.revision) + 1, COUNTER_END - 1),
                next_id,
                uuid.uuid4().hex if lost else "",
                len(self.shards),
                new_token(),
                *(item for repair in seen.repairs for item in repair),
            ],
        )
        return bool(answer[0] == b"ok")


def _duplicate(id_: int, one: str, other: str) -> Finding:
    return Finding(
        code="duplicate_id",
        place=f"voiceprint {id_}",
        message=f"The callers {one!r} and {other!r} both have it: delete one of them and enroll anew.",
    )
