"""Text that stands where a time should be is never quoted: it may be anything."""

from __future__ import annotations

import json
import sqlite3
import traceback
from pathlib import Path

import pytest
from stores import unit, voiceprint

from voiceprint import (
    InvalidArgumentError,
    JSONStorage,
    MemoryStorage,
    SQLiteStorage,
    StorageCorruptError,
    Voiceprint,
)
from voiceprint.storage.transfer import import_callers
from voiceprint.validation import check_time

SECRET = "born in 1970"


def _assert_silent(error: BaseException) -> None:
    shown = "".join(traceback.format_exception(error))
    assert SECRET not in shown
    assert "ISO 8601" in str(error)


def test_a_time_that_is_none_is_not_quoted_by_any_way_in(tmp_path: Path) -> None:
    with MemoryStorage() as storage:
        storage.save(voiceprint("alice"))
        for way in (
            lambda: check_time(SECRET),
            lambda: Voiceprint("a", unit(1), created_at=SECRET),
            lambda: storage.touch("alice", SECRET),
            lambda: storage.delete("alice", unless_seen_since=SECRET),
            lambda: import_callers(
                storage,
                [json.dumps({"caller_id": "b", "last_seen": SECRET, "voiceprints": []}).encode()],
            ),
        ):
            with pytest.raises(InvalidArgumentError) as caught:
                way()
            _assert_silent(caught.value)


@pytest.mark.parametrize("field", ["created_at", "last_seen"])
def test_a_time_that_is_none_in_a_json_file_is_not_quoted(tmp_path: Path, field: str) -> None:
    path = tmp_path / "store.json"
    with JSONStorage(path) as storage:
        storage.save(voiceprint("alice"))
    content = json.loads(path.read_bytes())
    content["alice"][field] = SECRET
    path.write_text(json.dumps(content))
    with pytest.raises(StorageCorruptError, match="alice") as caught:
        JSONStorage(path)
    _assert_silent(caught.value)
    content["alice"][field], content["alice"]["voiceprints"][0]["created_at"] = None, SECRET
    path.write_text(json.dumps(content))
    with pytest.raises(StorageCorruptError, match="alice") as caught:
        JSONStorage(path)
    _assert_silent(caught.value)


def test_a_time_that_is_none_in_a_database_is_not_quoted(tmp_path: Path) -> None:
    with SQLiteStorage(tmp_path / "store.db") as storage:
        storage.save(voiceprint("alice"))
        with sqlite3.connect(storage.db_path) as connection:
            connection.execute("UPDATE callers SET last_seen = ?", [SECRET])
        connection.close()
        with pytest.raises(StorageCorruptError, match="alice") as caught:
            storage.get("alice")
        _assert_silent(caught.value)
        assert SECRET not in str(storage.check())
