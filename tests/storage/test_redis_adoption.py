"""Records that OpusAgent kept in Redis are taken over without loss, once, when the store is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from forked import ForkedPython
from processes import finish, kill_while_adopting
from redis_server import fresh_database, shared_server
from stores import assert_embedding, ids_of, state, unit, voiceprint

from voiceprint import RedisStorage, StorageCorruptError
from voiceprint.storage.redis.commit import Committer

OPEN = "import redis, sys; from voiceprint import open_storage; open_storage(sys.argv[1]).close()"


@pytest.fixture
def old(client: redis.Redis, golden: Path) -> dict[str, Any]:
    """OpusAgent's records, as it stored them; and names that look like keys of this version."""
    records: dict[str, Any] = json.loads((golden / "opusagent.json").read_bytes())
    for n, name in enumerate(("{voiceprint:00}:meta", "voiceprint:x", "00:c:alice", "*", "[a-z]")):
        records[name] = {"caller_id": name, "embedding": (unit(n) * 3).tolist(), "metadata": {"n": n}}
    client.mset({f"voiceprint:{name}": json.dumps(record) for name, record in records.items()})
    return records


def _assert_adopted(storage: RedisStorage, old: dict[str, Any]) -> None:
    assert [caller.caller_id for caller in storage.callers()] == sorted(old)
    for name, record in old.items():
        caller = storage.get(name)
        assert caller.metadata == record["metadata"]
        assert (caller.created_at is None) == (record.get("created_at") is None)
        assert (caller.last_seen is None) == (record.get("last_seen") is None)
        assert len(caller.voiceprints) == 1
        assert_embedding(caller.voiceprints[0].embedding, np.array(record["embedding"]))
    assert storage.check() == []
    state(storage)


@pytest.mark.parametrize("shards", [None, 4])
def test_old_records_are_taken_over_without_loss(
    client: redis.Redis, old: dict[str, Any], shards: int | None
) -> None:
    with RedisStorage(client, shards=shards) as storage:
        _assert_adopted(storage, old)
        ids = ids_of(storage.get_all())
    assert list(client.scan_iter("voiceprint:*")) == []
    with RedisStorage(client) as storage:
        _assert_adopted(storage, old)
        assert ids_of(storage.get_all()) == ids
        assert storage.save(voiceprint("new")).id not in ids


def test_several_processes_that_open_at_once_take_each_caller_over_once(golden: Path) -> None:
    database = fresh_database()
    with shared_server().client(database) as client:
        names = [f"c{n}" for n in range(1_200)]
        for n, name in enumerate(names):
            client.set(f"voiceprint:{name}", json.dumps({"caller_id": name, "embedding": unit(n).tolist()}))
        opening = [ForkedPython(OPEN, shared_server().url(database)) for _ in range(4)]
        for process in opening:
            finish(process)
        with RedisStorage(client) as storage:
            assert [caller.caller_id for caller in storage.iter_callers()] == sorted(names)
            assert storage.count() == 1_200
            assert storage.check() == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_adoption_that_is_killed_in_the_middle_is_ended_by_the_next_opening(moment: str) -> None:
    names = {f"c{n}" for n in range(1_200)}
    database = fresh_database()
    with shared_server().client(database, decode_responses=True) as client:
        old = {
            f"voiceprint:{name}": json.dumps({"embedding": unit(int(name[1:])).tolist()}) for name in names
        }
        client.mset(old)
        kill_while_adopting(shared_server().url(database), moment, 2)
        left = {key.removeprefix("voiceprint:") for key in client.scan_iter("voiceprint:*")}
        moved = set(client.zrange("{voiceprint:00}:names", 0, -1))
        assert len(moved) == (500 if moment == "before" else 1_000)
        assert moved == names - left  # each is in one place, and in one alone
        assert all(client.get(f"voiceprint:{name}") == old[f"voiceprint:{name}"] for name in left)
        with RedisStorage(client) as storage:
            assert list(client.scan_iter("voiceprint:*")) == []
            assert storage.check() == []
            prints = storage.get_all()
            assert {print_.caller_id for print_ in prints} == names
            assert len(prints) == len(set(ids_of(prints))) == 1_200
            for print_ in prints:
                assert_embedding(print_.embedding, unit(int(print_.caller_id[1:])))


@pytest.mark.parametrize(
    "value", [b"", b"{", b"[]", b"\xff", b'{"caller_id": "bad"}', b'{"caller_id": "x", "embedding": [1]}',
              b'{"caller_id": "bad", "embedding": [1, 2]}', b'{"caller_id": "bad", "embedding": [NaN]}'],
)  # fmt: skip
def test_a_damaged_old_record_is_refused_by_name_and_left_as_it_is(client: redis.Redis, value: bytes) -> None:
    client.set("voiceprint:bad", value)
    with pytest.raises(StorageCorruptError, match="voiceprint:bad"):
        RedisStorage(client)
    assert client.get("voiceprint:bad") == value


def test_another_type_under_an_old_key_is_refused(client: redis.Redis) -> None:
    client.rpush("voiceprint:bad", "x")
    with pytest.raises(StorageCorruptError, match="voiceprint:bad"):
        RedisStorage(client)
    assert client.lrange("voiceprint:bad", 0, -1) == [b"x"]


def test_a_record_that_opusagent_writes_later_is_told_and_taken_over_by_check(client: redis.Redis) -> None:
    with RedisStorage(client) as storage:
        first = storage.save(voiceprint("alice", metadata={"a": 1}))
        later = {"caller_id": "alice", "embedding": unit(7).tolist(), "metadata": {"b": 2}}
        client.set("voiceprint:alice", json.dumps(later))
        client.set("voiceprint:bob", json.dumps({"embedding": unit(8).tolist()}))
        assert [finding.code for finding in storage.check()] == ["old_record", "old_record"]
        assert storage.check(fix=True) == []
        caller = storage.get("alice")
        assert caller.metadata == {"a": 1, "b": 2}
        assert [print_.id == first.id for print_ in caller.voiceprints] == [True, False]
        assert storage.count_callers() == 2
        # Broken off in a cluster, between the new record and the removal of the old key:
        client.set("voiceprint:alice", json.dumps(later))
        assert storage.check(fix=True) == []
        assert len(storage.get("alice").voiceprints) == 2
    assert list(client.scan_iter("voiceprint:*")) == []


def test_a_record_that_changes_while_it_is_taken_over_is_not_lost(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisStorage(client) as storage:
        client.set("voiceprint:alice", json.dumps({"embedding": unit(1).tolist()}))
        send = Committer._send

        def beaten(*arguments: Any) -> Any:
            monkeypatch.undo()
            client.set("voiceprint:alice", json.dumps({"embedding": unit(2).tolist()}))
            return send(*arguments)

        monkeypatch.setattr(Committer, "_send", beaten)
        assert storage.check(fix=True) == []
        assert_embedding(storage.get("alice").voiceprints[-1].embedding, unit(2))
