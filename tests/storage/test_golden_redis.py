"""Redis keys of every format that was in the field open without loss, for ever."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import redis
from redis_keys import dump, load
from stores import Follower, assert_augmented, assert_embedding, assert_life, ids_of, state, unit, voiceprint

from voiceprint import JSONStorage, RedisStorage
from voiceprint.storage.base import START
from voiceprint.storage.deletions import deletion_digest


@pytest.mark.parametrize(("name", "shards"), [("redis-2.json", 1), ("redis-2-sharded.json", 3)])
def test_keys_of_format_2_open_as_they_were_written(
    client: redis.Redis, golden: Path, name: str, shards: int
) -> None:
    entries = json.loads((golden / name).read_text())
    load(client, entries)
    assert dump(client) == entries
    (meta,) = (value for key, _, value in entries if key == "{voiceprint:00}:meta")
    with RedisStorage(client) as storage, JSONStorage(golden / "format-2.json") as same:
        assert storage.check() == []
        assert (storage.identity(), meta["shards"]) == (meta["identity"], str(shards))
        assert [ids_of(caller.voiceprints) for caller in storage.callers()] == [[3, 5, 7], [2, 4]]
        for caller, wanted in zip(storage.callers(), same.callers(), strict=True):
            # Filled alike: they differ in the revisions, which are each shard's own.
            assert (caller.caller_id, caller.metadata) == (wanted.caller_id, wanted.metadata)
            assert (caller.created_at, caller.last_seen) == (wanted.created_at, wanted.last_seen)
            for print_, its in zip(caller.voiceprints, wanted.voiceprints, strict=True):
                assert (print_.encoder, print_.created_at) == (its.encoder, its.created_at)
                assert print_.embedding.tobytes() == its.embedding.tobytes()
        state(storage)
        assert dump(client) == entries  # reading changes nothing
        follower = Follower()
        follower.assert_in_step(storage)
        changes = storage.changes(START, encoder="tiny")
        assert set(changes.removed.tolist()) == {1, 6}
        assert sorted(changes.ids.tolist()) == [2, 3, 4, 5]
        assert storage.save(voiceprint("new")).id == 8
        storage.delete("caller 1")
        follower.assert_in_step(storage)
        assert storage.check() == []


@pytest.mark.parametrize("keys", ["redis-3.json", "redis-5.json"])
def test_keys_of_every_version_open_with_their_augmented_voiceprints(
    client: redis.Redis, golden: Path, keys: str
) -> None:
    entries = json.loads((golden / keys).read_text())
    load(client, entries)
    with RedisStorage(client) as storage:
        assert storage.check() == []
        assert_augmented(storage)
        assert storage.check() == []


def test_keys_with_consents_groups_and_refusals_open_as_they_were_written(
    client: redis.Redis, golden: Path
) -> None:
    load(client, json.loads((golden / "redis-6.json").read_text()))
    with RedisStorage(client) as storage:
        assert storage.check() == []
        assert_life(storage)
        assert storage.check() == []


def test_a_record_is_of_format_4_only_where_an_older_library_would_lose_something(
    client: redis.Redis,
) -> None:
    def written() -> tuple[bytes, bytes]:
        return tuple(client.get(f"{{voiceprint:00}}:c:{name}")[:2] for name in ("alice", "bob"))

    with RedisStorage(client) as storage:
        storage.save_many([voiceprint("alice"), voiceprint("bob", 1, augmented=unit(2))])
        assert written() == (b"2 ", b"4 ")
        storage.touch("bob")
        storage.save(voiceprint("alice", 3, augmented=unit(4)))
        assert written() == (b"4 ", b"4 ")
        (only,) = storage.get("bob").voiceprints
        storage.save(voiceprint("bob", 1, id=only.id))
        assert written() == (b"4 ", b"2 ")
        assert storage.check() == []


def test_keys_of_opusagent_are_taken_over_without_loss(client: redis.Redis, golden: Path) -> None:
    load(client, json.loads((golden / "opusagent-redis.json").read_text()))
    old = json.loads((golden / "opusagent.json").read_bytes())
    assert {key.encode("latin-1").decode() for key, _, _ in dump(client)} == {
        f"voiceprint:{name}" for name in old
    }
    with RedisStorage(client) as storage, JSONStorage(golden / "opusagent.json") as same:
        callers = storage.callers()
        assert [caller.caller_id for caller in callers] == sorted(old)
        for caller, wanted in zip(callers, same.callers(), strict=True):
            assert caller.metadata == old[caller.caller_id]["metadata"]
            assert (caller.created_at, caller.last_seen) == (wanted.created_at, wanted.last_seen)
            (print_,) = caller.voiceprints
            assert_embedding(print_.embedding, np.array(old[caller.caller_id]["embedding"]))
        assert storage.check() == []
    assert list(client.scan_iter("voiceprint:*")) == []


def test_keys_with_commits_and_deletions_open_as_they_were_written(client: redis.Redis, golden: Path) -> None:
    load(client, json.loads((golden / "redis-4.json").read_text()))
    with RedisStorage(client) as storage:
        assert storage.check() == []
        assert storage.position().revision == 8
        assert len(storage.changes(START, encoder="tiny").ids) == 4
        [deletion] = storage.deletions()
        assert deletion.digest == deletion_digest(storage.identity(), "gone")


def test_a_store_with_tokens_is_refused_by_older_libraries(client: redis.Redis, golden: Path) -> None:
    load(client, json.loads((golden / "redis-2.json").read_text()))
    with RedisStorage(client) as storage:
        before = storage.position()
        storage.save(voiceprint("new"))
        assert storage.changes(before) is None  # had no token, so that it may be of another history
    assert client.hget("{voiceprint:00}:meta", "format") == b"3"
