"""A store is created by its first save, and by nothing before it."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from harness import Harness
from stores import Follower, state, voiceprint

from voiceprint import CallerNotFoundError, RedisStorage, Storage
from voiceprint.storage.base import START, Position


def test_a_store_is_not_there_before_the_first_save(harness: Harness, tmp_path: Path) -> None:
    storage = harness.storage
    assert storage.exists() == (not harness.persists)
    assert (storage.identity() == "") == harness.persists
    read_everything(storage)
    change_nothing(storage)
    assert list(tmp_path.iterdir()) == []
    if isinstance(storage, RedisStorage):
        assert storage._connection.call("DBSIZE") == 0
    assert storage.exists() == (not harness.persists)
    storage.save(voiceprint())
    assert storage.exists()
    assert storage.identity()
    assert harness.reopen().exists()
    assert list(state(harness.storage)) == ["alice"]


def read_everything(storage: Storage) -> None:
    assert state(storage) == {}
    assert storage.get("alice") is None
    assert storage.get_many([1]) == {}
    assert storage.callers_of([1, 2]) == []
    assert (storage.count(), storage.count_callers(), storage.revision()) == (0, 0, 0)
    assert list(storage.scan()) == []
    assert len(storage.changes(START).ids) == 0
    assert storage.position() == START
    assert storage.deletions() == []
    assert storage.note_deletions([]) == 0
    assert storage.changes(Position(1, "x")) is None
    assert storage.check() == []
    follower = Follower()
    follower.assert_in_step(storage)


def change_nothing(storage: Storage) -> None:
    assert storage.save_many([]) == []
    assert storage.restore_many([]) == storage.delete("alice") == 0
    assert storage.touch("alice") is False
    with pytest.raises(CallerNotFoundError):
        storage.update_metadata("alice", {"a": 1})


def test_a_handle_that_was_opened_before_the_store_was_there_finds_it(harness: Harness) -> None:
    early = harness.open()
    follower = Follower()
    follower.catch_up(early)
    saved = harness.storage.save(voiceprint())
    assert early.exists()
    assert early.identity() == harness.storage.identity()
    assert early.get_many([saved.id]).keys() == {saved.id}
    assert list(state(early)) == ["alice"]
    follower.assert_in_step(early)
    early.save(voiceprint("bob", 1))
    assert list(state(harness.storage)) == ["alice", "bob"]


def test_first_savers_at_the_same_time_make_one_store(harness: Harness) -> None:
    handles = [harness.open() for _ in range(6)]
    barrier = threading.Barrier(len(handles))

    def save(number: int) -> None:
        barrier.wait()
        handles[number].save(voiceprint(f"c{number}", number))

    threads = [threading.Thread(target=save, args=(n,)) for n in range(len(handles))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(state(harness.reopen())) == [f"c{n}" for n in range(6)]
    assert len({handle.identity() for handle in handles}) == 1
    ids = [print_.id for print_ in harness.storage.get_all()]
    assert np.unique(ids).tolist() == list(range(1, 7))
