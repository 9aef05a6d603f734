"""Callers that are put in as they are: ids, times and order, all or nothing."""

from __future__ import annotations

import io

import pytest
from harness import Harness
from stores import Follower, assert_same_caller, ids_of, state, voiceprint

from voiceprint import Caller, InvalidArgumentError, MemoryStorage
from voiceprint.storage.transfer import copy_callers, export_callers, import_callers

TIMES = {"created_at": "2020-01-01T00:00:00.000000Z", "last_seen": "2021-01-01T00:00:00.000000Z"}


def caller(name: str, *ids: int, **fields: object) -> Caller:
    prints = tuple(voiceprint(name, id_, id=id_, created_at=TIMES["created_at"]) for id_ in ids)
    return Caller(caller_id=name, voiceprints=prints, **{**TIMES, "metadata": {"n": 1}, **fields})


def _restored(harness: Harness, *callers: Caller) -> int:
    changed = harness.storage.restore_many(callers)
    for given in callers:
        kept = harness.reopen().get(given.caller_id)
        assert ids_of(kept.voiceprints) == ids_of(given.voiceprints)
        assert (kept.metadata, kept.created_at, kept.last_seen) == (
            given.metadata,
            given.created_at,
            given.last_seen,
        )
        for mine, its in zip(kept.voiceprints, given.voiceprints, strict=True):
            assert mine.embedding.tobytes() == its.embedding.tobytes()
    return changed


def test_a_restored_caller_is_as_it_was_also_in_the_order_of_its_prints(harness: Harness) -> None:
    assert _restored(harness, caller("alice", 7, 3, 9), caller("bob", 5)) == 2
    revision = harness.storage.revision()
    assert _restored(harness, caller("alice", 7, 3, 9)) == 0
    assert harness.storage.revision() == revision
    assert harness.storage.save(voiceprint("carol")).id == 10


@pytest.mark.parametrize("order", [(3, 7, 9), (9, 3, 7), (3, 9), (8, 7), (8, 3, 9, 7), ()])
def test_restoring_replaces_what_was_there(harness: Harness, order: tuple[int, ...]) -> None:
    follower = Follower()
    _restored(harness, caller("alice", 7, 3, 9))
    follower.assert_in_step(harness.storage)
    assert _restored(harness, caller("alice", *order)) == 1
    follower.assert_in_step(harness.storage)
    saved = harness.storage.save(voiceprint("alice", 99))
    kept = ids_of(harness.reopen().get("alice").voiceprints)
    assert kept == [*order, saved.id][-3:]
    follower.assert_in_step(harness.storage)


def test_a_print_may_go_from_one_caller_to_another_in_one_change(harness: Harness) -> None:
    follower = Follower()
    _restored(harness, caller("alice", 1, 2), caller("bob", 3))
    follower.assert_in_step(harness.storage)
    assert _restored(harness, caller("alice", 2), caller("bob", 1, 3)) == 2
    follower.assert_in_step(harness.storage)


@pytest.mark.parametrize("id_", [None, 0, -1, 3, 10**15, 2**53, 2**63 - 2, 2**63, 2**70])
def test_an_id_that_cannot_be_taken_changes_nothing(harness: Harness, id_: int | None) -> None:
    _restored(harness, caller("bob", 3))
    before = state(harness.storage)
    bad = Caller(caller_id="carol", voiceprints=(voiceprint("carol", id=id_),))
    with pytest.raises(InvalidArgumentError, match="id"):
        harness.storage.restore_many([caller("alice", 1), bad])
    assert state(harness.reopen()) == before


@pytest.mark.parametrize(
    "ids", [(2**48 - 2,), (2**48,), (2**48 + 1, 2**48 + 2), (2**48, 10**15 - 1), (10**15 - 1,)]
)
def test_whatever_a_store_gives_out_after_a_great_id_can_be_put_into_any_store(
    harness: Harness, ids: tuple[int, ...]
) -> None:
    _restored(harness, caller("alice", *ids))
    follower = Follower()
    follower.catch_up(harness.storage)
    given = [harness.reopen().save(voiceprint("bob", n)).id for n in range(4)]
    given += ids_of(harness.storage.save_many([voiceprint(f"c{n}", n) for n in range(5)]))
    assert len({*given, *ids}) == len(given) + len(ids)
    assert all(0 < id_ < 10**15 for id_ in given)
    assert harness.storage.delete("c0") == 1
    follower.assert_in_step(harness.storage)
    moved = list(harness.storage.iter_callers())
    with MemoryStorage() as elsewhere:
        copy_callers(harness.storage, elsewhere)
        exported = io.BytesIO()
        export_callers(elsewhere, exported)
        elsewhere.save(voiceprint("new"))
        later = list(elsewhere.iter_callers())
    harness.storage.restore_many(moved)  # which it has already
    harness.storage.delete("alice")
    exported.seek(0)
    import_callers(harness.storage, exported)
    harness.storage.restore_many(later)
    harness.reopen().save(voiceprint("last"))
    assert list(state(harness.storage)) == ["alice", "bob", "c1", "c2", "c3", "c4", "last", "new"]


def test_ids_after_a_great_one_are_not_given_twice_by_several_handles(harness: Harness) -> None:
    _restored(harness, caller("alice", 2**48))
    handles = [harness.open() for _ in range(3)]
    given = [handle.save(voiceprint(f"c{n}", n)).id for n in range(4) for handle in handles]
    assert len(set(given)) == len(given)


def test_a_great_id_leaves_the_counted_ones_alone(harness: Harness) -> None:
    _restored(harness, caller("alice", 10**15 - 1, 7, 2**48 + 1))
    assert harness.storage.save(voiceprint("bob")).id == 8


@pytest.mark.parametrize("ids", [(5, 5), (5, 6, 5), (1, 1)])
def test_an_id_twice_in_one_caller_changes_nothing(harness: Harness, ids: tuple[int, ...]) -> None:
    _restored(harness, caller("bob", 1))
    before = state(harness.storage)
    follower = Follower()
    follower.catch_up(harness.storage)
    for name in ("alice", "bob"):
        with pytest.raises(InvalidArgumentError, match=f"'{name}' has the voiceprint id {ids[0]} twice"):
            harness.storage.restore_many([caller("carol", 9), caller(name, *ids)])
    assert state(harness.reopen()) == before
    follower.assert_in_step(harness.storage)
    assert harness.storage.check() == []


def test_an_id_of_two_callers_of_one_call_changes_nothing(harness: Harness) -> None:
    with pytest.raises(InvalidArgumentError, match="'alice' and 'carol' both have the voiceprint id 5"):
        harness.storage.restore_many([caller("alice", 5), caller("bob", 6), caller("carol", 7, 5)])
    assert state(harness.reopen()) == {}


def test_of_a_caller_who_comes_twice_the_later_one_stays(harness: Harness) -> None:
    harness.storage.restore_many([caller("alice", 5, 6), caller("bob", 7), caller("alice", 6, 8)])
    assert ids_of(harness.reopen().get("alice").voiceprints) == [6, 8]
    Follower().assert_in_step(harness.storage)
    state(harness.storage)


def test_delete_leaves_a_caller_who_was_seen_since(harness: Harness) -> None:
    _restored(harness, caller("alice", 1))
    before = harness.storage.get("alice")
    assert harness.storage.delete("alice", unless_seen_since=TIMES["last_seen"]) == 0
    assert_same_caller(harness.reopen().get("alice"), before)
    assert harness.storage.delete("alice", unless_seen_since="2021-01-01T00:00:01Z") == 1
    assert harness.reopen().get("alice") is None
