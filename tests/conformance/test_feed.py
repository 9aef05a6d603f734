"""The change feed: what a derived index needs to follow a store."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Harness
from stores import Follower, ids_of, voiceprint

from voiceprint import InvalidArgumentError, Storage


def test_the_feed_gives_what_happened_after_a_revision(harness: Harness) -> None:
    first = harness.storage.save(voiceprint("alice"))
    since = harness.storage.revision()
    second = harness.storage.save(voiceprint("bob", 1))
    harness.storage.delete("alice")
    for storage in harness.both():
        changes = storage.changes(since)
        assert changes.removed.tolist() == [first.id]
        assert changes.ids.tolist() == [second.id]
        assert np.array_equal(changes.embeddings, [second.embedding])
        assert changes.revision == storage.revision()
        assert changes.more is False
        assert (changes.ids.dtype, changes.removed.dtype, changes.embeddings.dtype) == (
            np.int64,
            np.int64,
            np.float32,
        )


def test_the_feed_is_empty_when_no_voiceprint_changed(harness: Harness) -> None:
    harness.storage.save(voiceprint())
    since = harness.storage.revision()
    harness.storage.update_metadata("alice", {"a": 1})
    harness.storage.touch("alice", "2099-01-01T00:00:00Z")
    for storage in harness.both():
        changes = storage.changes(since)
        assert (changes.ids.size, changes.removed.size) == (0, 0)
        assert changes.revision == storage.revision() > since


def test_the_feed_tells_of_the_oldest_that_gave_way(harness: Harness) -> None:
    saved = [harness.storage.save(voiceprint(seed=seed)) for seed in range(3)]
    since = harness.storage.revision()
    last = harness.storage.save(voiceprint(seed=9))
    changes = harness.reopen().changes(since)
    assert changes.removed.tolist() == [saved[0].id]
    assert changes.ids.tolist() == [last.id]


def test_the_feed_tells_of_a_voiceprint_replaced_in_place(harness: Harness) -> None:
    saved = harness.storage.save(voiceprint())
    since = harness.storage.revision()
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


def test_a_revision_that_is_not_of_this_history_gives_none(harness: Harness) -> None:
    harness.storage.save(voiceprint())
    storage = harness.reopen()
    assert storage.changes(storage.revision() + 1) is None
    assert storage.changes(10**12) is None
    assert storage.changes(-1) is None
    assert storage.changes(storage.revision()) is not None


@pytest.mark.parametrize("since", [None, "0", 1.5])
def test_a_revision_that_is_no_number_is_refused(storage: Storage, since: object) -> None:
    with pytest.raises(InvalidArgumentError, match="revision"):
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
