"""Taking over what OpusAgent kept in Redis: one string key a caller, PREFIX + caller id.

A caller moves: the script that writes the new record removes the old key, if it still holds what was
read. So it may be broken off, be done by several processes at once, and be done again. In a cluster the
two keys are in different slots, and the old one is removed right after the commit; broken off in between,
the next opening finds the same embedding in the new record, and only removes the key.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from voiceprint.errors import InvalidArgumentError
from voiceprint.models import Voiceprint
from voiceprint.storage.base import DEFAULT_MAX_VOICEPRINTS
from voiceprint.storage.records import CallerRecord
from voiceprint.storage.redis.client import Server
from voiceprint.storage.redis.commit import Committer, PartialChange, Task
from voiceprint.storage.redis.format import corrupt, decode_old_record
from voiceprint.storage.redis.keys import Shard
from voiceprint.storage.redis.scripts import DROP, MARK
from voiceprint.validation import check_caller_id


def old_keys(server: Server, prefix: str) -> list[bytes]:
    """The keys of OpusAgent that there are."""
    found: dict[bytes, None] = {}
    for batch in server.scan(re.sub(r"([*?\[\]\\^])", r"\\\1", prefix).encode() + b"*"):
        found.update(dict.fromkeys(batch))
    return list(found)


def adopt(committer: Committer, prefix: str, shard_of: Callable[[str], Shard]) -> None:
    """Take over every old key. Raises `StorageCorruptError` for a damaged one, which is left as it is."""
    server = committer.server
    moved = False
    for key in old_keys(server, prefix):
        moved = _adopt_one(committer, key, prefix, shard_of) or moved
    if moved:
        server.run(MARK, committer.shards[0].fixed)


def _adopt_one(committer: Committer, raw_key: bytes, prefix: str, shard_of: Callable[[str], Shard]) -> bool:
    server, key = committer.server, raw_key.decode(errors="backslashreplace")
    try:
        caller_id = check_caller_id(raw_key.decode()[len(prefix) :])
    except (InvalidArgumentError, UnicodeDecodeError):
        corrupt(key, "is no key of OpusAgent: what follows the prefix cannot be a caller id")
    while True:
        kind = server.call("TYPE", raw_key)
        if kind == b"none":  # another process was faster
            return False
        if kind != b"string":
            corrupt(key, f"is a {kind.decode()}, and OpusAgent's are strings")
        value = server.call("GET", raw_key)
        if value is None:
            continue

        def work(change: PartialChange, value: bytes = value) -> None:
            _take_over(change, decode_old_record(value, caller_id, key, change.next_id, change.revision))

        shard = shard_of(caller_id)
        done = committer.try_once(Task(shard, [caller_id], work, fresh=1, old={key: value}))
        if not done:
            continue
        if server.is_cluster:
            server.run(DROP, [key], [value])
        return True


def _take_over(change: PartialChange, old: CallerRecord) -> None:
    known = change.find(old.caller_id)
    print_ = old.prints[0]
    if known is None:
        change.put(old)
    elif all(mine.embedding.tobytes() != print_.embedding.tobytes() for mine in known.prints):
        # OpusAgent has enrolled a caller anew whom this store knows.
        fields = {"created_at": print_.created_at, "last_seen": old.last_seen}
        change.save(
            Voiceprint(old.caller_id, print_.embedding, old.metadata, **fields), DEFAULT_MAX_VOICEPRINTS
        )
