"""Deleting, changing metadata, touching, and the revision that tells of each."""

from __future__ import annotations

import pytest
from harness import Harness
from stores import ids_of, state, voiceprint

from voiceprint import CallerNotFoundError, InvalidArgumentError, Storage


def test_delete_removes_a_caller_with_all_voiceprints(harness: Harness) -> None:
    saved = harness.storage.save_many([voiceprint(seed=seed) for seed in range(3)])
    harness.storage.save(voiceprint("bob"))
    assert harness.storage.delete("alice") == 3
    for storage in harness.both():
        assert storage.get("alice") is None
        assert storage.get_many(ids_of(saved)) == {}
        assert list(state(storage)) == ["bob"]
        assert storage.delete("alice") == 0


def test_a_deleted_caller_who_enrolls_again_is_a_new_one(harness: Harness) -> None:
    old = harness.storage.save(voiceprint(metadata={"a": 1}, created_at="2000-01-01T00:00:00Z"))
    harness.storage.delete("alice")
    new = harness.storage.save(voiceprint())
    caller = harness.reopen().get("alice")
    assert new.id != old.id
    assert caller.metadata == {}
    assert caller.created_at > "2020"


def test_update_metadata_merges(harness: Harness) -> None:
    harness.storage.save(voiceprint(metadata={"a": 1, "b": {"x": 1}}))
    caller = harness.storage.update_metadata("alice", {"b": {"y": 2}, "c": None})
    expected = {"a": 1, "b": {"y": 2}, "c": None}
    assert caller.metadata == expected
    assert harness.reopen().get("alice").metadata == expected


def test_update_metadata_can_put_new_in_place_of_the_old(harness: Harness) -> None:
    harness.storage.save(voiceprint(metadata={"a": 1}))
    assert harness.storage.update_metadata("alice", {"b": 2}, replace=True).metadata == {"b": 2}
    assert harness.reopen().get("alice").metadata == {"b": 2}
    harness.storage.update_metadata("alice", {}, replace=True)
    assert harness.reopen().get("alice").metadata == {}


def test_update_metadata_leaves_all_else_as_it_was(harness: Harness) -> None:
    harness.storage.save(voiceprint())
    before = state(harness.storage)
    harness.storage.update_metadata("alice", {"a": 1})
    before["alice"]["metadata"] = "{'a': 1}"
    assert state(harness.reopen()) == before


def test_update_metadata_of_an_unknown_caller_is_told(harness: Harness) -> None:
    with pytest.raises(CallerNotFoundError, match="'nobody'"):
        harness.storage.update_metadata("nobody", {"a": 1})
    assert harness.reopen().count_callers() == 0


def test_bad_metadata_changes_nothing(harness: Harness) -> None:
    harness.storage.save(voiceprint(metadata={"a": 1}))
    before, revision = state(harness.storage), harness.storage.revision()
    for bad in ({"x": float("nan")}, {"x": object()}, [1], "text", {1: 2}):
        for replace in (False, True):
            with pytest.raises(InvalidArgumentError):
                harness.storage.update_metadata("alice", bad, replace=replace)
    assert state(harness.reopen()) == before
    assert harness.storage.revision() == revision


def test_touch_moves_last_seen_and_never_back(harness: Harness) -> None:
    harness.storage.save(voiceprint(last_seen="2020-01-01T00:00:00Z"))
    assert harness.storage.touch("alice", "2021-01-01T00:00:00+01:00") is True
    assert harness.reopen().get("alice").last_seen == "2020-12-31T23:00:00.000000Z"
    assert harness.storage.touch("alice", "2019-01-01T00:00:00Z") is True
    assert harness.reopen().get("alice").last_seen == "2020-12-31T23:00:00.000000Z"
    assert harness.storage.touch("alice") is True
    caller = harness.reopen().get("alice")
    assert caller.last_seen > "2024"
    assert all(print_.last_seen == caller.last_seen for print_ in caller.voiceprints)


def test_touch_of_an_unknown_caller_makes_none(harness: Harness) -> None:
    assert harness.storage.touch("nobody") is False
    assert harness.reopen().count_callers() == 0


@pytest.mark.parametrize("when", ["yesterday", 5, "", b"2020-01-01"])
def test_touch_refuses_what_is_no_time(storage: Storage, when: object) -> None:
    storage.save(voiceprint())
    with pytest.raises(InvalidArgumentError, match="time"):
        storage.touch("alice", when)


def test_the_revision_grows_with_every_change(harness: Harness) -> None:
    storage = harness.storage
    changes = (
        lambda: storage.save(voiceprint(last_seen="2020-01-01T00:00:00Z")),
        lambda: storage.save(voiceprint(seed=1)),
        lambda: storage.save_many([voiceprint("bob"), voiceprint("carol")]),
        lambda: storage.update_metadata("alice", {"a": 1}),
        lambda: storage.update_metadata("alice", {"a": True}),
        lambda: storage.update_metadata("alice", {"a": 1.0}),
        lambda: storage.update_metadata("alice", {}, replace=True),
        lambda: storage.delete("bob"),
    )
    for change in changes:
        before = storage.revision()
        change()
        after = storage.revision()
        assert after > before
        storage = harness.reopen()
        assert storage.revision() == after


def test_the_revision_stays_when_nothing_changes(harness: Harness) -> None:
    storage = harness.storage
    storage.save(voiceprint(metadata={"a": 1}, last_seen="2020-01-01T00:00:00Z"))
    revision = storage.revision()
    storage.delete("nobody")
    storage.touch("nobody")
    storage.touch("alice", "2020-01-01T00:00:00Z")
    storage.touch("alice", "2019-01-01T00:00:00Z")
    storage.update_metadata("alice", {})
    storage.update_metadata("alice", {"a": 1})
    storage.update_metadata("alice", {"a": 1}, replace=True)
    storage.save_many([])
    with pytest.raises(CallerNotFoundError):
        storage.update_metadata("nobody", {})
    with pytest.raises(InvalidArgumentError):
        storage.save(voiceprint(), max_voiceprints=0)
    state(storage)
    assert storage.revision() == revision
    assert harness.reopen().revision() == revision
