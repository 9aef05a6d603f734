"""Saving keeps its promises: ids, limits, merging, times, and all or nothing."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from harness import Harness
from stores import assert_embedding, assert_same_caller, ids_of, state, unit, voiceprint

from voiceprint import InvalidArgumentError, Storage, Voiceprint


def test_a_saved_voiceprint_comes_back_the_same_after_reopening(harness: Harness) -> None:
    given = voiceprint(metadata={"name": "Alice"}, created_at="2024-05-01T12:00:00Z")
    saved = harness.storage.save(given)
    assert (saved.caller_id, saved.metadata, saved.encoder) == ("alice", {"name": "Alice"}, "resemblyzer")
    assert saved.id is not None
    assert saved.revision == harness.storage.revision()
    assert_embedding(saved.embedding, given.embedding)
    for storage in harness.both():
        caller = storage.get("alice")
        assert caller is not None
        assert caller.voiceprints == (saved,)
        assert storage.get_all() == [saved]
        assert storage.get_many([saved.id]) == {saved.id: saved}


def test_saving_does_not_change_the_voiceprint_that_was_given(storage: Storage) -> None:
    given = voiceprint(metadata={"a": 1})
    storage.save(given)
    assert (given.id, given.revision, given.created_at, given.last_seen) == (None, None, None, None)
    given.metadata["a"] = 2
    assert storage.get("alice").metadata == {"a": 1}


def test_an_embedding_of_any_length_is_kept_as_a_unit_vector(harness: Harness) -> None:
    for name, scale in (("tiny", 1e-30), ("small", 0.25), ("huge", 1e30)):
        harness.storage.save(Voiceprint(name, unit(1).astype(np.float64) * scale))
    for kept in harness.reopen().get_all():
        assert_embedding(kept.embedding, unit(1))


def test_reading_and_saving_again_changes_no_bit_of_an_embedding(harness: Harness) -> None:
    first = harness.storage.save(Voiceprint("alice", unit(1) * 3))
    again = harness.reopen().save(first)
    assert again.embedding.tobytes() == first.embedding.tobytes()
    assert harness.reopen().get_all()[0].embedding.tobytes() == first.embedding.tobytes()


def test_one_voiceprint_more_than_the_limit_replaces_the_oldest(harness: Harness) -> None:
    saved = [harness.storage.save(voiceprint(seed=seed)) for seed in range(5)]
    assert len(set(ids_of(saved))) == 5
    for storage in harness.both():
        assert ids_of(storage.get("alice").voiceprints) == ids_of(saved[2:])
        assert storage.count() == 3
        assert storage.get_many(ids_of(saved[:2])) == {}


def test_the_limit_counts_each_caller_alone(storage: Storage) -> None:
    storage.save_many([voiceprint(name, seed) for seed in range(4) for name in ("alice", "bob")])
    assert [len(caller.voiceprints) for caller in storage.callers()] == [3, 3]


def test_a_limit_given_to_save_holds_for_that_call(harness: Harness) -> None:
    saved = [harness.storage.save(voiceprint(seed=seed), max_voiceprints=5) for seed in range(6)]
    assert ids_of(harness.reopen().get("alice").voiceprints) == ids_of(saved[1:])
    last = harness.storage.save(voiceprint(seed=9), max_voiceprints=1)
    assert harness.reopen().get("alice").voiceprints == (last,)


def test_a_caller_with_more_than_the_limit_keeps_them_until_the_next_enrollment(harness: Harness) -> None:
    saved = harness.storage.save_many([voiceprint(seed=seed) for seed in range(5)], max_voiceprints=5)
    harness.storage.touch("alice")
    harness.storage.update_metadata("alice", {"a": 1})
    assert len(harness.reopen().get("alice").voiceprints) == 5
    last = harness.storage.save(voiceprint(seed=9))
    assert ids_of(harness.reopen().get("alice").voiceprints) == [*ids_of(saved[3:]), last.id]


def test_saving_the_oldest_again_over_the_limit_keeps_the_one_just_saved(harness: Harness) -> None:
    saved = harness.storage.save_many([voiceprint(seed=seed) for seed in range(5)], max_voiceprints=5)
    again = harness.storage.save(saved[0])
    caller = harness.reopen().get("alice")
    assert again.id == saved[0].id
    assert ids_of(caller.voiceprints) == [saved[0].id, saved[3].id, saved[4].id]


@pytest.mark.parametrize("limit", [0, -1, 2.0, True, "3"])
def test_a_limit_that_is_no_whole_number_from_1_is_refused(storage: Storage, limit: object) -> None:
    with pytest.raises(InvalidArgumentError, match="limit"):
        storage.save(voiceprint(), max_voiceprints=limit)
    assert storage.count() == 0


def test_saving_by_an_id_of_the_caller_replaces_in_place(harness: Harness) -> None:
    saved = harness.storage.save_many([voiceprint(seed=seed) for seed in range(3)])
    changed = Voiceprint("alice", unit(7), id=saved[1].id)
    again = harness.storage.save(changed)
    assert again.id == saved[1].id
    assert again.revision > saved[1].revision
    caller = harness.reopen().get("alice")
    assert ids_of(caller.voiceprints) == ids_of(saved)
    assert_embedding(caller.voiceprints[1].embedding, unit(7))


def test_an_id_of_another_caller_or_of_no_one_is_not_taken_over(harness: Harness) -> None:
    mine = harness.storage.save(voiceprint("alice", 1))
    theirs = harness.storage.save(Voiceprint("bob", unit(2), id=mine.id))
    stray = harness.storage.save(Voiceprint("bob", unit(3), id=9_999))
    assert len({mine.id, theirs.id, stray.id}) == 3
    assert stray.id != 9_999
    assert harness.reopen().get("alice").voiceprints == (mine,)


def test_ids_are_never_used_again(harness: Harness) -> None:
    seen: set[int | None] = set()
    for round_ in range(4):
        saved = harness.storage.save_many([voiceprint(seed=round_ * 10 + n) for n in range(4)])
        assert not seen & set(ids_of(saved))
        seen.update(ids_of(saved))
        harness.storage.delete("alice")
        harness.reopen()


def test_save_many_stores_nothing_when_one_in_the_middle_is_bad(harness: Harness) -> None:
    harness.storage.save(voiceprint("alice", metadata={"a": 1}))
    before, revision = state(harness.storage), harness.storage.revision()
    broken = voiceprint("carol")
    broken.metadata["bad"] = float("nan")
    with pytest.raises(InvalidArgumentError):
        harness.storage.save_many([voiceprint("alice", 5), voiceprint("bob"), broken, voiceprint("dave")])
    for storage in harness.both():
        assert state(storage) == before
        assert storage.revision() == revision


def test_save_many_stores_nothing_when_its_iterable_fails(harness: Harness) -> None:
    def failing():
        yield voiceprint("alice")
        raise KeyError("no more")

    with pytest.raises(KeyError):
        harness.storage.save_many(failing())
    assert harness.reopen().count() == 0


def test_save_many_is_one_change_in_order(harness: Harness) -> None:
    before = harness.storage.revision()
    saved = harness.storage.save_many(voiceprint(seed=seed, metadata={"n": seed}) for seed in range(3))
    assert {print_.revision for print_ in saved} == {harness.storage.revision()}
    assert harness.storage.revision() > before
    caller = harness.reopen().get("alice")
    assert ids_of(caller.voiceprints) == ids_of(saved) == sorted(ids_of(saved))
    assert caller.metadata == {"n": 2}


def test_saving_an_empty_list_changes_nothing(storage: Storage) -> None:
    revision = storage.revision()
    assert storage.save_many([]) == []
    assert storage.revision() == revision


@pytest.mark.parametrize("thing", [None, "alice", {"caller_id": "alice"}, 5])
def test_what_is_no_voiceprint_is_refused(storage: Storage, thing: object) -> None:
    with pytest.raises(InvalidArgumentError, match="Voiceprint"):
        storage.save(thing)


def test_metadata_is_merged_and_new_keys_win(harness: Harness) -> None:
    harness.storage.save(voiceprint(metadata={"name": "Al", "tier": 1}))
    merged = harness.storage.save(voiceprint(seed=1, metadata={"name": "Alice", "zip": None}))
    expected = {"name": "Alice", "tier": 1, "zip": None}
    assert merged.metadata == expected
    harness.storage.save(voiceprint(seed=2))
    caller = harness.reopen().get("alice")
    assert caller.metadata == expected
    assert all(print_.metadata == expected for print_ in caller.voiceprints)


def test_missing_times_are_set_to_now_in_utc(harness: Harness) -> None:
    before = datetime.now(timezone.utc)
    harness.storage.save(voiceprint())
    after = datetime.now(timezone.utc)
    caller = harness.reopen().get("alice")
    for time in (caller.created_at, caller.last_seen, caller.voiceprints[0].created_at):
        assert time.endswith("Z")
        assert before <= datetime.fromisoformat(time.replace("Z", "+00:00")) <= after


def test_given_times_are_kept_as_utc(harness: Harness) -> None:
    zone = timezone(timedelta(hours=2))
    harness.storage.save(
        voiceprint(created_at=datetime(2020, 1, 1, 1, tzinfo=zone), last_seen="2021-06-01T00:00:00.000001")
    )
    caller = harness.reopen().get("alice")
    assert caller.created_at == "2019-12-31T23:00:00.000000Z"
    assert caller.last_seen == "2021-06-01T00:00:00.000001Z"


def test_enrolling_again_keeps_the_callers_creation_and_never_moves_last_seen_back(harness: Harness) -> None:
    harness.storage.save(voiceprint(created_at="2020-01-01T00:00:00Z", last_seen="2022-01-01T00:00:00Z"))
    harness.storage.save(
        voiceprint(seed=1, created_at="2019-01-01T00:00:00Z", last_seen="2021-01-01T00:00:00Z")
    )
    caller = harness.reopen().get("alice")
    assert caller.created_at == "2020-01-01T00:00:00.000000Z"
    assert caller.last_seen == "2022-01-01T00:00:00.000000Z"
    assert caller.voiceprints[1].created_at == "2019-01-01T00:00:00.000000Z"


def test_one_space_has_embeddings_of_one_length(harness: Harness) -> None:
    harness.storage.save(Voiceprint("alice", unit(1, 8), encoder="other"))
    with pytest.raises(InvalidArgumentError, match="values"):
        harness.storage.save(Voiceprint("bob", unit(1, 9), encoder="other"))
    with pytest.raises(InvalidArgumentError, match="values"):
        harness.storage.save(Voiceprint("bob", unit(1, 8)))
    assert harness.reopen().count() == 1


def test_a_space_that_is_empty_again_takes_embeddings_of_another_length(harness: Harness) -> None:
    harness.storage.save(Voiceprint("alice", unit(1, 8), encoder="other"))
    harness.storage.delete("alice")
    harness.storage.save(Voiceprint("alice", unit(1, 9), encoder="other"))
    assert harness.reopen().get_all()[0].embedding.size == 9


def test_the_saved_voiceprint_that_is_returned_is_the_stored_one(storage: Storage) -> None:
    saved = storage.save(voiceprint(metadata={"a": {"b": [1]}}))
    caller = storage.get("alice")
    assert_same_caller(caller, storage.callers()[0])
    assert caller.voiceprints[0] == saved
