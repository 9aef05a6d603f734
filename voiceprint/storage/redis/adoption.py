"""Taking over what OpusAgent kept in Redis: one string key a caller, PREFIX + caller id.

Callers move some hundreds at a time: the script that writes the new records removes the old keys, if they
still hold what was read, and does all of it or nothing. So it may be broken off, be done by several
processes at once, and be done again. In a cluster the two keys of a caller are in different slots, and the
old ones are removed right after the commit; broken off in between, the next opening finds the same
embedding in the new record, and only removes the key.
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

# Keys that are read, and callers that one script takes over: about 6 KB each.
_AT_ONCE = 500


def old_keys(server: Server, prefix: str) -> list[bytes]:
    """The keys of OpusAgent that there are."""
    found: dict[bytes, None] = {}
    for batch in server.scan(re.sub(r"([*?\[\]\\^])", r"\\\1", prefix).encode() + b"*"):
        found.update(dict.fromkeys(batch))
    return list(found)


def adopt(committer: Committer, prefix: str, shard_of: Callable[[str], Shard]) -> None:
    """Take over every old key. Raises `StorageCorruptError` for a damaged one, which is left as it is."""
    server = committer.server
    keys = old_keys(server, prefix)
    for start in range(0, len(keys), _AT_ONCE):
        _adopt_some(committer, keys[start : start + _AT_ONCE], prefix, shard_of)
    if keys:
        server.run(MARK, committer.shards[0].fixed)


def _adopt_some(
    committer: Committer, keys: list[bytes], prefix: str, shard_of: Callable[[str], Shard]
) -> None:
    waiting = {_caller_of(key, prefix): key for key in keys}
    while waiting:
        values = dict(zip(waiting, committer.server.values([*waiting.values()]), strict=True))
        groups: dict[int, dict[str, bytes]] = {}
        for caller_id, value in values.items():
            if value is not None:
                groups.setdefault(shard_of(caller_id).number, {})[caller_id] = value
            elif _is_gone(committer.server, waiting[caller_id]):  # another process was faster
                del waiting[caller_id]
        for number, group in groups.items():
            if _adopt_group(committer, committer.shards[number], prefix, group):
                for caller_id in group:
                    del waiting[caller_id]


def _adopt_group(committer: Committer, shard: Shard, prefix: str, group: dict[str, bytes]) -> bool:
    """Take over callers of one shard by what their old keys hold; False if any of that has changed."""

    def work(change: PartialChange) -> None:
        for caller_id, value in group.items():
            key = prefix + caller_id
            _take_over(change, decode_old_record(value, caller_id, key, change.revision))

    old = {prefix + caller_id: value for caller_id, value in group.items()}
    done = committer.try_once(Task(shard, [*group], work, fresh=len(group), old=old))
    if done and committer.server.is_cluster:
        committer.server.run_each(DROP, old.items())
    return done


def _caller_of(key: bytes, prefix: str) -> str:
    try:
        return check_caller_id(key.decode()[len(prefix) :])
    except (InvalidArgumentError, UnicodeDecodeError):
        corrupt(
            key.decode(errors="backslashreplace"),
            "is no key of OpusAgent: what follows the prefix cannot be a caller id",
        )


def _is_gone(server: Server, key: bytes) -> bool:
    kind = server.call("TYPE", key)
    if kind not in (b"none", b"string"):  # a string: it has come back since it was read
        corrupt(key.decode(), f"is a {kind.decode()}, and OpusAgent's are strings")
    return bool(kind == b"none")


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
