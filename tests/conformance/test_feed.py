"""The change feed: what a derived index needs to follow a store."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Harness
from stores import Follower, ids_of, voiceprint

from voiceprint import InvalidArgumentError, Storage
from voiceprint.storage.base import START, Position


def test_the_feed_gives_what_happened_after_a_revision(harness: Harness) -> None:
    first = harness.storage.save(voiceprint("alice"))
    since = harness.storage.position()
    second = harness.storage.save(voiceprint("bob", 1))
    harness.storage.delete("alice")
    for storage in harness.both():
        changes = storage.changes(since)
        assert changes.removed.tolist() == [first.id]
        assert changes.ids.tolist() == [second.id]
        assert np.array_equal(changes.embeddings, [second.embedding])
        assert changes.position == storage.position() != since
        assert changes.more is False
        assert (changes.ids.dtype, changes.removed.dtype, changes.embeddings.dtype) == (
            np.int64,
            np.int64,
            np.float32,
        )


def test_the_feed_is_empty_when_no_voiceprint_changed(harness: Harness) -> None:
    harness.storage.save(voiceprint())
    since = harness.storage.position()
    harness.storage.update_metadata("alice", {"a": 1})
    harness.storage.touch("alice", "2099-01-01T00:00:00Z")
    for storage in harness.both():
        changes = storage.changes(since)
        assert (changes.ids.size, changes.removed.size) == (0, 0)
        assert changes.position == storage.position() == since


def test_the_feed_tells_of_the_oldest_that_gave_way(harness: Harness) -> None:
    saved = [harness.storage.save(voiceprint(seed=seed)) for seed in range(3)]
    since = harness.storage.position()
    last = harness.storage.save(voiceprint(seed=9))
    changes = harness.reopen().changes(since)
    assert changes.removed.tolist() == [saved[0].id]
    assert changes.ids.tolist() == [last.id]


def test_the_feed_tells_of_a_voiceprint_replaced_in_place(harness: Harness) -> None:
    saved = harness.storage.save(voiceprint())
    since = harness.storage.position()
    harness.storage.save(voiceprint(seed=5, id=saved.id))
    changes = harness.reopen().changes(since)
    assert changes.ids.tolist() == [saved.id]
    assert saved.id not in changes.removed or changes.ids.tolist() == [saved.id]


def test_a_voiceprint_that_moves_to_another_space_leaves_the_first(harness: Harness) -> None:
    followers = Follower(), Follower("other")
    saved = harness.storage.save(voiceprint())
    for follower in followers:
        follower.assert_in_step(harness.storage)
    harness.storage.save(voiceprint(encoder="other", id=saved.id))
    for follower in followers:
        follower.assert_in_step(harness.reopen())
        assert follower.rebuilds == 1
    assert list(followers[0].embeddings) == []
    assert len(followers[1].embeddings) == 1
    harness.storage.save(voiceprint(seed=3, id=saved.id))
    for follower in followers:
        follower.assert_in_step(harness.reopen())


def test_the_position_moves_with_every_change_of_a_voiceprint_and_with_nothing_else(harness: Harness) -> None:
    seen = [harness.storage.position()]
    assert seen == [START]
    saved = harness.storage.save(voiceprint())
    for change in (
        lambda s: None,
        lambda s: s.save(voiceprint(seed=1)),
        lambda s: s.save(voiceprint(seed=2, id=saved.id)),
        lambda s: s.set_groups("alice", add=["vip"]),
        lambda s: s.restore_many([s.get("alice").model_copy(update={"voiceprints": ()})]),
        lambda s: s.save(voiceprint(seed=3)),
        lambda s: s.delete("alice"),
    ):
        change(harness.storage)
        for storage in harness.both():
            position = storage.position()
            assert storage.position() == position
        assert position not in seen
        seen.append(position)
    harness.storage.save(voiceprint("bob"))
    before = harness.storage.position()
    harness.storage.touch("bob", "2099-01-01T00:00:00Z")
    harness.storage.update_metadata("bob", {"a": 1})
    harness.storage.opt_out("carol")
    harness.storage.delete("carol")  # a caller without voiceprints
    for storage in harness.both():
        assert storage.position() == before


def test_a_position_that_is_not_of_this_history_gives_none(harness: Harness) -> None:
    harness.storage.save(voiceprint())
    first = harness.storage.position()
    harness.storage.save(voiceprint("bob", 1))
    storage = harness.reopen()
    revision, token = storage.position()
    for position in (
        Position(revision + 1, token),
        Position(revision, "0123456789abcdef"),
        Position(revision, first.token),
        Position(first.revision, token),
        Position(revision, ""),
        Position(10**12, token),
        Position(-1, token),
        Position(0, token + "0"),
    ):
        assert storage.changes(position) is None
    assert storage.changes(first).ids.size == 1
    assert storage.changes(storage.position()).ids.size == 0
    assert storage.changes(START).ids.size == 2


@pytest.mark.parametrize("since", [None, 0, "0", (0, "")])
def test_what_is_no_position_is_refused(storage: Storage, since: object) -> None:
    with pytest.raises(InvalidArgumentError, match="position"):
        storage.changes(since)


def test_a_follower_keeps_in_step_over_every_kind_of_change(harness: Harness) -> None:
    follower = Follower()
    steps = (
        lambda s: s.save_many([voiceprint(f"c{n}", n) for n in range(5)]),
        lambda s: s.save_many([voiceprint("c1", n) for n in range(5)]),
        lambda s: s.save(voiceprint("c2", 9, id=ids_of(s.get("c2").voiceprints)[0])),
        lambda s: s.delete("c3"),
        lambda s: s.save(voiceprint("c3", 30)),
        lambda s: s.touch("c1"),
        lambda s: s.save(voiceprint("c4", 40, encoder="other")),
        lambda s: s.delete("c4"),
    )
    follower.assert_in_step(harness.storage)
    for step in steps:
        step(harness.storage)
        follower.assert_in_step(harness.storage)
        follower.assert_in_step(harness.reopen())


def test_a_follower_of_one_handle_sees_the_changes_of_another(harness: Harness) -> None:
    follower, writer = Follower(), harness.open()
    follower.assert_in_step(harness.storage)
    for n in range(5):
        writer.save(voiceprint(f"c{n}", n))
        follower.assert_in_step(harness.storage)
        assert len(follower.embeddings) == n + 1
    writer.delete("c2")
    follower.assert_in_step(harness.storage)
    assert len(follower.embeddings) == 4


def test_two_prints_given_and_taken_in_one_change_leave_the_follower_in_step(harness: Harness) -> None:
    follower = Follower()
    follower.assert_in_step(harness.storage)
    harness.storage.save_many([voiceprint(seed=n) for n in range(7)])
    follower.assert_in_step(harness.reopen())
    assert len(follower.embeddings) == 3
