"""Counters that damage or an edit has brought to their end: what is there stays readable, on every store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

import pytest
from harness import Harness
from sqlalchemy import text
from stores import Follower, state, voiceprint

from voiceprint import (
    JSONStorage,
    MemoryStorage,
    RedisStorage,
    SQLiteStorage,
    Storage,
    StorageCorruptError,
)
from voiceprint.storage import SQLStorage
from voiceprint.storage.transfer import copy_callers

LAST = 10**15 - 1


def _set(harness: Harness, name: str, value: int) -> None:
    """Give a counter of the store another value, past the library."""
    storage = harness.storage
    if isinstance(storage, JSONStorage):
        content = json.loads(storage.file_path.read_bytes())
        content[""][name] = value
        storage.file_path.write_text(json.dumps(content))
    elif isinstance(storage, SQLiteStorage):
        with sqlite3.connect(storage.db_path) as connection:
            connection.execute(f"UPDATE store SET {name} = ?", [value])
        connection.close()
    elif isinstance(storage, SQLStorage):
        statement = text(f"UPDATE store SET {name} = :value")
        storage._database.write(lambda queries: queries.connection.execute(statement, {"value": value}))
    elif isinstance(storage, RedisStorage):
        field = {"revision": "rev"}.get(name, name)
        storage._connection.call("HSET", storage._shards[0].meta, field, str(value))
    else:
        assert isinstance(storage, MemoryStorage)
        setattr(storage._state, name, value)


def _changes(storage: Storage) -> list[Callable[[], object]]:
    return [
        lambda: storage.save(voiceprint("alice", 2)),
        lambda: storage.save_many([voiceprint("bob", 3), voiceprint("carol", 4)]),
        lambda: storage.restore_many([storage.get("alice").model_copy(update={"metadata": {"new": 1}})]),
        lambda: storage.update_metadata("alice", {"new": 1}),
        lambda: storage.delete("alice"),
    ]


@pytest.mark.parametrize("left", [0, 1])
def test_a_revision_at_its_end_refuses_changes_before_anything_is_written(
    harness: Harness, left: int
) -> None:
    harness.storage.save(voiceprint("alice", 1))
    _set(harness, "revision", LAST - left)
    storage = harness.reopen()
    for n in range(left):
        storage.save(voiceprint(f"c{n}", n))
    before = state(harness.reopen())
    for place in range(len(_changes(harness.storage))):
        with pytest.raises(StorageCorruptError, match="revision"):
            _changes(harness.storage)[place]()
        assert state(harness.reopen()) == before
    Follower().assert_in_step(harness.storage)
    with MemoryStorage() as elsewhere:
        copy_callers(harness.storage, elsewhere)
        elsewhere.save(voiceprint("new"))


@pytest.mark.parametrize("value", [2**48 + 1, LAST - 1, LAST])
def test_a_counter_of_ids_at_its_end_lets_saves_go_on(harness: Harness, value: int) -> None:
    harness.storage.save(voiceprint("alice", 1))
    _set(harness, "next_id", value)
    given = [harness.reopen().save(voiceprint("bob", n), max_voiceprints=9).id for n in range(4)]
    assert len({*given, 1}) == 5
    assert all(0 < id_ <= LAST for id_ in given)
    assert harness.reopen().delete("bob") == 4
    Follower().assert_in_step(harness.storage)
    assert list(state(harness.storage)) == ["alice"]
