"""Voiceprints of several embedding spaces in one store, on every store."""

from __future__ import annotations

from harness import Harness
from stores import ids_of, voiceprint

from voiceprint import Caller, Storage


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
