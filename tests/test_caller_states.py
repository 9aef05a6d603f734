"""The states of callers, and the verdicts that follow from them, in every kind of answer."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from over_http import Reached, over_http
from stores import unit
from typer.testing import CliRunner

from voiceprint import (
    CallerNotFoundError,
    CallerOptedOutError,
    Config,
    ConfigurationError,
    Consent,
    ConsentRequiredError,
    ExternalEncoder,
    Identification,
    InvalidArgumentError,
    JSONStorage,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    Provenance,
    Storage,
    Verdict,
)
from voiceprint.cli.app import app
from voiceprint.enrollment.provenance import provenance_of
from voiceprint.models import OptOut
from voiceprint.privacy.erasure import remains_of
from voiceprint.privacy.retention import purge_expired, retention_schedule
from voiceprint.retention import Expiry

ENCODER = ExternalEncoder("elsewhere", 16)
ENDED = Consent(
    purpose="authentication",
    version="1",
    obtained_at="2000-01-01T00:00:00Z",
    expires_at="2001-01-01T00:00:00Z",
)
VALID = Consent(purpose="authentication", version="2", expires_at="2100-01-01T00:00:00Z")
YEAR = timedelta(days=365)


def recognizer(storage: Storage | None = None, **settings: object) -> OpusAgentVoiceRecognizer:
    config = Config(index_path="off", similarity_threshold=0.7, **settings)
    return OpusAgentVoiceRecognizer(storage or MemoryStorage(), config=config, encoder=ENCODER)


def near(seed: int) -> np.ndarray:
    """A vector of cosine 0.95 and more with that of the seed."""
    return unit(seed, 16) + 0.05 * unit(1000 + seed, 16)


def days_ago(days: int) -> str:
    return (datetime.now(timezone.utc) - timedelta(days=days)).isoformat()


@over_http
def test_an_identification_is_a_list_with_a_verdict(reached: Reached) -> None:
    here = reached(recognizer())
    empty = here.identify(embedding=unit(0, 16))
    assert empty == []
    assert (empty.verdict, empty.accepted) == (Verdict.NOT_ENROLLED, None)
    for n in range(3):
        here.enroll_caller(f"c{n}", embedding=unit(n, 16))
    found = here.identify(embedding=near(1))
    assert isinstance(found, Identification)
    assert (found.verdict, found.accepted.caller_id, found.reasons) == ("accepted", "c1", ())
    assert found[0].verdict is Verdict.ACCEPTED
    assert str(found.verdict) == f"{found.verdict}" == "accepted"
    assert json.loads(json.dumps(found.verdict)) == "accepted"
    stranger = here.identify(embedding=unit(77, 16))
    assert (stranger.verdict, stranger.accepted) == (Verdict.REJECTED, None)


@over_http
def test_a_disabled_recognizer_concludes_nothing(reached: Reached) -> None:
    here = reached(recognizer(enabled=False))
    assert here.identify(embedding=unit(0, 16)).verdict is Verdict.INCONCLUSIVE


@over_http
def test_a_caller_who_opted_out_is_neither_matched_verified_nor_enrolled(reached: Reached) -> None:
    here = reached(recognizer())
    here.enroll_caller("alice", embedding=unit(1, 16), metadata={"n": 1})
    here.enroll_caller("bob", embedding=unit(2, 16))
    assert here.opt_out("alice", reason="no biometrics", by="agent-17") == 1
    assert here.caller_state("alice") == "opted_out"
    assert here.match_caller(embedding=near(1)) is None
    assert [match.caller_id for match in here.identify(embedding=near(1))] == ["bob"]
    assert here.identify(embedding=near(1), candidates=["alice"]).verdict is Verdict.OPTED_OUT
    assert here.identify(embedding=near(1), candidates=["alice", "carol"]).verdict is Verdict.NOT_ENROLLED
    verification = here.verify_caller("alice", embedding=near(1))
    assert (verification.verdict, verification.accepted, verification.similarity) == (
        "opted_out",
        False,
        None,
    )
    with pytest.raises(CallerOptedOutError, match="has opted out"):
        here.enroll_caller("alice", embedding=unit(1, 16))
    results = here.enroll_embeddings(["bob"], unit(3, 16)[None])
    assert len(results) == 1
    with pytest.raises(CallerOptedOutError, match="Rows 1 were refused, and all others are stored"):
        here.enroll_embeddings(["carol", "alice"], np.stack([unit(4, 16), unit(5, 16)]))
    assert here.get_caller("carol") is not None
    here.delete_caller("carol")
    assert here.opt_in("alice").voiceprints == ()
    assert here.caller_state("alice") == "pending"
    assert here.verify_caller("alice", embedding=near(1)).verdict is Verdict.NOT_ENROLLED
    here.enroll_caller("alice", embedding=unit(1, 16))
    assert here.match_caller(embedding=near(1))[0] == "alice"


@over_http
def test_a_refusal_comes_with_a_receipt_of_the_erasure(tmp_path: Path, reached: Reached) -> None:
    storage = JSONStorage(tmp_path / "voiceprints.json")
    here = reached(recognizer(storage))
    vector = unit(1, 16)
    here.enroll_caller("alice", embedding=vector, metadata={"account": "secret-4711"}, consent=VALID)
    receipt = here.opt_out("alice", reason="no", receipt=True)
    assert (receipt.complete, receipt.voiceprints, receipt.caller_id) == (True, 1, "alice")
    content = (tmp_path / "voiceprints.json").read_bytes()
    assert b"secret-4711" not in content
    assert json.dumps(float(vector[0]))[:8].encode() not in content
    assert here.opt_out("nobody before", receipt=True).complete
    check = remains_of(storage, "alice")
    assert check.findings == ()
    assert check.deleted_at is not None


@over_http
def test_only_a_caller_with_a_consent_is_enrolled_where_one_is_required(reached: Reached) -> None:
    here = reached(recognizer(require_consent=True))
    with pytest.raises(ConsentRequiredError, match="VOICE_REQUIRE_CONSENT"):
        here.enroll_caller("alice", embedding=unit(1, 16))
    assert here.get_caller("alice") is None
    stored = here.enroll_caller(
        "alice", embedding=unit(1, 16), consent=VALID, groups=["vip"], source="call 7"
    )
    assert (stored.consent, stored.groups, stored.provenance) == (
        VALID,
        ("vip",),
        Provenance(source="call 7"),
    )
    here.enroll_caller("alice", embedding=unit(2, 16))
    here.set_consent("bob", VALID)
    assert here.caller_state("bob") == "pending"
    here.enroll_caller("bob", embedding=unit(3, 16))
    assert here.caller_state("bob") == "enrolled"
    with pytest.raises(ConsentRequiredError):
        here.enroll_embeddings(["carol"], unit(4, 16)[None])
    with pytest.raises(InvalidArgumentError, match="consent"):
        here.enroll_caller("alice", embedding=unit(5, 16), consent={"purpose": "x"})


@over_http
def test_a_caller_whose_consent_has_ended_is_not_matched_before_the_purge(reached: Reached) -> None:
    here = reached(recognizer())
    here.enroll_caller("alice", embedding=unit(1, 16))
    here.enroll_caller("bob", embedding=unit(2, 16))
    here.set_consent("alice", ENDED)
    assert here.caller_state("alice") == "expired"
    assert here.match_caller(embedding=near(1)) is None
    assert here.verify_caller("alice", embedding=near(1)).verdict is Verdict.EXPIRED
    assert here.identify(embedding=near(1), candidates=["alice"]).verdict is Verdict.EXPIRED
    assert [match.caller_id for match in here.identify(embedding=near(1), k=2)] == ["bob"]
    here.set_consent("alice", VALID)
    assert here.match_caller(embedding=near(1))[0] == "alice"


def test_of_many_expired_callers_the_k_best_others_are_found() -> None:
    here = recognizer()
    ids = [f"c{n:03}" for n in range(60)]
    vectors = np.stack([unit(1, 16) + (0.02 + n / 100) * unit(500 + n, 16) for n in range(60)])
    here.enroll_embeddings(ids, vectors)
    for name in ids[:50]:
        here.set_consent(name, ENDED)
    found = here.identify(embedding=unit(1, 16), k=5)
    assert len(found) == 5
    assert {match.caller_id for match in found} <= {*ids[50:]}


@over_http
def test_a_gallery_of_expired_callers_alone_is_expired(reached: Reached) -> None:
    here = reached(recognizer())
    here.enroll_caller("alice", embedding=unit(1, 16), consent=VALID)
    here.set_consent("alice", ENDED)
    assert here.identify(embedding=near(1)).verdict is Verdict.EXPIRED
    assert here.identify(embedding=near(1), ignore=["alice"]).verdict is Verdict.NOT_ENROLLED


def aged(here: OpusAgentVoiceRecognizer, name: str, seed: int, days: int) -> None:
    """Enroll a caller who was last seen that many days ago."""
    stored = here.enroll_caller(name, embedding=unit(seed, 16))
    caller = here.storage.get(name)
    time = days_ago(days)
    here.storage.restore_many(
        [
            caller.model_copy(
                update={
                    "created_at": time,
                    "last_seen": time,
                    "voiceprints": (stored.model_copy(update={"created_at": time, "last_seen": time}),),
                }
            )
        ]
    )


@over_http
def test_a_caller_not_seen_for_the_retention_period_is_expired(reached: Reached) -> None:
    here = reached(recognizer(retention="1y"))
    aged(here, "alice", 1, 400)
    aged(here, "bob", 2, 300)
    assert (here.caller_state("alice"), here.caller_state("bob")) == ("expired", "enrolled")
    assert here.match_caller(embedding=near(1)) is None
    assert here.match_caller(embedding=near(2))[0] == "bob"
    here.config.retention = "2y"
    assert here.match_caller(embedding=near(1))[0] == "alice"


@over_http
def test_a_new_enrollment_does_not_revive_voiceprints_whose_period_has_ended(reached: Reached) -> None:
    here = reached(recognizer(retention="1y"))
    aged(here, "alice", 1, 400)
    here.enroll_caller("alice", embedding=unit(7, 16))
    assert [
        np.allclose(one.embedding, unit(7, 16), atol=1e-6) for one in here.get_caller("alice").voiceprints
    ] == [True]


def test_an_ended_consent_does_not_hide_the_end_of_the_retention_period() -> None:
    here = recognizer(retention="1y")
    aged(here, "alice", 1, 400)
    here.set_consent("alice", ENDED)
    here.enroll_caller("alice", embedding=unit(7, 16), consent=VALID)
    assert len(here.get_caller("alice").voiceprints) == 1
    assert here.match_caller(embedding=near(1)) is None


@over_http
def test_an_expired_caller_is_not_merged_into_another(reached: Reached) -> None:
    here = reached(recognizer(retention="1y"))
    aged(here, "old", 1, 400)
    here.enroll_caller("alice", embedding=unit(2, 16))
    with pytest.raises(InvalidArgumentError, match="retention period of the caller 'old'"):
        here.merge_callers("old", "alice")
    assert here.get_caller("old") is not None


def test_a_purge_deletes_the_expired_with_receipts_and_leaves_refusals(tmp_path: Path) -> None:
    here = recognizer(JSONStorage(tmp_path / "voiceprints.json"), retention="1y")
    for n, (name, days) in enumerate([("old", 400), ("young", 10), ("ended", 10)]):
        aged(here, name, n, days)
    here.set_consent("ended", ENDED)
    here.opt_out("refused")
    storage = here.storage
    planned = purge_expired(storage, YEAR)
    assert [(one.caller_id, one.reason, one.receipt) for one in planned.callers] == [
        ("ended", "consent", None),
        ("old", "retention", None),
    ]
    assert storage.count_callers() == 4
    purged = purge_expired(storage, YEAR, dry_run=False, receipts=True)
    assert [one.caller_id for one in purged.callers] == ["ended", "old"]
    assert purged.complete
    assert purged.voiceprints == 2
    assert all(one.receipt.complete for one in purged.callers)
    assert [caller.caller_id for caller in storage.callers()] == ["refused", "young"]
    assert purge_expired(storage, YEAR, dry_run=False).callers == ()


def test_a_caller_who_calls_during_the_purge_stays() -> None:
    here = recognizer(retention="1y")
    aged(here, "alice", 1, 400)

    class Calling(type(here.storage)):
        def delete_expired(self, caller_id: str, expiry: Expiry) -> int:
            self.touch(caller_id)  # between the look at the caller and the deletion
            return super().delete_expired(caller_id, expiry)

    here.storage.__class__ = Calling
    assert purge_expired(here.storage, YEAR, dry_run=False, receipts=True).callers == ()
    assert purge_expired(here.storage, YEAR, dry_run=False).callers == ()
    assert here.storage.count_callers() == 1


def test_the_schedule_counts_the_callers_by_the_month_of_their_end() -> None:
    here = recognizer(retention="1y")
    aged(here, "old", 1, 400)
    aged(here, "young", 2, 0)
    here.set_consent("ended", ENDED)
    here.opt_out("refused")
    schedule = retention_schedule(here.storage, "1y", YEAR)
    month = (datetime.now(timezone.utc) + YEAR).strftime("%Y-%m")
    assert schedule.expired == {"consent": 1, "retention": 1}
    assert (schedule.months, schedule.never, schedule.opted_out, schedule.callers) == ({month: 1}, 0, 1, 4)
    assert retention_schedule(here.storage, None, None).never == 2


@pytest.mark.parametrize("value", ["3", "y", "0d", "-1y", "3 years", "999999y"])
def test_a_bad_retention_period_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match="VOICE_RETENTION"):
        Config(retention=value)


def test_an_expiry_is_checked() -> None:
    for period in (timedelta(0), timedelta(days=-1), 5):
        with pytest.raises(InvalidArgumentError):
            Expiry(period)
    with pytest.raises(InvalidArgumentError, match="year 1"):
        Expiry(timedelta(days=800_000))
    expiry = Expiry(YEAR, at="2025-01-01T00:00:00Z")
    assert expiry.covers(None, "2023-12-31T00:00:00.000000Z")
    assert not expiry.covers(None, "2024-02-01T00:00:00.000000Z")
    assert not expiry.covers(None, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"purpose": ""},
        {"version": "x" * 513},
        {"expires_at": "yesterday"},
        {"obtained_at": "2026-01-02T00:00:00Z", "expires_at": "2026-01-01T00:00:00Z"},
        {"note": "x"},
        {"purpose": " "},
        {"version": "\0"},
        {"obtained_by": "\u3000"},
        {"source": "call\n4711"},
    ],
)
def test_a_bad_consent_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(InvalidArgumentError):
        Consent(**({"purpose": "authentication", "version": "1"} | fields))


@pytest.mark.parametrize("text", [" \t", "secret\x1b[31m", "secret\n", "\x85secret", ""])
def test_texts_are_not_blank_and_hold_no_control_characters(text: str) -> None:
    for make in (
        lambda: Consent(purpose=text, version="1"),
        lambda: OptOut(at="2026-01-01T00:00:00Z", reason=text),
        lambda: OptOut(at="2026-01-01T00:00:00Z", by=text),
        lambda: Provenance(source=text),
    ):
        with pytest.raises(InvalidArgumentError, match=r"purpose|reason|by|source") as error:
            make()
        assert "secret" not in str(error.value)
    assert Consent(purpose=" Ü\u2028 ", version="1").purpose == " Ü\u2028 "


@pytest.mark.parametrize(
    ("file", "source"), [("a\nb\x7f.wav", "a\\x0ab\\x7f.wav"), ("a\udcff.wav", "a\\xff.wav"), (" ", None)]
)
def test_the_name_of_a_file_is_a_source_whatever_it_holds(file: str, source: str | None) -> None:
    quality = recognizer().check_enrollment(np.zeros(16_000, np.float32)).quality
    assert provenance_of(quality, file=file).source == source


def test_no_repr_shows_who_agreed_or_why_somebody_refused() -> None:
    consent = Consent(purpose="authentication", version="1", obtained_by="agent-17", source="call 99")
    texts = [repr(consent), repr(OptOut(at="2026-01-01T00:00:00Z", reason="divorce", by="agent-17"))]
    assert not any(secret in text for text in texts for secret in ("agent-17", "call 99", "divorce"))


def test_the_commands_tell_the_state_of_a_caller(tmp_path: Path) -> None:
    store = ["--store", f"sqlite:///{tmp_path / 'a.db'}"]
    run = CliRunner().invoke

    def command(*words: str, code: int = 0) -> str:
        result = run(app, [*words, *store])
        assert result.exit_code == code, result.output
        return result.output

    command("callers", "consent", "alice", "--purpose", "authentication", "--text-version", "1", "--create")
    assert "pending" in command("callers", "list")
    assert "authentication" in command("callers", "show", "alice")
    command("callers", "opt-out", "alice", "--reason", "no biometrics", "--yes")
    assert "opted out" in command("callers", "list")
    assert "no biometrics" in command("callers", "show", "alice")
    shown = json.loads(command("callers", "show", "alice", "--json"))
    assert (shown["state"], shown["opt_out"]["reason"]) == ("opted_out", "no biometrics")
    assert "pending" in command("callers", "opt-in", "alice")
    assert json.loads(command("retention", "show", "--json"))["never"] == 1
    assert "without an end" in command("retention", "show")
    assert "0 expired callers" in command("prune", "--expired")
    command(
        "callers", "consent", "alice", "--purpose", "a", "--text-version", "1",
        "--at", "2000-01-01T00:00:00Z", "--expires-at", "2001-01-01T00:00:00Z",
    )  # fmt: skip
    assert "alice" in command("prune", "--expired")
    assert "1 expired caller" in command("retention", "show")
    report = json.loads(command("prune", "--expired", "--delete", "--receipt", "--json"))
    assert (report["deleted"], report["callers"][0]["caller_id"]) == (True, "alice")
    assert command("callers", "list").strip() == "Nobody is enrolled."


@over_http
def test_a_caller_who_is_not_in_the_store_has_no_state(reached: Reached) -> None:
    here = reached(recognizer())
    assert here.caller_state("nobody") is None
    with pytest.raises(CallerNotFoundError):
        here.opt_in("nobody")
    with pytest.raises(CallerNotFoundError):
        here.verify_caller("nobody", embedding=near(1))
