"""Copies and backups: callers put in as they are, conditional deletion, progress."""

from __future__ import annotations

import pytest
from stores import Follower, state, unit, voiceprint

from voiceprint import Caller, InvalidArgumentError, MemoryStorage, Voiceprint

T0, T1, T2 = (f"2026-01-0{day}T00:00:00.000000Z" for day in (1, 2, 3))


def as_it_is(caller):
    """The parts of a caller that survive a copy; a revision is the store's own."""
    return (
        caller.caller_id,
        repr(caller.metadata),
        caller.created_at,
        caller.last_seen,
        [(p.id, p.encoder, p.created_at, p.embedding.tobytes()) for p in caller.voiceprints],
    )


@pytest.fixture
def original():
    """Callers in another store, with ids that have gaps."""
    with MemoryStorage() as storage:
        storage.save(voiceprint("gone", 9))
        for seed, caller_id in enumerate(["alice", "bob", "alice", "çelik"]):
            storage.save(voiceprint(caller_id, seed, metadata={"seed": seed}, created_at=T0, last_seen=T1))
        storage.save(voiceprint("alice", 7, encoder="other"))
        storage.delete("gone")
        yield list(storage.iter_callers())


def test_restored_callers_are_as_they_were_with_ids_and_times(harness, original):
    assert harness.storage.restore_many(original) == 3
    for storage in harness.both():
        assert [as_it_is(caller) for caller in storage.iter_callers()] == [as_it_is(c) for c in original]
        state(storage)


def test_new_ids_come_after_the_restored_ones(harness, original):
    harness.storage.restore_many(original)
    taken = {print_.id for caller in original for print_ in caller.voiceprints}
    assert harness.storage.save(voiceprint("new")).id > max(taken)


def test_restoring_what_is_there_changes_nothing(harness, original):
    harness.storage.restore_many(original)
    revision, before = harness.storage.revision(), state(harness.storage)
    assert harness.storage.restore_many(original) == 0
    for storage in harness.both():
        assert (storage.revision(), state(storage)) == (revision, before)


def test_a_restored_caller_takes_the_place_of_the_one_that_is_there(harness):
    first = harness.storage.save(voiceprint("alice", 1, metadata={"old": 1}, last_seen=T2))
    second = harness.storage.save(voiceprint("alice", 2))
    kept = Voiceprint("alice", first.embedding, id=first.id, created_at=first.created_at)
    caller = Caller(caller_id="alice", metadata={"new": 2}, created_at=T0, last_seen=T1, voiceprints=(kept,))
    follower = Follower()
    follower.catch_up(harness.storage)
    assert harness.storage.restore_many([caller]) == 1
    follower.assert_in_step(harness.storage)
    for storage in harness.both():
        assert as_it_is(storage.get("alice")) == as_it_is(caller)
        assert second.id not in storage.get_many([first.id, second.id])


def test_a_restored_print_of_another_direction_reaches_followers(harness):
    saved = harness.storage.save(voiceprint("alice", 1))
    follower = Follower()
    follower.catch_up(harness.storage)
    changed = Voiceprint("alice", unit(5), id=saved.id, created_at=saved.created_at)
    harness.storage.restore_many(
        [harness.storage.get("alice").model_copy(update={"voiceprints": (changed,)})]
    )
    follower.assert_in_step(harness.storage)


@pytest.mark.parametrize("id_", [None, 0])
def test_a_print_without_an_id_is_refused_and_nothing_is_restored(harness, original, id_):
    bad = Caller(caller_id="zoe", voiceprints=(voiceprint("zoe", 1, id=id_),))
    with pytest.raises(InvalidArgumentError, match="zoe"):
        harness.storage.restore_many([*original, bad])
    for storage in harness.both():
        assert state(storage) == {}


def test_an_id_that_another_caller_has_is_refused_and_nothing_is_restored(harness):
    taken = harness.storage.save(voiceprint("alice", 1))
    before = state(harness.storage)
    others = [
        Caller(caller_id=name, voiceprints=(voiceprint(name, 2, id=id_),))
        for name, id_ in (("bob", taken.id + 7), ("carol", taken.id))
    ]
    with pytest.raises(InvalidArgumentError, match="carol"):
        harness.storage.restore_many(others)
    for storage in harness.both():
        assert state(storage) == before


def test_an_id_may_move_to_another_caller_in_one_restore(harness):
    taken = harness.storage.save(voiceprint("bob", 1))
    moved = Caller(caller_id="carol", voiceprints=(voiceprint("carol", 2, id=taken.id),))
    emptied = Caller(caller_id="bob", voiceprints=(voiceprint("bob", 3, id=taken.id + 1),))
    follower = Follower()
    follower.catch_up(harness.storage)
    assert harness.storage.restore_many([emptied, moved]) == 2
    follower.assert_in_step(harness.storage)
    for storage in harness.both():
        assert storage.get_many([taken.id])[taken.id].caller_id == "carol"
        state(storage)


@pytest.mark.parametrize("caller", [None, "alice", {"caller_id": "alice"}])
def test_only_callers_are_restored(harness, caller):
    with pytest.raises(InvalidArgumentError):
        harness.storage.restore_many([caller])


def test_a_caller_is_deleted_unless_seen_since(harness):
    harness.storage.save(voiceprint("alice", 1, created_at=T0, last_seen=T1))
    assert harness.storage.delete("alice", unless_seen_since=T0) == 0
    assert harness.storage.delete("alice", unless_seen_since=T1) == 0
    for storage in harness.both():
        assert storage.get("alice") is not None
    assert harness.storage.delete("alice", unless_seen_since=T2) == 1
    for storage in harness.both():
        assert storage.get("alice") is None
    assert harness.storage.delete("alice", unless_seen_since=T2) == 0


def test_progress_tells_how_many_are_done(harness, original):
    told: list[int] = []
    harness.storage.save_many([voiceprint(f"caller {n}", n) for n in range(1_200)], progress=told.append)
    assert told == [1_000, 1_200]
    told.clear()
    harness.storage.save_many([], progress=told.append)
    assert told == []
