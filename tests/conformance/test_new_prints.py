"""New prints beside stored ones: a copy of a recording costs no slot, another person's voice is noticed."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from harness import Harness
from stores import state, unit, voiceprint

from voiceprint import VoiceMismatchError, Voiceprint
from voiceprint.enrollment.writer import VoiceprintWriter


def near(seed: int, cosine: float, **fields: Any) -> Voiceprint:
    """A voiceprint of alice with this cosine to `voiceprint("alice", seed)`."""
    one, other = unit(seed), unit(seed + 1_000)
    other = other - (other @ one) * one
    other /= np.linalg.norm(other)
    return Voiceprint("alice", cosine * one + np.sqrt(1 - cosine**2) * other, **fields)


def new_prints(harness: Harness, limit: int = 3) -> VoiceprintWriter:
    return VoiceprintWriter(harness.storage, limit, "store")


def ids(harness: Harness, caller_id: str = "alice") -> list[int | None]:
    caller = harness.storage.get(caller_id)
    return [] if caller is None else [print_.id for print_ in caller.voiceprints]


def test_a_copy_gives_the_existing_print_back_with_its_metadata_merged(harness: Harness) -> None:
    storage = harness.storage
    first, second = storage.save_many(
        [
            voiceprint(seed=1, created_at="2024-01-01T00:00:00Z", augmented=unit(5)),
            voiceprint(seed=2, metadata={"name": "Alice", "plan": 1}),
        ]
    )  # fmt: skip
    (again,) = new_prints(harness).store([near(1, 0.9995, metadata={"plan": 2})])
    assert isinstance(again, Voiceprint)
    assert (again.id, again.created_at, again.metadata) == (
        first.id,
        first.created_at,
        {"name": "Alice", "plan": 2},
    )
    np.testing.assert_array_equal(again.embedding, first.embedding)
    np.testing.assert_array_equal(again.augmented, first.augmented)
    assert again.last_seen >= second.last_seen
    harness.reopen()
    caller = harness.storage.get("alice")
    assert (ids(harness), caller.metadata) == ([first.id, second.id], {"name": "Alice", "plan": 2})
    assert caller.last_seen == again.last_seen
    assert harness.storage.check() == []


def test_a_print_that_is_merely_very_alike_is_stored(harness: Harness) -> None:
    first, other = new_prints(harness).store([voiceprint(seed=1), near(1, 0.997)])
    assert ids(harness) == [first.id, other.id]


def test_copies_within_a_batch_are_noticed_and_later_metadata_wins(harness: Harness) -> None:
    batch = [
        voiceprint(seed=1, metadata={"n": 1, "a": 1}),
        voiceprint("bob", 1, metadata={"n": 1}),  # another caller's copy is none
        near(1, 0.9, metadata={"n": 2}),
        near(1, 0.9995, metadata={"n": 3}),
        voiceprint("bob", 1, metadata={"n": 4}),
    ]
    first, bob, other, again, bob_again = new_prints(harness).store(batch)
    assert ids(harness) == [first.id, other.id]
    assert (again.id, again.metadata) == (first.id, {"n": 3, "a": 1})
    assert ids(harness, "bob") == [bob.id] == [bob_again.id]
    assert harness.storage.get("bob").metadata == {"n": 4}


def test_a_copy_of_a_print_that_was_replaced_is_a_new_print(harness: Harness) -> None:
    results = new_prints(harness, limit=2).store([voiceprint(seed=seed) for seed in (1, 2, 3, 1)])
    assert len({result.id for result in results}) == 4
    assert ids(harness) == [results[2].id, results[3].id]


def test_prints_of_other_encoders_are_not_compared(harness: Harness) -> None:
    same = {"embedding": unit(1, 8)}
    results = new_prints(harness).store(
        [Voiceprint("alice", encoder=encoder, **same) for encoder in ("one", "two")]
    )
    assert ids(harness) == [result.id for result in results]


def test_another_voice_is_stored_with_a_warning_or_refused(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    mine, other = voiceprint(seed=1), voiceprint(seed=2)
    with caplog.at_level(logging.WARNING, "voiceprint"):
        results = new_prints(harness).store([mine, near(1, 0.9)])
        assert caplog.text == ""
        stranger = VoiceprintWriter(harness.storage, 3, "refuse").store([other])[0]
        assert isinstance(stranger, VoiceMismatchError)
        assert "'alice'" in str(stranger)
        assert ids(harness) == [result.id for result in results]
        assert caplog.text == ""
        (stored,) = new_prints(harness).store([other])
    assert ids(harness) == [*(result.id for result in results), stored.id]
    assert "'alice' does not sound like" in caplog.text
    state(harness.storage)


def test_a_refused_print_does_not_take_the_others_of_its_batch_along(harness: Harness) -> None:
    batch = [voiceprint(seed=1), voiceprint(seed=2), near(1, 0.9), voiceprint("bob", 2)]
    results = VoiceprintWriter(harness.storage, 3, "refuse").store(batch)
    assert [type(result) for result in results] == [Voiceprint, VoiceMismatchError, Voiceprint, Voiceprint]
    assert ids(harness) == [results[0].id, results[2].id]
