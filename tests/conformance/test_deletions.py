"""The list of deletions: that a caller was deleted, without saying whom."""

from __future__ import annotations

import pytest
from harness import Harness
from stores import state, voiceprint

from voiceprint import InvalidArgumentError, Storage
from voiceprint.storage.base import Deletion
from voiceprint.storage.deletions import deletion_digest

KEY, DIGEST = "0" * 32, "a" * 32
EARLY, LATE = "2024-01-01T00:00:00.000000Z", "2025-01-01T00:00:00.000000Z"


def test_a_deletion_is_noted_with_its_time_and_without_the_name(harness: Harness) -> None:
    harness.storage.save_many([voiceprint("alice"), voiceprint("bob", 1)])
    assert harness.storage.deletions() == []
    before = harness.storage.get("alice").last_seen
    harness.storage.delete("alice")
    harness.storage.delete("nobody")
    for storage in harness.both():
        [deletion] = storage.deletions()
        assert deletion.key == storage.identity()
        assert deletion.digest == deletion_digest(storage.identity(), "alice")
        assert deletion.deleted_at >= before
        assert "alice" not in str(deletion)


def test_a_print_that_gives_way_is_not_a_deletion_of_the_caller(storage: Storage) -> None:
    storage.save_many([voiceprint(seed=n) for n in range(5)])
    assert storage.deletions() == []


def test_deleting_again_keeps_the_later_time(harness: Harness) -> None:
    for _ in range(2):
        harness.storage.save(voiceprint())
        harness.storage.delete("alice")
    first = harness.storage.deletions()
    harness.storage.save(voiceprint())
    harness.storage.delete("alice")
    for storage in harness.both():
        [deletion] = storage.deletions()
        assert deletion.deleted_at > first[0].deleted_at


def test_restoring_a_caller_of_before_the_deletion_drops_its_note(harness: Harness) -> None:
    harness.storage.save_many([voiceprint("alice"), voiceprint("bob", 1)])
    alice = harness.storage.get("alice")
    harness.storage.delete("alice")
    harness.storage.delete("bob")
    harness.storage.restore_many([alice])
    for storage in harness.both():
        assert [one.digest for one in storage.deletions()] == [deletion_digest(storage.identity(), "bob")]


def test_restoring_a_caller_of_after_the_deletion_keeps_its_note(harness: Harness) -> None:
    harness.storage.save(voiceprint("alice"))
    harness.storage.delete("alice")
    harness.storage.save(voiceprint("alice", 1))
    again = harness.storage.get("alice")
    harness.storage.restore_many([again.model_copy(update={"metadata": {"a": 1}})])
    for storage in harness.both():
        assert len(storage.deletions()) == 1


def test_the_deletions_of_another_store_are_taken_in_and_the_later_time_stays(harness: Harness) -> None:
    harness.storage.save(voiceprint())
    before = state(harness.storage)
    assert harness.storage.note_deletions([Deletion(KEY, DIGEST, EARLY), Deletion(KEY, "b" * 32, EARLY)]) == 2
    assert harness.storage.note_deletions([Deletion(KEY, DIGEST, LATE)]) == 1
    assert harness.storage.note_deletions([Deletion(KEY, DIGEST, EARLY), Deletion(KEY, DIGEST, LATE)]) == 0
    assert harness.storage.note_deletions([]) == 0
    for storage in harness.both():
        assert sorted(storage.deletions()) == [Deletion(KEY, DIGEST, LATE), Deletion(KEY, "b" * 32, EARLY)]
        assert state(storage) == before


def test_a_note_of_another_store_is_dropped_with_the_restored_caller(harness: Harness) -> None:
    harness.storage.save(voiceprint("alice"))
    alice = harness.storage.get("alice")
    harness.storage.note_deletions([Deletion(KEY, deletion_digest(KEY, "alice"), "2999-01-01T00:00:00Z")])
    harness.storage.restore_many([alice.model_copy(update={"metadata": {"a": 1}})])
    for storage in harness.both():
        assert storage.deletions() == []


def test_many_deletions_are_taken_in(harness: Harness) -> None:
    many = [Deletion(KEY, f"{n:032x}", EARLY) for n in range(1_500)]
    assert harness.storage.note_deletions(many) == 1_500
    assert sorted(harness.reopen().deletions()) == many


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        ("k", DIGEST, EARLY),
        Deletion("", DIGEST, EARLY),
        Deletion("k" * 101, DIGEST, EARLY),
        Deletion("k y", DIGEST, EARLY),
        Deletion(KEY, "alice", EARLY),
        Deletion(KEY, DIGEST, "yesterday"),
        Deletion(KEY, DIGEST, None),
        Deletion(KEY, 5, EARLY),
    ],
)
def test_what_is_no_deletion_is_refused_and_nothing_is_noted(storage: Storage, wrong: object) -> None:
    with pytest.raises(InvalidArgumentError):
        storage.note_deletions([Deletion(KEY, DIGEST, EARLY), wrong])
    assert storage.deletions() == []
