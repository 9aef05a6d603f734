"""Voiceprints of several embedding spaces in one store, on every store."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Harness
from stores import Follower, ids_of, state, unit, voiceprint

from voiceprint import Caller, InvalidArgumentError, Storage, Voiceprint
from voiceprint.storage import SpacePruneReport, prune_space
from voiceprint.storage.base import SpaceCounts


def test_the_voiceprints_of_each_space_are_counted(harness: Harness) -> None:
    assert harness.storage.spaces() == {}
    first = harness.storage.save(voiceprint("alice", 1))
    harness.storage.save_many([voiceprint("bob", 2), voiceprint("bob", 3, encoder="other")])
    for storage in harness.both():
        assert storage.spaces() == {"resemblyzer": 2, "other": 1}
    harness.storage.save(voiceprint("alice", 4, id=first.id, encoder="other"))
    for storage in harness.both():
        assert storage.spaces() == {"resemblyzer": 1, "other": 2}
    harness.storage.delete("bob")
    prints = (voiceprint("carol", 5, id=90, encoder="third: n:x"),)
    harness.storage.restore_many([Caller(caller_id="carol", voiceprints=prints)])
    for storage in harness.both():
        assert storage.spaces() == {"other": 1, "third: n:x": 1}


def test_the_limit_of_voiceprints_holds_for_each_space(harness: Harness) -> None:
    old = [harness.storage.save(voiceprint("alice", seed)) for seed in range(3)]
    new = harness.storage.save_many([voiceprint("alice", seed, encoder="other") for seed in range(4)])
    for storage in harness.both():
        assert _ids(storage) == [*ids_of(old), *ids_of(new[1:])]
        assert storage.check() == []
    newest = harness.storage.save(voiceprint("alice", 9))
    assert _ids(harness.reopen()) == [*ids_of(old[1:]), *ids_of(new[1:]), newest.id]


def test_a_voiceprint_that_moves_into_a_full_space_takes_the_place_of_its_oldest(harness: Harness) -> None:
    old = harness.storage.save(voiceprint("alice", 1))
    other = [harness.storage.save(voiceprint("alice", seed, encoder="other")) for seed in range(3)]
    harness.storage.save(voiceprint("alice", 5, id=old.id, encoder="other"))
    for storage in harness.both():
        assert _ids(storage) == [old.id, *ids_of(other[1:])]
        assert storage.spaces() == {"other": 3}


def test_a_lower_limit_removes_voiceprints_of_the_saved_space_alone(harness: Harness) -> None:
    for encoder in ("resemblyzer", "other"):
        harness.storage.save_many([voiceprint("alice", seed, encoder=encoder) for seed in range(3)])
    harness.storage.save(voiceprint("alice", 7, encoder="other"), max_voiceprints=1)
    for storage in harness.both():
        assert storage.spaces() == {"resemblyzer": 3, "other": 1}


def test_check_reports_each_space_with_more_voiceprints_than_the_limit(harness: Harness) -> None:
    for encoder, count in (("resemblyzer", 2), ("other", 3), ("third", 1)):
        harness.storage.save_many([voiceprint("alice", seed, encoder=encoder) for seed in range(count)])
    stricter = harness.open(max_voiceprints_per_caller=2)
    stricter.max_voiceprints_per_caller = 2  # the memory store has one handle
    (finding,) = stricter.check()
    assert (finding.code, finding.place) == ("too_many_voiceprints", "caller 'alice'")
    assert finding.message.startswith("3 voiceprints of the space 'other', and 2 are the limit")
    stricter.max_voiceprints_per_caller = 3


def _ids(storage: Storage) -> list[int | None]:
    caller = storage.get("alice")
    assert caller is not None
    return ids_of(caller.voiceprints)


def test_the_voiceprints_of_one_space_are_deleted_and_the_others_stay(harness: Harness) -> None:
    harness.storage.save_many([voiceprint("alice", 1, metadata={"a": 1}), voiceprint("bob", 2)])
    harness.storage.save_many([voiceprint(name, 3, encoder="other") for name in ("alice", "bob", "carol")])
    followers = Follower("resemblyzer"), Follower("other")
    for follower in followers:
        follower.catch_up(harness.storage)
    before = state(harness.storage)
    deleted = harness.storage.delete_voiceprints(["alice", "nobody", "alice"], encoder="resemblyzer")
    assert deleted == 1
    for storage in harness.both():
        assert storage.spaces() == {"resemblyzer": 1, "other": 3}
        after = state(storage)
        assert after["alice"]["voiceprints"] == before["alice"]["voiceprints"][1:]
        assert {**after, "alice": None} == {**before, "alice": None}
        assert (after["alice"]["metadata"], storage.deletions()) == (before["alice"]["metadata"], [])
        for follower in followers:
            follower.assert_in_step(storage)
            assert follower.rebuilds == 1


def test_a_caller_with_voiceprints_of_one_space_alone_keeps_them(harness: Harness) -> None:
    harness.storage.save(voiceprint("alice", 1))
    harness.storage.save_many([voiceprint("bob", 2), voiceprint("bob", 3, encoder="other")])
    revision = harness.storage.revision()
    assert harness.storage.delete_voiceprints(["alice"], encoder="resemblyzer") == 0
    assert harness.storage.delete_voiceprints(["alice", "bob"], encoder="third") == 0
    assert harness.storage.delete_voiceprints([], encoder="resemblyzer") == 0
    assert harness.storage.revision() == revision
    assert harness.storage.delete_voiceprints(["alice", "bob"], encoder="resemblyzer") == 1
    for storage in harness.both():
        assert storage.spaces() == {"resemblyzer": 1, "other": 1}


def test_a_deleted_space_gives_its_slots_and_its_dimension_back(harness: Harness) -> None:
    for encoder in ("resemblyzer", "other"):
        harness.storage.save_many([voiceprint("alice", seed, encoder=encoder) for seed in range(3)])
    assert harness.storage.delete_voiceprints(["alice"], encoder="other") == 3
    harness.storage.save_many([Voiceprint("alice", unit(seed, 9), encoder="other") for seed in range(3)])
    for storage in harness.both():
        assert storage.spaces() == {"resemblyzer": 3, "other": 3}
        assert storage.check() == []


def test_nothing_is_deleted_from_a_store_that_is_not_there(harness: Harness) -> None:
    existed = harness.storage.exists()  # as the memory store always does
    assert harness.storage.delete_voiceprints(["alice"], encoder="resemblyzer") == 0
    assert harness.storage.exists() == existed


@pytest.mark.parametrize(
    ("caller_ids", "encoder"),
    [("alice", "other"), ([""], "other"), ([1], "other"), (["alice"], ""), ([], None)],
)
def test_wrong_arguments_of_a_deletion_are_refused(storage: Storage, caller_ids: Any, encoder: Any) -> None:
    storage.save(voiceprint("alice", 1))
    with pytest.raises(InvalidArgumentError):
        storage.delete_voiceprints(caller_ids, encoder=encoder)


def _migrating(storage: Storage) -> None:
    """Alice is enrolled in both spaces, bob in the old one alone, carol in the new one alone."""
    storage.save_many([voiceprint("alice", 1), voiceprint("alice", 2), voiceprint("bob", 3)])
    storage.save_many([voiceprint("alice", 4, encoder="new"), voiceprint("carol", 5, encoder="new")])


def test_pruning_a_space_only_reports_at_first(harness: Harness) -> None:
    _migrating(harness.storage)
    before = state(harness.storage)
    looked_at: list[int] = []
    report = prune_space(harness.storage, "resemblyzer", progress=looked_at.append)
    assert report == SpacePruneReport("resemblyzer", 2, 1, deleted_callers=(), kept_callers=("bob",))
    report = prune_space(harness.storage, "resemblyzer", delete_callers=True)
    assert report == SpacePruneReport("resemblyzer", 3, 1, deleted_callers=("bob",), kept_callers=())
    assert looked_at == [3]
    assert state(harness.reopen()) == before


def test_a_pruned_space_is_gone_but_for_callers_without_another(harness: Harness) -> None:
    _migrating(harness.storage)
    report = prune_space(harness.storage, "resemblyzer", dry_run=False)
    assert report == SpacePruneReport("resemblyzer", 2, 1, deleted_callers=(), kept_callers=("bob",))
    for storage in harness.both():
        assert storage.spaces() == {"resemblyzer": 1, "new": 2}
        assert storage.count_callers() == 3
    report = prune_space(harness.storage, "resemblyzer", delete_callers=True, dry_run=False)
    assert report == SpacePruneReport("resemblyzer", 1, 0, deleted_callers=("bob",), kept_callers=())
    for storage in harness.both():
        assert storage.spaces() == {"new": 2}
        assert storage.get("bob") is None
        assert len(storage.deletions()) == 1
    with pytest.raises(InvalidArgumentError, match=r"space 'resemblyzer': it has 2 of 'new'"):
        prune_space(harness.storage, "resemblyzer")


def test_a_caller_who_is_enrolled_in_the_new_space_while_the_old_is_pruned_stays(storage: Storage) -> None:
    storage.save_many([voiceprint("alice", 1), voiceprint("bob", 2), voiceprint("bob", 3, encoder="new")])
    storage.save(voiceprint("carol", 5))
    read = storage.callers

    def read_and_enroll(**page: Any) -> list[Caller]:
        found = read(**page)
        storage.save(voiceprint("alice", 4, encoder="new", last_seen=found[0].last_seen))
        return found

    storage.callers = read_and_enroll  # type: ignore[method-assign]
    report = prune_space(storage, "resemblyzer", delete_callers=True, dry_run=False)
    assert report == SpacePruneReport("resemblyzer", 3, 2, deleted_callers=("carol",), kept_callers=())
    assert storage.spaces() == {"new": 2}
    alice = storage.get("alice")
    assert alice is not None
    assert [print_.encoder for print_ in alice.voiceprints] == ["new"]


def test_the_coverage_counts_callers_of_each_space_and_those_of_it_alone(harness: Harness) -> None:
    assert harness.storage.coverage() == {}
    _migrating(harness.storage)
    harness.storage.restore_many([Caller(caller_id="nobody", metadata={"voiceprints": [{"encoder": "x"}]})])
    wanted = {"resemblyzer": SpaceCounts(256, 3, 2, 1), "new": SpaceCounts(8, 2, 2, 1)}
    for storage in harness.both():
        assert storage.coverage() == wanted
    harness.storage.delete("bob")
    harness.storage.save(voiceprint("carol", 6, encoder="third: n:x"))
    wanted = {
        "resemblyzer": SpaceCounts(256, 2, 1, 0),
        "new": SpaceCounts(8, 2, 2, 0),
        "third: n:x": SpaceCounts(8, 1, 1, 0),
    }
    for storage in harness.both():
        assert storage.coverage() == wanted


def test_the_coverage_of_a_store_of_one_space_is_all_its_callers(harness: Harness) -> None:
    harness.storage.save_many([voiceprint(f"c{n % 1_100}", n, encoder="tiny") for n in range(2_000)])
    for storage in harness.both():
        assert storage.coverage() == {"tiny": SpaceCounts(8, 2_000, 1_100, 1_100)}
