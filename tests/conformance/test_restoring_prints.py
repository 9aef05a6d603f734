"""Callers that are put in as they are: ids, times and order, all or nothing."""

from __future__ import annotations

import pytest
from harness import Harness
from stores import Follower, assert_same_caller, ids_of, state, voiceprint

from voiceprint import Caller, InvalidArgumentError

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


@pytest.mark.parametrize("id_", [None, 0, -1, 3, 2**48 + 1, 2**53, 2**63 - 2, 2**63, 2**70])
def test_an_id_that_cannot_be_taken_changes_nothing(harness: Harness, id_: int | None) -> None:
    _restored(harness, caller("bob", 3))
    before = state(harness.storage)
    bad = Caller(caller_id="carol", voiceprints=(voiceprint("carol", id=id_),))
    with pytest.raises(InvalidArgumentError, match="id"):
        harness.storage.restore_many([caller("alice", 1), bad])
    assert state(harness.reopen()) == before


def test_the_greatest_id_is_kept_and_the_next_ones_follow_it(harness: Harness) -> None:
    _restored(harness, caller("alice", 2**48))
    assert [harness.reopen().save(voiceprint("bob", n)).id for n in range(4)] == [
        2**48 + 1, 2**48 + 2, 2**48 + 3, 2**48 + 4
    ]  # fmt: skip
    assert harness.storage.get_many([2**48, 2**48 + 4]).keys() == {2**48, 2**48 + 4}
    follower = Follower()
    follower.assert_in_step(harness.storage)
    assert harness.storage.delete("bob") == 3
    follower.assert_in_step(harness.storage)


def test_delete_leaves_a_caller_who_was_seen_since(harness: Harness) -> None:
    _restored(harness, caller("alice", 1))
    before = harness.storage.get("alice")
    assert harness.storage.delete("alice", unless_seen_since=TIMES["last_seen"]) == 0
    assert_same_caller(harness.reopen().get("alice"), before)
    assert harness.storage.delete("alice", unless_seen_since="2021-01-01T00:00:01Z") == 1
    assert harness.reopen().get("alice") is None
