"""Adopts the callers of OpusAgent: one string key each, PREFIX + caller id.

Some hundreds of callers move at a time. The script that writes the new records removes the old keys if their
values are unchanged, all or nothing. So adoption may be interrupted, repeated, and run by several processes
at once. In a cluster the two keys of a caller are in different slots, and the old ones are removed right
after the commit; after an interruption in between, the next opening finds the same embedding in the new
record, and only removes the key.
"""

from __future__ import annotations

from collections.abc import Callable

from voiceprint.errors import InvalidArgumentError
from voiceprint.models import Voiceprint
from voiceprint.storage.base import DEFAULT_MAX_VOICEPRINTS
from voiceprint.storage.records import CallerRecord
from voiceprint.storage.redis.commit import Committer, PartialTransaction, Task
from voiceprint.storage.redis.connection import RedisConnection
from voiceprint.storage.redis.format import corrupt, decode_old_record
from voiceprint.storage.redis.keys import Shard, escaped_pattern
from voiceprint.storage.redis.scripts import DELETE_IF_EQUAL, MARK_ADOPTED
from voiceprint.validation import check_caller_id

# Keys read at once, and callers of one commit: about 6 KB each.
_BATCH = 500


def old_keys(connection: RedisConnection, prefix: str) -> list[bytes]:
    """The keys of OpusAgent."""
    found: dict[bytes, None] = {}
    for batch in connection.scan(escaped_pattern(prefix) + b"*"):
        found.update(dict.fromkeys(batch))
    return list(found)


def adopt(committer: Committer, prefix: str, shard_of: Callable[[str], Shard]) -> None:
    """Adopt every old key. Raises `StorageCorruptError` for a damaged one, which is left as it is."""
    connection = committer.connection
    keys = old_keys(connection, prefix)
    for start in range(0, len(keys), _BATCH):
        _adopt_batch(committer, keys[start : start + _BATCH], prefix, shard_of)
    if keys:
        connection.run(MARK_ADOPTED, committer.shards[0].fixed)


def _adopt_batch(
    committer: Committer, keys: list[bytes], prefix: str, shard_of: Callable[[str], Shard]
) -> None:
    waiting = {_caller_of(key, prefix): key for key in keys}
    while waiting:
        values = dict(zip(waiting, committer.connection.values([*waiting.values()]), strict=True))
        groups: dict[int, dict[str, bytes]] = {}
        for caller_id, value in values.items():
            if value is not None:
                groups.setdefault(shard_of(caller_id).number, {})[caller_id] = value
            elif _was_removed(committer.connection, waiting[caller_id]):  # another process was faster
                del waiting[caller_id]
        for number, group in groups.items():
            if _adopt_group(committer, committer.shards[number], prefix, group):
                for caller_id in group:
                    del waiting[caller_id]


def _adopt_group(committer: Committer, shard: Shard, prefix: str, group: dict[str, bytes]) -> bool:
    """Adopt callers of one shard by the values of their old keys; False if one has changed."""

    def work(transaction: PartialTransaction) -> None:
        for caller_id, value in group.items():
            key = prefix + caller_id
            _adopt_caller(transaction, decode_old_record(value, caller_id, key, transaction.revision))

    old = {prefix + caller_id: value for caller_id, value in group.items()}
    done = committer.try_once(Task(shard, [*group], work, fresh=len(group), old=old))
    if done and committer.connection.is_cluster:
        committer.connection.run_each(DELETE_IF_EQUAL, old.items())
    return done


def _caller_of(key: bytes, prefix: str) -> str:
    try:
        return check_caller_id(key.decode()[len(prefix) :])
    except (InvalidArgumentError, UnicodeDecodeError):
        corrupt(
            key.decode(errors="backslashreplace"),
            "is no key of OpusAgent: the part after the prefix is no caller id",
        )


def _was_removed(connection: RedisConnection, key: bytes) -> bool:
    kind = connection.call("TYPE", key)
    if kind not in (b"none", b"string"):  # a string: written again since it was read
        corrupt(key.decode(), f"is a {kind.decode()}, and OpusAgent's are strings")
    return bool(kind == b"none")


def _adopt_caller(transaction: PartialTransaction, old: CallerRecord) -> None:
    stored = transaction.find(old.caller_id)
    print_ = old.voiceprints[0]
    if stored is None:
        transaction.put(old)
    elif all(mine.embedding.tobytes() != print_.embedding.tobytes() for mine in stored.voiceprints):
        # OpusAgent has enrolled a caller of this store again.
        fields = {"created_at": print_.created_at, "last_seen": old.last_seen}
        transaction.save(
            Voiceprint(old.caller_id, print_.embedding, old.metadata, **fields), DEFAULT_MAX_VOICEPRINTS
        )
