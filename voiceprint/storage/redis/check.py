"""The check of a Redis store, and the repair of the data that derives from its records."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from voiceprint.errors import StorageCorruptError
from voiceprint.models import Finding
from voiceprint.storage.findings import EmbeddingLengths, over_limit
from voiceprint.storage.records import COUNTER_END, next_id_after
from voiceprint.storage.redis.adoption import old_keys
from voiceprint.storage.redis.connection import RedisConnection
from voiceprint.storage.redis.format import decode_record
from voiceprint.storage.redis.keys import Shard, escaped_pattern
from voiceprint.storage.redis.scripts import REPAIR
from voiceprint.storage.sealed_codec import StoreSeals
from voiceprint.storage.state import new_token
from voiceprint.validation import shown

_KINDS = (b"hash", b"zset", b"hash", b"zset", b"zset", b"hash", b"zset", b"hash", b"zset", b"zset")
# Numbers of keys in a script.
_NAMES, _OWNERS, _FEED, _SPACES, _GROUPED, _BARE = 2, 3, 4, 6, 9, 10
_BATCH = 500

# Scans of a shard, which are repeated while other processes change it.
_TRIES = 5


@dataclass
class _ShardReport:
    """The findings of one scan of a shard, and the commands that repair it."""

    findings: list[Finding] = field(default_factory=list)
    repairs: list[list[Any]] = field(default_factory=list)
    repairable: list[Finding] = field(default_factory=list)
    owners: dict[int, str] = field(default_factory=dict)
    feed: dict[int, int] = field(default_factory=dict)
    spaces: dict[str, str] = field(default_factory=dict)
    lengths: list[tuple[str, int, int]] = field(default_factory=list)  # space, values, id of a voiceprint
    damaged: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)  # whose groups nobody can read
    grouped: set[str] = field(default_factory=set)
    bare: set[str] = field(default_factory=set)
    revision: int = 0
    top_id: int = 0

    def add(self, code: str, place: str, message: str) -> None:
        self.findings.append(Finding(code=code, place=place, message=message))

    def add_repairable(self, code: str, place: str, message: str, *repair: Any) -> None:
        """Add a finding, and its repair: a command, the number of its key, and its arguments."""
        self.repairable.append(
            Finding(code=code, place=place, message=f"{message} check(fix=True) repairs it.")
        )
        if repair:
            self.repairs.append([*repair])


class StoreChecker:
    """One `Storage.check` of a Redis store."""

    def __init__(
        self,
        connection: RedisConnection,
        prefix: str,
        shards: list[Shard],
        limit: int,
        seals: StoreSeals,
    ) -> None:
        self.seals = seals
        self.connection = connection
        self.prefix = prefix
        self.shards = shards
        self.limit = limit

    def run(self, *, fix: bool) -> list[Finding]:
        """The findings of all shards, without the repaired ones."""
        findings = [
            Finding(
                code="old_record",
                place=f"key {shown(key.decode(errors='replace'))}",
                message="OpusAgent wrote it after the store was opened: check(fix=True) adopts it.",
            )
            for key in old_keys(self.connection, self.prefix)
        ]
        stored = self._stored_names()
        ids: dict[int, str] = {}
        lengths = EmbeddingLengths()
        for shard in self.shards:
            report = self._check_shard(shard, stored.get(shard.number, set()), fix=fix)
            findings += report.findings
            for space, length, id_ in report.lengths:
                lengths.add(space, length, id_)
            for id_, caller_id in report.owners.items():
                other = ids.setdefault(id_, caller_id)
                if other != caller_id:
                    findings.append(_duplicate(id_, other, caller_id))
        return [*findings, *lengths.findings()]

    def _stored_names(self) -> dict[int, set[str]]:
        """The callers who have a record, listed or not, by the number of their shard."""
        bases = {shard.base.encode(): shard.number for shard in self.shards}
        found: dict[int, set[str]] = {}
        for batch in self.connection.scan(b"{" + escaped_pattern(self.prefix) + b"*}:c:*"):
            for key in batch:
                base, _, name = key.partition(b"}:c:")
                number = bases.get(base + b"}:c:")
                if number is not None:
                    found.setdefault(number, set()).add(name.decode(errors="replace"))
        return found

    def _check_shard(self, shard: Shard, stored: set[str], *, fix: bool) -> _ShardReport:
        report = _ShardReport()
        for _ in range(_TRIES):
            before = self.connection.call("HGET", shard.meta, "rev")
            report = self._scan(shard, stored, before)
            if self.connection.call("HGET", shard.meta, "rev") != before:
                continue
            if not report.repairable or not fix:
                break
            if self._repair(shard, report, before):
                report.repairable = []
                break
        report.findings += report.repairable
        return report

    def _scan(self, shard: Shard, stored: set[str], revision: bytes | None) -> _ShardReport:
        report = _ShardReport()
        for key, kind in zip(shard.fixed, _KINDS, strict=True):
            actual = self.connection.call("TYPE", key)
            if actual not in (kind, b"none"):
                report.add("wrong_type", f"key {key!r}", f"It is a {actual.decode()}, not a {kind.decode()}.")
        if report.findings:  # derived data can neither be compared nor repaired
            return report
        listed = {name.decode(errors="replace") for name in self._names(shard)}
        counts: dict[str, int] = {}
        for name, value in self._records(shard, sorted(listed | stored), listed, report):
            self._add_record(shard, name, value, report, counts)
        self._compare(shard, report)
        if not report.damaged and {k: v for k, v in self._spaces(shard).items() if v != "0"} != report.spaces:
            report.add_repairable(
                "wrong_count", f"key {shard.spaces!r}", "The counts of embedding spaces are wrong."
            )
            stored_spaces = self._spaces(shard)
            report.repairs += [["HDEL", _SPACES, name] for name in stored_spaces if name not in report.spaces]
            report.repairs += [["HSET", _SPACES, name, value] for name, value in report.spaces.items()]
        self._compare_counters(shard, report, revision)
        return report

    def _names(self, shard: Shard) -> Iterator[bytes]:
        after = b"-"
        while page := self.connection.call("ZRANGEBYLEX", shard.names, after, "+", "LIMIT", 0, 1_000):
            yield from page
            after = b"(" + page[-1]

    def _records(
        self, shard: Shard, names: list[str], listed: set[str], report: _ShardReport
    ) -> Iterator[tuple[str, bytes]]:
        for start in range(0, len(names), _BATCH):
            asked = names[start : start + _BATCH]
            values = self.connection.call("MGET", *map(shard.caller, asked))
            for name, value in zip(asked, values, strict=True):
                key = shard.caller(name)
                place = f"key {key!r}"
                if value is None and self.connection.call("TYPE", key) != b"none":
                    report.damaged.add(name)
                    report.add("wrong_type", place, "It holds something other than a record.")
                elif value is None:
                    if name in listed:
                        report.add_repairable(
                            "not_there", place, "It is listed and does not exist.", "ZREM", _NAMES, name
                        )
                else:
                    if name not in listed:
                        message = "It is not in the list of callers."
                        report.add_repairable("not_listed", place, message, "ZADD", _NAMES, "0", name)
                    yield name, value

    def _add_record(
        self, shard: Shard, name: str, value: bytes, report: _ShardReport, counts: dict[str, int]
    ) -> None:
        try:
            record = decode_record(value, name, shard.caller(name), self.seals)
        except StorageCorruptError as error:
            report.damaged.add(name)
            report.add("corrupt", f"key {shard.caller(name)!r}", str(error))
            return
        report.revision = max(report.revision, int(value[2:18]))
        if record.is_forgotten:
            report.forgotten.add(name)
        if record.groups:
            report.grouped.add(name)
        if not record.voiceprints:
            report.bare.add(name)
        for print_ in record.voiceprints:
            other = report.owners.setdefault(print_.id, name)
            if other != name:
                report.findings.append(_duplicate(print_.id, other, name))
            report.feed[print_.id] = print_.revision
            report.top_id = max(report.top_id, next_id_after(print_.id, 1) - 1)
            counts[print_.encoder] = counts.get(print_.encoder, 0) + 1
            report.spaces[f"n:{print_.encoder}"] = str(counts[print_.encoder])
            report.spaces[f"d:{print_.encoder}"] = str(print_.embedding.size)
            report.lengths.append((print_.encoder, print_.embedding.size, print_.id))
        report.findings += over_limit(record, self.limit)

    def _compare(self, shard: Shard, report: _ShardReport) -> None:
        owners = {int(id_): name.decode(errors="replace") for id_, name in self._hash(shard.owners)}
        feed = {int(id_): int(score) for id_, score in self._sorted_set(shard.feed)}
        for id_, name in report.owners.items():
            place = f"voiceprint {id_}"
            if owners.get(id_) != name:
                message = "It cannot be found by its id."
                report.add_repairable("lookup_missing", place, message, "HSET", _OWNERS, id_, name)
            if feed.get(id_) != report.feed[id_]:
                message = "The change feed does not contain it."
                report.add_repairable("feed_missing", place, message, "ZADD", _FEED, report.feed[id_], id_)
        for id_ in owners.keys() - report.owners.keys():
            if owners[id_] not in report.damaged:  # else the damaged record may have it
                message = "It can be looked up, and no caller has it."
                report.add_repairable("lookup_stray", f"voiceprint {id_}", message, "HDEL", _OWNERS, id_)
        for id_ in feed.keys() - report.owners.keys():
            if owners.get(id_) not in report.damaged:
                message = "The change feed contains it, and no caller has it."
                report.add_repairable("feed_stray", f"voiceprint {id_}", message, "ZREM", _FEED, id_)

        self._compare_lists(shard, report)

    def _compare_lists(self, shard: Shard, report: _ShardReport) -> None:
        """Compare the lists of callers in groups, and of those without voiceprints."""
        for key, number, names in (
            (shard.grouped, _GROUPED, report.grouped),
            (shard.bare, _BARE, report.bare),
        ):
            listed = {name.decode(errors="replace") for name, _ in self._sorted_set(key)}
            listed -= report.damaged | report.forgotten
            for name in sorted(names - listed):
                report.add_repairable(
                    "not_listed",
                    f"caller {name[:40]!r}",
                    f"The key {key!r} lacks it.",
                    "ZADD",
                    number,
                    "0",
                    name,
                )
            for name in sorted(listed - names):
                report.add_repairable(
                    "listed_stray",
                    f"caller {name[:40]!r}",
                    f"The key {key!r} lists it.",
                    "ZREM",
                    number,
                    name,
                )

    def _compare_counters(self, shard: Shard, report: _ShardReport, revision: bytes | None) -> None:
        place = f"key {shard.meta!r}"
        if revision is None and report.owners:
            report.add_repairable("counters_lost", place, "The store has callers and no counters.")
        elif int(revision or 0) < report.revision:
            report.add_repairable("revision_behind", place, "The revision is behind that of the records.")
        if shard.number == 0 and report.owners:
            next_id = int(self.connection.call("HGET", shard.meta, "next_id") or 1)
            if next_id <= report.top_id:
                report.add_repairable(
                    "next_id_behind", place, "The next voiceprint would get an id that is in use."
                )

    def _spaces(self, shard: Shard) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self._hash(shard.spaces)}

    def _hash(self, key: str) -> Iterator[tuple[bytes, bytes]]:
        cursor: int | None = None
        while cursor != 0:
            cursor, found = self.connection.call("HSCAN", key, cursor or 0, "COUNT", 1_000)
            yield from found.items()

    def _sorted_set(self, key: str) -> Iterator[tuple[bytes, float]]:
        cursor: int | None = None
        while cursor != 0:
            cursor, found = self.connection.call("ZSCAN", key, cursor or 0, "COUNT", 1_000)
            yield from found

    def _repair(self, shard: Shard, report: _ShardReport, before: bytes | None) -> bool:
        head = shard.number == 0
        lost = head and self.connection.call("HGET", shard.meta, "identity") is None
        next_id = max(report.top_id + 1, int(self.connection.call("HGET", shard.meta, "next_id") or 1))
        # With a new history, so that every follower rebuilds: it may have read wrong data.
        request = {
            "before": before.decode() if before is not None else "",
            "revision": str(min(max(int(before or 0), report.revision) + 1, COUNTER_END - 1)),
            "next_id": str(next_id),
            "identity": uuid.uuid4().hex if lost else "",
            "shards": str(len(self.shards)),
            "token": new_token(),
            "commands": [[command, key, *map(str, arguments)] for command, key, *arguments in report.repairs],
        }
        answer = self.connection.run(REPAIR, shard.fixed, request)
        return bool(answer[0] == b"ok")


def _duplicate(id_: int, one: str, other: str) -> Finding:
    return Finding(
        code="duplicate_id",
        place=f"voiceprint {id_}",
        message=f"The callers {one!r} and {other!r} both have it: delete one of them and enroll anew.",
    )
