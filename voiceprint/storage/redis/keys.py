"""The keys of a Redis store, its shards, and the position that joins those of all shards.

All keys of a shard begin with a hash tag, `{voiceprint:00}`, so that a Redis Cluster keeps them in one slot:
a script changes only keys of one slot. The brace also tells them from the keys of OpusAgent, which begin with
the prefix itself, whatever the caller ids.

    {voiceprint:00}:meta     hash: format, identity, shards, adopted, rev, floor, next_id; at and token:
                             revision and token of the last commit that changed a voiceprint
    {voiceprint:00}:names    sorted set of caller ids, all of score 0: in the order of their UTF-8 bytes
    {voiceprint:00}:owners   hash: voiceprint id to caller id
    {voiceprint:00}:feed     sorted set of voiceprint ids by the revision that wrote them
    {voiceprint:00}:gone     sorted set of removed voiceprint ids by the revision that removed them
    {voiceprint:00}:spaces   hash: "n:ENCODER" to the number of voiceprints, "d:ENCODER" to their length
    {voiceprint:00}:commits  sorted set of the tokens of commits by their revisions
    {voiceprint:00}:deleted  hash: "KEY:DIGEST" of a deleted caller to the time, see base.Deletion
    {voiceprint:00}:grouped  sorted set of the callers who are in groups, all of score 0
    {voiceprint:00}:bare     sorted set of the callers without voiceprints, all of score 0
    {voiceprint:00}:c:ID     string: the record of the caller ID, see format.py
"""

from __future__ import annotations

import re
import zlib

from voiceprint.errors import InvalidArgumentError
from voiceprint.storage.base import START, Position
from voiceprint.validation import is_integer

MAX_SHARDS = 256


class Shard:
    """The keys of one shard. fixed: those that every script gets, in this order."""

    def __init__(self, prefix: str, number: int) -> None:
        self.number = number
        self.tag = f"{{{prefix}{number:02}}}"
        names = ("meta", "names", "owners", "feed", "gone", "spaces", "commits", "deleted", "grouped", "bare")
        self.fixed = [f"{self.tag}:{name}" for name in names]
        self.meta, self.names, self.owners, self.feed, self.tombstones, self.spaces = self.fixed[:6]
        self.commits, self.deleted, self.grouped, self.bare = self.fixed[6:]
        self.base = f"{self.tag}:c:"

    def caller(self, caller_id: str) -> str:
        """The key of a caller's record."""
        return self.base + caller_id


def shard_number(caller_id: str, shards: int) -> int:
    """The shard of a caller: the same in every process and version."""
    return zlib.crc32(caller_id.encode()) % shards


def escaped_pattern(prefix: str) -> bytes:
    """The prefix in a pattern of SCAN, which matches itself alone."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", prefix).encode()


def check_prefix(prefix: object) -> str:
    """The prefix of a store's keys: printable, without the characters of a hash tag."""
    if not isinstance(prefix, str) or not re.fullmatch(r"[^{}\s]{1,100}", prefix) or not prefix.isprintable():
        raise InvalidArgumentError(
            f"The prefix is {prefix!r}: 1 to 100 printable characters without braces and spaces are allowed."
        )
    return prefix


def check_shards(shards: object) -> int:
    """A number of shards, from 1 to 256."""
    if not is_integer(shards) or not 1 <= shards <= MAX_SHARDS:
        raise InvalidArgumentError(f"shards is {shards!r}: a whole number from 1 to {MAX_SHARDS} is allowed.")
    return int(shards)


def joined_position(parts: list[Position]) -> Position:
    """One position for all shards: the sum of their revisions, and all of them in the token.

    One counter for all shards would be a hot key, and could not change in one step with a shard.
    """
    if all(part == START for part in parts):
        return START
    token = ",".join(f"{revision}:{token}" for revision, token in parts)
    return Position(sum(part.revision for part in parts), token)


def split_position(position: Position, shards: int) -> list[Position] | None:
    """The position of each shard; None if the position is not one of such a store."""
    if position == START:
        return [START] * shards
    parts = [part.partition(":") for part in position.token.split(",")]
    if len(parts) != shards or not all(re.fullmatch(r"[0-9]{1,15}", number) for number, _, _ in parts):
        return None
    found = [Position(int(number), token) for number, _, token in parts]
    return found if sum(part.revision for part in found) == position.revision else None
