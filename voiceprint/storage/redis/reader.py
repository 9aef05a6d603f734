"""Reads the callers and the change feed of a Redis store, over all its shards."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

import numpy as np

from voiceprint.storage.base import Changes, Position, SpaceCounts
from voiceprint.storage.records import CallerRecord, PrintRecord, as_arrays
from voiceprint.storage.redis.connection import RedisConnection
from voiceprint.storage.redis.format import corrupt, data_key_of, decode_record
from voiceprint.storage.redis.keys import Shard, joined_position, shard_number, split_position
from voiceprint.storage.redis.scripts import CHANGES, COVERAGE, OWNERS, PAGE
from voiceprint.storage.sealed_codec import StoreSeals

# Records that one script reads: some 3 MB, which block the server for some milliseconds.
PAGE_SIZE = 1_000

# Voiceprints of one page of the change feed, unless one revision has more.
_FEED_PAGE = 10_000

# Repetitions of a consistent reading that other processes disturb.
_TRIES = 20


class Reader:
    """Reads from the shards of one store; seals: of its callers."""

    def __init__(self, connection: RedisConnection, shards: list[Shard], seals: StoreSeals) -> None:
        self.seals = seals
        self.connection = connection
        self.shards = shards

    def shard_of(self, caller_id: str) -> Shard:
        """The shard of a caller."""
        if len(self.shards) == 1:
            return self.shards[0]
        return self.shards[shard_number(caller_id, len(self.shards))]

    def caller(self, caller_id: str) -> CallerRecord | None:
        """One caller with all voiceprints."""
        key = self.shard_of(caller_id).caller(caller_id)
        value = self.connection.call("GET", key)
        record = None if value is None else decode_record(value, caller_id, key, self.seals)
        return None if record is None or record.is_forgotten else record

    def named(self, caller_ids: Iterable[str]) -> dict[str, CallerRecord]:
        """The callers with these ids; unknown ids are left out."""
        by_shard: dict[int, list[str]] = {}
        for name in caller_ids:
            by_shard.setdefault(self.shard_of(name).number, []).append(name)
        found = {}
        for number, names in by_shard.items():
            for start in range(0, len(names), PAGE_SIZE):
                page = names[start : start + PAGE_SIZE]
                keys = [*map(self.shards[number].caller, page)]
                values = self.connection.call("MGET", *keys)
                with self.seals.prefetched(map(data_key_of, values)):
                    records = [
                        decode_record(value, name, key, self.seals)
                        for name, key, value in zip(page, keys, values, strict=True)
                        if value is not None
                    ]
                found.update({record.caller_id: record for record in records if not record.is_forgotten})
        return found

    def _decoded(self, shard: Shard, names: list[bytes], values: list[bytes | None]) -> list[CallerRecord]:
        """The records, also of forgotten callers."""
        records = []
        with self.seals.prefetched(map(data_key_of, values)):
            for name, value in zip(names, values, strict=True):
                caller_id = name.decode(errors="replace")
                key = shard.caller(caller_id)
                if value is None:
                    corrupt(key, "is listed and does not exist")
                records.append(decode_record(value, caller_id, key, self.seals))
        return records

    def owners(self, ids: Iterable[int]) -> list[CallerRecord]:
        """The callers who have these voiceprints; a caller may come twice."""
        wanted = list(dict.fromkeys(id_ for id_ in ids if 0 < id_ < 2**63))
        return [record for shard in self.shards for record in self._owners_in(shard, wanted)]

    def _owners_in(self, shard: Shard, ids: list[int]) -> Iterator[CallerRecord]:
        for start in range(0, len(ids), PAGE_SIZE):
            request = {"base": shard.base, "ids": [str(id_) for id_ in ids[start : start + PAGE_SIZE]]}
            _, names, values = self.connection.run(OWNERS, shard.fixed, request)
            yield from _readable(self._decoded(shard, names, values))

    def callers(self, after: str, limit: int, *, forgotten: bool = False) -> list[CallerRecord]:
        """At most `limit` callers after the id `after`, in the order of ids; forgotten: also these."""
        page: list[CallerRecord] = []
        while len(page) < limit:
            size = min(PAGE_SIZE, limit - len(page))
            parts = [self._page(shard, after, size) for shard in self.shards]
            found = list(heapq.merge(*parts, key=lambda record: record.caller_id))[:size]
            page += found if forgotten else _readable(found)
            if len(found) < size:
                break
            after = found[-1].caller_id
        return page

    def all_callers(self) -> Iterator[CallerRecord]:
        """All callers, one shard after the other."""
        for shard in self.shards:
            after = ""
            while page := self._page(shard, after, PAGE_SIZE):
                yield from _readable(page)
                after = page[-1].caller_id

    def _page(self, shard: Shard, after: str, size: int) -> list[CallerRecord]:
        request = {"after": after, "size": size, "base": shard.base}
        _, names, values = self.connection.run(PAGE, shard.fixed, request)
        return self._decoded(shard, names, values)

    def coverage(self) -> dict[str, SpaceCounts]:
        """As `Storage.coverage`."""
        found: dict[str, SpaceCounts] = {}
        for shard in self.shards:
            after, is_last = "", False
            while not is_last:
                request = {"after": after, "size": PAGE_SIZE, "base": shard.base}
                _, names, last, counts = self.connection.run(COVERAGE, shard.fixed, request)
                for space, *numbers in counts:
                    more, name = SpaceCounts(*map(int, numbers)), space.decode(errors="replace")
                    before = found.get(name, SpaceCounts(0, 0, 0, 0))
                    found[name] = SpaceCounts(
                        more.dimension,
                        before.voiceprints + more.voiceprints,
                        before.callers + more.callers,
                        before.only + more.only,
                    )
                after, is_last = last.decode(), int(names) < PAGE_SIZE
        return found

    # The change feed

    def changes(self, since: Position, encoder: str) -> Changes | None:
        """As `Storage.changes`."""
        starts = split_position(since, len(self.shards))
        if starts is None:
            return None
        removed: list[int] = []
        prints: dict[int, PrintRecord] = {}
        groups: dict[int, tuple[str, ...]] = {}
        reached, more = [], False
        for shard, start in zip(self.shards, starts, strict=True):
            page = self._feed(shard, start)
            if page is None:
                return None
            upto, is_last, removed_ids, ids = page
            reached.append(upto)
            more = more or not is_last
            removed += removed_ids
            wanted = set(ids)
            # A voiceprint removed since is left out: a later revision of the feed removes it.
            for record in self._owners_in(shard, ids):
                for print_ in record.voiceprints:
                    if print_.id in wanted and print_.encoder == encoder:
                        prints[print_.id] = print_
                        if record.groups:
                            groups[print_.id] = record.groups
        found, embeddings = as_arrays(list(prints.values()))
        gone = np.array(removed, dtype=np.int64)
        return Changes(joined_position(reached), gone, found, embeddings, more, groups)

    def grouped(self) -> Iterator[CallerRecord]:
        """The callers who are in groups."""
        for shard in self.shards:
            after = b"-"
            while names := self.connection.call(
                "ZRANGEBYLEX", shard.grouped, after, "+", "LIMIT", 0, PAGE_SIZE
            ):
                yield from self.named(name.decode(errors="replace") for name in names).values()
                after = b"(" + names[-1]

    def _feed(self, shard: Shard, start: Position) -> tuple[Position, bool, list[int], list[int]] | None:
        """The next page of a shard's feed, of all spaces: its end, whether it is the last, and the ids of
        removed and of written voiceprints. None: `start` is not in the feed."""
        request = {"since": str(start.revision), "token": start.token, "limit": _FEED_PAGE}
        answer = self.connection.run(CHANGES, shard.fixed, request)
        if answer[0] != b"ok":
            return None
        _, upto, last, removed, ids, token = answer
        position = Position(int(upto), token.decode(errors="replace"))
        return position, upto == last, [*map(int, removed)], [*map(int, ids)]

    # A consistent view

    def read_consistently(self, position: Position) -> tuple[Position, list[CallerRecord]] | None:
        """All callers in the order of ids, and the position that they are of. None: try again from the
        present position, as too much has changed since `position`.

        Voiceprints are as of one moment. Metadata and times of a caller that change meanwhile may be later.
        """
        callers = {record.caller_id: record for record in self.all_callers()}
        positions = split_position(position, len(self.shards))
        # Callers that have changed meanwhile are read again, until none has.
        for _ in range(_TRIES):
            positions = None if positions is None else self._catch_up(callers, positions)
            if positions is None:  # the feed does not reach back so far
                return None
            reached = joined_position(positions)
            if reached == position:
                return position, [callers[name] for name in sorted(callers)]
            position = reached
        return None

    def _catch_up(self, callers: dict[str, CallerRecord], positions: list[Position]) -> list[Position] | None:
        """Read the callers again whose voiceprints have changed; returns the new positions of the shards."""
        owner = {print_.id: name for name, record in callers.items() for print_ in record.voiceprints}
        # The feed has no changes of callers without voiceprints.
        stale = {name for name, record in callers.items() if not record.voiceprints}
        reached = []
        for shard, start in zip(self.shards, positions, strict=True):
            is_last, upto = False, start
            while not is_last:
                page = self._feed(shard, upto)
                if page is None:
                    return None
                upto, is_last, removed, ids = page
                stale |= {owner[id_] for id_ in (*removed, *ids) if id_ in owner}
                for record in self.owners(ids):
                    callers[record.caller_id] = record
                    stale.discard(record.caller_id)
            reached.append(upto)
        for name in stale:
            found = self.caller(name)
            if found is None:
                callers.pop(name, None)
            else:
                callers[name] = found
        return reached


def _readable(records: Iterable[CallerRecord]) -> Iterator[CallerRecord]:
    return (record for record in records if not record.is_forgotten)
