"""The print for simulated lines beside the plain one: kept to the bit, optional, and unknown to followers."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Harness
from stores import Follower, assert_same_caller, ids_of, state, unit, voiceprint

from voiceprint import InvalidArgumentError, MemoryStorage, Storage
from voiceprint.storage.transfer import copy_callers, digest


def test_it_comes_back_to_the_bit_in_every_way_of_reading(harness: Harness) -> None:
    saved = [
        harness.storage.save(voiceprint("alice", 1, augmented=unit(2))),
        harness.storage.save(voiceprint("alice", 3)),
        harness.storage.save(voiceprint("alice", 4, encoder="other", augmented=unit(5, 8))),
        harness.storage.save(voiceprint("bob", 6, augmented=3 * unit(7))),
    ]
    wanted = [unit(2), None, unit(5, 8), unit(7)]
    for storage in harness.both():
        prints = storage.get_all()
        found = storage.get_many(ids_of(saved))
        assert list(storage.get("alice").voiceprints) == prints[:3]
        for print_, one, augmented in zip(prints, saved, wanted, strict=True):
            assert print_ == found[one.id]
            if augmented is None:
                assert print_.augmented is one.augmented is None
            else:
                assert print_.augmented.tobytes() == one.augmented.tobytes()
                assert print_.augmented.dtype == np.float32
                np.testing.assert_allclose(print_.augmented, augmented, atol=1e-6)
                assert not print_.augmented.flags.writeable
        state(storage)
        assert storage.check() == []


def test_followers_are_given_the_plain_embedding_alone(harness: Harness) -> None:
    saved = harness.storage.save(voiceprint("alice", 1, augmented=unit(2)))
    follower = Follower()
    follower.assert_in_step(harness.storage)
    before = harness.storage.position()
    harness.storage.save(voiceprint("alice", 3, augmented=unit(4), id=saved.id))
    changes = harness.storage.changes(before)
    assert (changes.ids.tolist(), changes.embeddings.shape) == ([saved.id], (1, 256))
    follower.assert_in_step(harness.storage)
    assert np.array_equal(follower.embeddings[saved.id], unit(3))


def test_a_print_that_is_replaced_loses_the_one_of_its_predecessor(harness: Harness) -> None:
    saved = harness.storage.save(voiceprint("alice", 1, augmented=unit(2)))
    harness.storage.save(voiceprint("alice", 3, id=saved.id))
    for storage in harness.both():
        assert storage.get("alice").voiceprints[0].augmented is None
    harness.storage.save(voiceprint("alice", 3, id=saved.id, augmented=unit(4)))
    for storage in harness.both():
        assert np.array_equal(storage.get("alice").voiceprints[0].augmented, unit(4))


def test_other_changes_of_the_caller_leave_it(harness: Harness) -> None:
    harness.storage.save(voiceprint("alice", 1, augmented=unit(2)))
    harness.storage.update_metadata("alice", {"plan": "gold"})
    harness.reopen().touch("alice")
    harness.storage.save(voiceprint("alice", 3))
    harness.reopen().delete("nobody")
    first, second = harness.storage.get("alice").voiceprints
    assert np.array_equal(first.augmented, unit(2))
    assert second.augmented is None


def test_one_of_another_length_is_refused_and_nothing_is_stored(harness: Harness) -> None:
    bad = voiceprint("bob", 1, encoder="other", augmented=unit(2, 8))
    bad.embedding = unit(3, 9)  # an assignment that leaves the two of different lengths
    with pytest.raises(InvalidArgumentError, match="8 values"):
        harness.storage.save_many([voiceprint("alice"), bad])
    assert state(harness.reopen()) == {}


def test_callers_are_restored_with_it_and_it_alone_is_a_difference(harness: Harness) -> None:
    harness.storage.save(voiceprint("alice", 1, augmented=unit(2)))
    caller = harness.storage.get("alice")
    plain = caller.model_copy(
        update={"voiceprints": (caller.voiceprints[0].model_copy(update={"augmented": None}),)}
    )
    for wanted in (plain, caller):
        assert harness.storage.restore_many([wanted]) == 1
        assert harness.storage.restore_many([wanted]) == 0
        for storage in harness.both():
            kept = storage.get("alice").voiceprints[0].augmented
            assert np.array_equal(kept, wanted.voiceprints[0].augmented)


def test_a_copy_to_and_from_another_store_is_verified_with_it(harness: Harness) -> None:
    with MemoryStorage() as source, MemoryStorage() as back:
        source.save_many(voiceprint(f"caller {n}", n, augmented=unit(n + 50)) for n in range(5))
        source.save(voiceprint("caller 2", 60))
        report = copy_callers(source, harness.storage)
        assert report.changed == 5
        assert digest(harness.reopen()) == report.digest == digest(source)
        copy_callers(harness.storage, back)
        for caller in source.iter_callers():
            kept = back.get(caller.caller_id)
            for mine, its in zip(kept.voiceprints, caller.voiceprints, strict=True):
                assert np.array_equal(mine.augmented, its.augmented)


def test_the_saved_voiceprint_that_is_returned_has_it(storage: Storage) -> None:
    saved = storage.save(voiceprint(augmented=unit(9)))
    assert_same_caller(storage.get("alice"), storage.callers()[0])
    assert storage.get("alice").voiceprints[0] == saved
    assert np.array_equal(saved.augmented, unit(9))
