"""Consent, refusal, groups, renaming and merging of callers, on every store."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from harness import Harness
from stores import Follower, State, ids_of, state, unit, voiceprint

from voiceprint import (
    CallerNotFoundError,
    CallerOptedOutError,
    Consent,
    ConsentRequiredError,
    InvalidArgumentError,
    MemoryStorage,
    Provenance,
    Storage,
)
from voiceprint.retention import Expiry
from voiceprint.storage import back_up, copy_callers, export_callers, import_callers, restore
from voiceprint.storage.base import START
from voiceprint.storage.deletions import DeletionList

CONSENT = Consent(
    purpose="authentication",
    version="2026-01",
    obtained_at="2026-01-02T03:04:05Z",
    obtained_by="agent-17",
    source="call 99",
    expires_at="2100-01-01T00:00:00Z",
)
LATER = CONSENT.model_copy(update={"version": "2", "obtained_at": "2026-05-01T00:00:00.000000Z"})
ENDED = Consent(
    purpose="authentication",
    version="1",
    obtained_at="2000-01-01T00:00:00Z",
    expires_at="2001-01-01T00:00:00Z",
)


def test_a_consent_before_the_enrollment_makes_a_caller_without_voiceprints(harness: Harness) -> None:
    harness.storage.set_consent("alice", CONSENT)
    for storage in harness.both():
        caller = storage.get("alice")
        assert (caller.consent, caller.voiceprints, caller.metadata) == (CONSENT, (), {})
        assert (storage.count_callers(), storage.count_enrolled()) == (1, 0)
    harness.storage.save(voiceprint("alice"), require_consent=True)
    for storage in harness.both():
        assert storage.get("alice").voiceprints[0].consent == CONSENT
        assert storage.count_enrolled() == 1
        state(storage)


def test_enrollment_without_a_consent_is_refused_where_one_is_required(harness: Harness) -> None:
    before = state(harness.storage)
    with pytest.raises(ConsentRequiredError, match="'alice'"):
        harness.storage.save(voiceprint("alice"), require_consent=True)
    with pytest.raises(ConsentRequiredError, match="'bob'"):
        harness.storage.save_many(
            [voiceprint("alice", consent=CONSENT), voiceprint("bob", 1)], require_consent=True
        )
    for storage in harness.both():
        assert state(storage) == before


def test_a_consent_that_has_ended_refuses_every_enrollment(harness: Harness) -> None:
    harness.storage.save(voiceprint("alice"))
    harness.storage.set_consent("alice", ENDED)
    before = state(harness.storage)
    with pytest.raises(ConsentRequiredError, match="ended at 2001"):
        harness.storage.save(voiceprint("alice", 1))
    assert state(harness.storage) == before
    harness.storage.save(voiceprint("alice", 1, consent=LATER))
    for storage in harness.both():
        assert storage.get("alice").consent == LATER


def test_a_voiceprint_brings_its_consent_unless_the_caller_has_a_later_one(harness: Harness) -> None:
    harness.storage.save(voiceprint("alice", consent=LATER))
    harness.storage.save(voiceprint("alice", 1, consent=CONSENT))
    for storage in harness.both():
        assert storage.get("alice").consent == LATER


def test_opting_out_removes_all_but_the_id_and_the_refusal(harness: Harness) -> None:
    first = harness.storage.save(voiceprint("alice", metadata={"n": 1}, groups=["vip"], consent=CONSENT))
    harness.storage.save(voiceprint("bob", 1))
    follower = Follower()
    follower.assert_in_step(harness.storage)
    assert harness.storage.opt_out("alice", reason="no biometrics", by="agent-17") == 1
    for storage in harness.both():
        caller = storage.get("alice")
        assert (caller.voiceprints, caller.metadata, caller.groups, caller.consent) == ((), {}, (), None)
        assert (caller.opt_out.reason, caller.opt_out.by, caller.last_seen) == (
            "no biometrics",
            "agent-17",
            None,
        )
        assert storage.get_many([first.id]) == {}
        assert storage.group_ids() == {}
        assert len(storage.deletions()) == 1
        follower.assert_in_step(storage)
        state(storage)


def test_nobody_stores_anything_of_a_caller_who_has_opted_out(harness: Harness) -> None:
    harness.storage.opt_out("alice")
    harness.storage.save(voiceprint("bob", 1))
    before = state(harness.storage)
    position = harness.storage.position()
    storage = harness.storage
    uses: list[Callable[[], object]] = [
        lambda: storage.save(voiceprint("alice")),
        lambda: storage.save_many([voiceprint("carol", 2), voiceprint("alice")]),
        lambda: storage.set_consent("alice", CONSENT),
        lambda: storage.update_metadata("alice", {"a": 1}),
        lambda: storage.set_groups("alice", add=["vip"]),
        lambda: storage.merge("alice", "bob"),
        lambda: storage.merge("bob", "alice"),
    ]
    for use in uses:
        with pytest.raises(CallerOptedOutError, match="'alice'"):
            use()
    assert storage.touch("alice") is False
    assert storage.opt_out("alice", reason="again") == 0
    for storage in harness.both():
        assert state(storage) == before
        assert storage.position() == position


def test_a_caller_who_opted_in_is_enrolled_again_and_older_copies_stay_out(
    harness: Harness, tmp_path: pytest.TempPathFactory
) -> None:
    harness.storage.save(voiceprint("alice", metadata={"n": 1}))
    export = tmp_path / "export.jsonl"
    with export.open("wb") as stream:
        export_callers(harness.storage, stream)
    old = harness.storage.get("alice")
    harness.storage.opt_out("alice")
    with export.open("rb") as lines:
        assert import_callers(harness.storage, lines).left_out == 1
    with pytest.raises(CallerOptedOutError):
        harness.storage.restore_many([old])
    with export.open("rb") as lines:
        report = import_callers(harness.storage, lines, include_deleted=True)
    assert (report.left_out, report.callers) == (1, 0)
    caller = harness.storage.opt_in("alice")
    assert (caller.opt_out, caller.voiceprints, caller.metadata) == (None, (), {})
    assert DeletionList(harness.storage.deletions()).covers(old)
    assert not DeletionList(harness.storage.deletions()).covers(caller)
    harness.storage.save(voiceprint("alice", 5))
    for storage in harness.both():
        assert len(storage.get("alice").voiceprints) == 1
        with export.open("rb") as lines:
            assert import_callers(storage, lines).left_out == 1
    with pytest.raises(CallerNotFoundError):
        harness.storage.opt_in("nobody")
    assert harness.storage.opt_in("alice").voiceprints


def test_a_backup_brings_consent_refusal_groups_and_provenance(
    harness: Harness, storage: Storage, tmp_path: pytest.TempPathFactory
) -> None:
    source = Provenance(source="call 7", quality=0.8, duration_s=9.5, net_speech_s=7.0)
    harness.storage.save(voiceprint("alice", groups=["vip", "fraud"], consent=CONSENT, provenance=source))
    harness.storage.opt_out("bob", reason="no")
    before = state(harness.storage)
    path = tmp_path / "backup.jsonl"
    back_up(harness.storage, path)
    harness.storage.delete("alice")
    harness.storage.opt_in("bob")
    harness.storage.delete("bob")
    restore(harness.storage, path, include_deleted=True)
    for again in harness.both():
        assert _without_revisions(state(again)) == _without_revisions(before)
        assert again.get("alice").groups == ("fraud", "vip")
        assert again.get("alice").voiceprints[0].provenance == source


def _without_revisions(callers: State) -> State:
    return {
        name: {**caller, "voiceprints": [(one[0], *one[2:]) for one in caller["voiceprints"]]}
        for name, caller in callers.items()
    }


def test_groups_are_added_removed_and_followed_by_the_feed(harness: Harness) -> None:
    one = harness.storage.save(voiceprint("alice", groups=["vip"]))
    two = harness.storage.save(voiceprint("alice", 1, groups=["home"]))
    harness.storage.save(voiceprint("bob", 2))
    for storage in harness.both():
        assert storage.get("alice").groups == ("home", "vip")
        found = {name: ids.tolist() for name, ids in storage.group_ids().items()}
        assert found == {"home": [one.id, two.id], "vip": [one.id, two.id]}
        assert storage.group_ids(encoder="other") == {}
    start = harness.storage.position()
    changed = harness.storage.set_groups("alice", add=["fraud"], remove=["vip", "never"])
    assert changed.groups == ("fraud", "home")
    for storage in harness.both():
        changes = storage.changes(start)
        assert sorted(changes.ids.tolist()) == [one.id, two.id]
        assert changes.removed.tolist() == []
        assert changes.groups == {one.id: ("fraud", "home"), two.id: ("fraud", "home")}
        assert np.array_equal(np.sort(storage.group_ids()["fraud"]), [one.id, two.id])
        assert storage.changes(START).groups == changes.groups
        state(storage)
    position = harness.storage.position()
    harness.storage.set_groups("alice", add=["home"])
    assert harness.storage.position() == position
    with pytest.raises(CallerNotFoundError):
        harness.storage.set_groups("nobody", add=["vip"])
    harness.storage.delete("alice")
    assert harness.storage.group_ids() == {}


@pytest.mark.parametrize(
    "groups", ["vip", [5], [""], [" vip"], ["a\nb"], ["x" * 101], None, [f"{n}" for n in range(101)]]
)
def test_a_bad_list_of_groups_is_refused(storage: Storage, groups: object) -> None:
    storage.save(voiceprint("alice"))
    before = state(storage)
    with pytest.raises(InvalidArgumentError, match="group"):
        storage.set_groups("alice", add=groups)
    assert state(storage) == before


def test_a_renamed_caller_has_all_data_under_the_new_id(harness: Harness) -> None:
    for n in range(2):
        harness.storage.save(voiceprint("alice", n, metadata={"n": n}, groups=["vip"], augmented=unit(9 + n)))
    before, follower = harness.storage.get("alice"), Follower()
    follower.assert_in_step(harness.storage)
    for new in ("böb", "0", "carol"):  # other shards of a cluster
        renamed = harness.storage.rename(harness.storage.callers()[0].caller_id, new)
        assert renamed.caller_id == new
    for storage in harness.both():
        caller = storage.get("carol")
        assert storage.count_callers() == 1
        assert (caller.metadata, caller.groups, caller.last_seen) == (
            before.metadata,
            before.groups,
            before.last_seen,
        )
        for mine, its in zip(caller.voiceprints, before.voiceprints, strict=True):
            assert np.array_equal(mine.embedding, its.embedding)
            assert np.array_equal(mine.augmented, its.augmented)
            assert mine.created_at == its.created_at
        assert storage.get("alice") is None
        assert storage.get_many(ids_of(before.voiceprints)) == {}
        assert DeletionList(storage.deletions()).covers(before)
        assert not DeletionList(storage.deletions()).covers(caller)
        follower.assert_in_step(storage)
        state(storage)


def test_a_name_that_is_taken_or_unknown_refuses_a_renaming(harness: Harness) -> None:
    harness.storage.save_many([voiceprint("alice"), voiceprint("bob", 1), voiceprint("0", 2)])
    before = state(harness.storage)
    for name in ("bob", "0"):
        with pytest.raises(InvalidArgumentError, match=f"'{name}' already"):
            harness.storage.rename("alice", name)
    with pytest.raises(CallerNotFoundError, match="'nobody'"):
        harness.storage.rename("nobody", "carol")
    assert harness.storage.rename("alice", "alice").caller_id == "alice"
    for storage in harness.both():
        assert state(storage) == before


def test_a_refusal_does_not_move_with_a_renaming(harness: Harness) -> None:
    harness.storage.opt_out("alice", reason="no")
    before = state(harness.storage)
    for name in ("bob", "0"):
        with pytest.raises(CallerOptedOutError, match="'alice'"):
            harness.storage.rename("alice", name)
    for storage in harness.both():
        assert state(storage) == before


def test_no_copy_of_another_store_ends_a_refusal(harness: Harness) -> None:
    harness.storage.save(voiceprint("alice"))
    harness.storage.opt_out("alice")
    before = state(harness.storage)
    with MemoryStorage() as other:
        other.save_many([voiceprint("alice", 1), voiceprint("bob", 2)])  # after the refusal, elsewhere
        for include_deleted in (False, True):
            report = copy_callers(other, harness.storage, include_deleted=include_deleted)
            assert (report.callers, report.left_out) == (1, 1)
        with pytest.raises(CallerOptedOutError):
            harness.storage.restore_many([other.get("alice")])
    harness.storage.delete("bob")
    for storage in harness.both():
        assert state(storage) == before


def test_an_older_copy_leaves_a_later_consent(harness: Harness) -> None:
    harness.storage.save(voiceprint("alice", consent=CONSENT))
    with MemoryStorage() as other:
        copy_callers(harness.storage, other)
        harness.storage.set_consent("alice", LATER)
        copy_callers(other, harness.storage)
    for storage in harness.both():
        assert storage.get("alice").consent == LATER


@pytest.mark.parametrize(
    "bad",
    [
        CONSENT.model_copy(update={"expires_at": "9"}),
        CONSENT.model_copy(update={"purpose": None}),
        Consent.model_construct(purpose=None, version=None),
        {"purpose": "authentication"},
    ],
)
def test_a_consent_that_was_made_without_a_check_is_refused(harness: Harness, bad: object) -> None:
    harness.storage.save(voiceprint("alice"))
    before = state(harness.storage)
    for use in (
        lambda: harness.storage.save(voiceprint("alice", 1).model_copy(update={"consent": bad})),
        lambda: harness.storage.set_consent("alice", bad),
        lambda: harness.storage.restore_many(
            [harness.storage.get("alice").model_copy(update={"consent": bad})]
        ),
    ):
        with pytest.raises(InvalidArgumentError):
            use()
    for storage in harness.both():
        assert state(storage) == before


def test_only_an_expired_caller_is_deleted_as_expired(harness: Harness) -> None:
    harness.storage.save(voiceprint("alice"))
    assert harness.storage.delete_expired("alice", Expiry()) == 0
    assert harness.storage.delete_expired("nobody", Expiry()) == 0
    harness.storage.set_consent("alice", ENDED)
    assert harness.storage.delete_expired("alice", Expiry()) == 1
    for storage in harness.both():
        assert storage.get("alice") is None


@pytest.mark.parametrize("target", ["bob", "0", "böb"])
def test_two_callers_become_one_with_the_newest_voiceprints(harness: Harness, target: str) -> None:
    days = [f"2024-02-{day:02}T00:00:00Z" for day in range(1, 6)]
    prints = [
        harness.storage.save(
            voiceprint(("alice", target)[n % 2], n, created_at=days[n], last_seen=days[n], augmented=unit(9))
        )
        for n in range(5)
    ]
    harness.storage.save(voiceprint("alice", 7, encoder="tiny", created_at=days[0], last_seen=days[0]))
    harness.storage.update_metadata("alice", {"a": 1, "b": 1})
    harness.storage.update_metadata(target, {"b": 2})
    harness.storage.set_groups("alice", add=["vip"])
    harness.storage.set_groups(target, add=["home"])
    harness.storage.set_consent("alice", CONSENT)
    follower = Follower()
    follower.assert_in_step(harness.storage)
    merged, removed = harness.storage.merge("alice", target)
    assert sorted(removed) == [prints[0].id, prints[1].id]
    for storage in harness.both():
        caller = storage.get(target)
        assert caller == merged.model_copy(update={"voiceprints": caller.voiceprints})
        assert (caller.metadata, caller.groups, caller.consent) == (
            {"a": 1, "b": 2},
            ("home", "vip"),
            CONSENT,
        )
        assert caller.last_seen == "2024-02-05T00:00:00.000000Z"
        found = {one.created_at: one for one in caller.voiceprints if one.encoder != "tiny"}
        assert sorted(found) == [day.replace("Z", ".000000Z") for day in days[2:]]
        assert [one.encoder for one in caller.voiceprints].count("tiny") == 1
        for n, day in enumerate(days[2:], start=2):
            one = found[day.replace("Z", ".000000Z")]
            assert np.array_equal(one.embedding, unit(n))
            assert np.array_equal(one.augmented, unit(9))
        assert storage.get("alice") is None
        assert storage.count_callers() == 1
        follower.assert_in_step(storage)
        state(storage)


def test_the_consent_that_ends_first_stays_after_a_merge(harness: Harness) -> None:
    harness.storage.save(voiceprint("alice", consent=LATER.model_copy(update={"expires_at": None})))
    harness.storage.save(voiceprint("bob", 1, consent=CONSENT))
    harness.storage.merge("bob", "alice")
    assert harness.storage.get("alice").consent == CONSENT


def test_callers_who_cannot_be_merged_are_refused(harness: Harness) -> None:
    harness.storage.save_many([voiceprint("alice"), voiceprint("bob", 1)])
    before = state(harness.storage)
    for one, other in (("alice", "nobody"), ("nobody", "alice"), ("nobody", "0"), ("böb", "alice")):
        with pytest.raises(CallerNotFoundError):
            harness.storage.merge(one, other)
    with pytest.raises(InvalidArgumentError, match="itself"):
        harness.storage.merge("alice", "alice")
    for storage in harness.both():
        assert state(storage) == before


def test_a_single_voiceprint_is_removed_and_its_caller_stays(harness: Harness) -> None:
    one, two = (harness.storage.save(voiceprint("alice", n)) for n in range(2))
    follower = Follower()
    follower.assert_in_step(harness.storage)
    assert harness.storage.delete_voiceprint(one.id) is True
    assert harness.storage.delete_voiceprint(one.id) is False
    for storage in harness.both():
        assert ids_of(storage.get("alice").voiceprints) == [two.id]
        follower.assert_in_step(storage)
    assert harness.storage.delete_voiceprint(two.id) is True
    for storage in harness.both():
        assert (storage.count_callers(), storage.count_enrolled(), storage.count()) == (1, 0, 0)
        assert storage.deletions() == []
        state(storage)
    with pytest.raises(InvalidArgumentError):
        harness.storage.delete_voiceprint("1")
    for flag in (True, False):
        with pytest.raises(InvalidArgumentError, match=f"{flag} is no id of a voiceprint"):
            harness.storage.delete_voiceprint(flag)


def test_texts_that_earlier_versions_stored_are_read(harness: Harness) -> None:
    consent = Consent.of_record({"purpose": " ", "version": "1\n", "source": "\t"})
    origin = Provenance.of_record({"source": "call\n1"})
    harness.storage.save(voiceprint("alice").model_copy(update={"consent": consent, "provenance": origin}))
    for storage in harness.both():
        caller = storage.get("alice")
        assert (caller.consent, caller.voiceprints[0].provenance) == (consent, origin)


def test_a_missing_store_is_made_by_a_refusal_or_a_consent_alone(harness: Harness) -> None:
    existed = harness.storage.exists()
    with pytest.raises(CallerNotFoundError):
        harness.storage.rename("alice", "bob")
    with pytest.raises(CallerNotFoundError):
        harness.storage.merge("alice", "bob")
    with pytest.raises(CallerNotFoundError):
        harness.storage.opt_in("alice")
    with pytest.raises(InvalidArgumentError):
        harness.storage.opt_out("alice", reason="x" * 600)
    assert harness.storage.exists() == existed
    harness.storage.opt_out("alice")
    for storage in harness.both():
        assert storage.exists()
        assert storage.get("alice").opt_out is not None


def test_a_record_with_a_refusal_and_voiceprints_is_not_restored(storage: Storage) -> None:
    storage.opt_out("alice")
    refused = storage.get("alice")
    for data in ({"metadata": {"a": 1}}, {"groups": ("vip",)}, {"consent": CONSENT}):
        with pytest.raises(InvalidArgumentError, match="opted out"):
            storage.restore_many([refused.model_copy(update=data)])
