"""Operations of a recognizer become events, with their facts and without voice data."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from voices import BandEncoder, Voices, by_cosine, saved

from voiceprint import (
    AudioQualityError,
    CallerNotFoundError,
    CallerOptedOutError,
    ConfigurationError,
    Consent,
    Event,
    InvalidArgumentError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    open_storage,
)
from voiceprint.privacy.audit import Line, verify_lines
from voiceprint.privacy.erasure import delete_with_receipt
from voiceprint.storage.backup import back_up, restore
from voiceprint.storage.transfer import copy_callers
from voiceprint.validation import now

NAMES = 8


@pytest.fixture
def recognizer(tmp_path: Path, voices: Voices) -> Iterator[OpusAgentVoiceRecognizer]:
    """Eight callers, and an audit log beside the store."""
    config = by_cosine(audit=tmp_path / "audit.jsonl", storage_path=tmp_path / "callers.json")
    with OpusAgentVoiceRecognizer(config=config, encoder=BandEncoder()) as recognizer:
        for name in [*voices][:NAMES]:
            recognizer.enroll_caller(name, voices[name][0], {"plan": f"secret {name}"})
        yield recognizer


def logged(recognizer: OpusAgentVoiceRecognizer, action: str | None = None) -> list[Event]:
    log = recognizer.audit_log()
    assert log is not None
    found = [Line.parse(text) for _, text in log.lines()]
    events = [line.event for line in found if line is not None]
    assert len(events) == len(found)
    return [event for event in events if action in (None, event.action)]


def test_enrollments_are_recorded_with_their_audio_and_failures(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    first = logged(recognizer, "enroll")[0]
    assert first.caller == next(iter(voices))
    assert first.encoder == recognizer.encoder.name
    assert first.speech_s is not None
    assert first.speech_s > 3
    assert first.quality is not None
    assert first.quality > 0.6
    with pytest.raises(AudioQualityError):
        recognizer.enroll_caller("short", voices["amara"][0][:8000])
    last = logged(recognizer, "enroll")[-1]
    assert (last.caller, last.error) == ("short", "AudioQualityError")
    assert last.speech_s is not None


def test_enrollments_of_a_list_are_recorded_one_by_one(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    name = [*voices][NAMES]
    before = len(logged(recognizer))
    samples = [(name, voices[name][0], None), ("quiet", np.zeros(100_000, np.float32), None)]
    with recognizer.acting_as("importer"):
        saved(recognizer.enroll_many(samples)[0])
    new = logged(recognizer)[before:]
    assert {(event.caller, event.error, event.actor) for event in new} == {
        (name, None, "importer"),
        ("quiet", "AudioQualityError", "importer"),
    }
    rows = np.eye(2, recognizer.encoder.dimension)
    recognizer.enroll_embeddings(["row 1", "row 2"], rows)
    assert [event.caller for event in logged(recognizer, "enroll")[-2:]] == ["row 1", "row 2"]


def test_a_match_is_recorded_with_scores_rule_and_gallery(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    name = [*voices][2]
    answer = recognizer.identify(voices[name][1])
    match = answer[0]
    event = logged(recognizer, "identify")[-1]
    assert event.event_id == answer.event_id
    assert (event.caller, event.verdict, event.error) == (name, "accepted", None)
    assert (event.similarity, event.llr, event.fpir) == (match.similarity, match.llr, match.fpir)
    assert (event.rule, event.limit, event.limit_from) == ("threshold", 0.75, "configured")
    assert event.gallery_size == NAMES
    recognizer.identify(voices[name][1], threshold=0.5)
    assert logged(recognizer)[-1].limit_from == "argument"
    recognizer.config.target_fpir = 0.01
    recognizer.match_caller(voices[name][1])
    event = logged(recognizer, "match")[-1]
    assert (event.rule, event.limit, event.limit_from) == ("target", 0.01, "configured")
    assert event.caller == name


def test_a_failed_match_is_recorded_with_the_class_of_its_error(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    with pytest.raises(AudioQualityError):
        recognizer.identify(voices["amara"][0][:8000])
    assert logged(recognizer)[-1].error == "AudioQualityError"
    with pytest.raises(CallerNotFoundError):
        recognizer.verify_caller("nobody", voices["amara"][0])
    last = logged(recognizer)[-1]
    assert (last.action, last.caller, last.error) == ("verify", "nobody", "CallerNotFoundError")


def test_a_verification_is_recorded(recognizer: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    first, second = [*voices][:2]
    recognizer.verify_caller(first, voices[first][1])
    answer = recognizer.verify_caller(caller_id=second, audio_buffer=voices[first][1], threshold=0.99)
    one, two = logged(recognizer, "verify")
    assert (one.caller, one.verdict, one.gallery_size) == (first, "accepted", 1)
    assert (two.caller, two.verdict, two.limit, two.limit_from) == (second, answer.verdict, 0.99, "argument")
    assert two.event_id == answer.event_id


def test_a_stream_is_recorded_at_its_decision_and_its_end(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    recognizer.config.target_fpir = 0.05
    name = [*voices][1]
    with recognizer.stream(sample_rate=16_000) as call:
        for start in range(0, len(voices[name][1]), 8_000):
            call.feed(voices[name][1][start : start + 8_000])
            call.result()
        answer = call.finish()
    events = logged(recognizer, "stream")
    assert (events[-1].event_id, events[-1].verdict) == (answer.event_id, answer.verdict)
    assert [event.detail for event in events][-1] == "end of the call"
    assert events[-1].caller == name
    assert events[-1].speech_s is not None
    assert all(event.verdict for event in events)


def test_a_watchlist_hit_is_an_event_of_its_own(recognizer: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    name, other = [*voices][1:3]
    recognizer.storage.set_groups(name, add=["fraud"])
    recognizer.match_caller(voices[name][1], watch=["fraud"])
    recognizer.identify(voices[name][1], watch=["fraud"], candidates=[other])
    recognizer.verify_caller(other, voices[name][1], watch=["fraud"])
    with recognizer.stream(sample_rate=16_000, watch=["fraud"]) as call:
        call.feed(voices[name][1])
        answer = call.finish()
    assert [hit.caller_id for hit in answer.watch_hits] == [name]
    hits = logged(recognizer, "watch_hit")
    of_answers = [event for event in logged(recognizer) if event.verdict and event.action != "watch_hit"]
    assert [hit.about for hit in hits] == [event.event_id for event in of_answers]
    assert {(hit.caller, hit.group, hit.verdict) for hit in hits} == {(name, "fraud", "accepted")}
    assert len(hits) == 4


def test_an_enrolled_recording_that_is_played_is_named_in_the_reasons(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    name = [*voices][1]
    answer = recognizer.identify(voices[name][0])
    recognizer.match_caller(voices[name][0])
    recognizer.verify_caller(name, voices[name][0])
    assert answer.reasons == ("same_recording",)
    found = [event for event in logged(recognizer) if event.action in ("identify", "match", "verify")]
    assert [event.reasons for event in found] == [answer.reasons] * 3


def test_separated_voices_are_one_event(recognizer: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    name = [*voices][1]
    recognizer.identify(voices[name][1], separate=True)
    event = logged(recognizer, "identify")[-1]
    assert (event.caller, event.count) == (name, 1)


def test_deletions_copies_and_backups_are_recorded(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices, tmp_path: Path
) -> None:
    first, second, third = [*voices][:3]
    before = len(logged(recognizer))
    recognizer.delete_caller(first)
    recognizer.delete_caller(second, receipt=True)
    delete_with_receipt(recognizer.storage, third)
    back_up(recognizer.storage, tmp_path / "callers.backup")
    restore(recognizer.storage, tmp_path / "callers.backup", overwrite=True)
    copy_callers(recognizer.storage, MemoryStorage())
    recognizer.get_caller(first)
    list(recognizer.callers())
    found = [(event.action, event.caller, event.count) for event in logged(recognizer)[before:]]
    assert found == [
        ("delete", first, 1),
        ("delete", second, 1),
        ("delete", third, 1),
        ("backup", None, NAMES - 3),
        ("restore", None, NAMES - 3),
        ("copy", None, NAMES - 3),
        ("read", first, None),
        ("read", None, None),
    ]
    assert logged(recognizer, "backup")[0].file == "callers.backup"


def test_every_change_of_a_caller_is_recorded(recognizer: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    first, second, third = [*voices][:3]
    storage = recognizer.storage
    before = len(logged(recognizer))
    consent = Consent(
        purpose="secret purpose", version="1", obtained_at=now(), obtained_by="agent-1", source="call"
    )
    storage.set_consent(first, consent)
    storage.set_groups(first, add=["vip"])
    storage.update_metadata(first, {"plan": "secret plan"})
    storage.rename(first, "new id")
    storage.merge("new id", second)
    prints = storage.get(third)
    assert prints is not None
    storage.delete_voiceprint(prints.voiceprints[0].id or 0)
    storage.opt_out(second, reason="secret reason")
    with pytest.raises(CallerOptedOutError):
        recognizer.enroll_caller(second, voices[second][1])
    storage.opt_in(second)
    storage.delete_voiceprints([third], encoder=recognizer.encoder.name)
    found = [
        (event.action, event.caller, event.count, event.detail, event.error)
        for event in logged(recognizer)[before:]
    ]
    assert found == [
        ("consent", first, None, None, None),
        ("groups", first, None, None, None),
        ("metadata", first, None, None, None),
        ("rename", first, None, "to new id", None),
        ("merge", "new id", None, f"into {second}", None),
        ("delete_voiceprints", None, 1, None, None),
        ("opt_out", second, 2, None, None),
        ("enroll", second, None, None, "CallerOptedOutError"),
        ("opt_in", second, None, None, None),
        ("delete_voiceprints", None, 0, None, None),
    ]
    log = recognizer.audit_log()
    assert log is not None
    assert not any(b"secret" in text for _, text in log.lines())


def test_the_actor_is_that_of_the_thread_or_task(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    async def call(number: int) -> None:
        with recognizer.acting_as(f"agent-{number}", correlation_id=f"call-{number}"):
            await asyncio.sleep(0)
            await recognizer.aidentify(voices[[*voices][number]][1])

    async def calls() -> None:
        await asyncio.gather(*map(call, range(4)))

    asyncio.run(calls())
    found = {(event.actor, event.correlation_id, event.caller) for event in logged(recognizer, "identify")}
    assert found == {(f"agent-{n}", f"call-{n}", [*voices][n]) for n in range(4)}
    with recognizer.acting_as("outer", correlation_id="call"), recognizer.acting_as("inner"):
        recognizer.get_caller("x")
    recognizer.get_caller("y")
    last = [(event.actor, event.correlation_id) for event in logged(recognizer, "read")]
    assert last == [("inner", "call"), (None, None)]
    for bad in ("", "x" * 513, 7, "\ud800"):
        with pytest.raises(InvalidArgumentError, match="actor"):
            recognizer.acting_as(bad)  # type: ignore[arg-type]


def test_callbacks_get_events_without_a_log_and_their_errors_change_no_answer(
    voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=by_cosine(), encoder=BandEncoder())
    events: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError(f"secret of {event.caller}")

    recognizer.on_event(broken)
    stop = recognizer.on_event(events.append)
    recognizer.enroll_caller("amara", voices["amara"][0])
    assert recognizer.match_caller(voices["amara"][1]) is not None
    assert [event.action for event in events] == ["enroll", "match"]
    assert "broken failed: ValueError" in caplog.text
    assert "secret" not in caplog.text
    stop()
    recognizer.match_caller(voices["amara"][1])
    assert len(events) == 2
    with pytest.raises(InvalidArgumentError, match="callback"):
        recognizer.on_event("print")  # type: ignore[arg-type]


def test_feedback_names_the_event(recognizer: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    events: list[Event] = []
    recognizer.on_event(events.append)
    recognizer.match_caller(voices["amara"][1])
    (event,) = events
    recognizer.feedback(event.event_id, correct=False, caller_id="hana")
    last = logged(recognizer)[-1]
    assert (last.action, last.about, last.correct, last.caller) == ("feedback", event.event_id, False, "hana")
    for bad in ("abc", None, event.event_id.upper() + "\n"):
        with pytest.raises(InvalidArgumentError, match="event id"):
            recognizer.feedback(bad, correct=True)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="correct"):
        recognizer.feedback(event.event_id, correct=1)  # type: ignore[arg-type]
    silent = OpusAgentVoiceRecognizer(MemoryStorage(), config=by_cosine(), encoder=BandEncoder())
    with pytest.raises(ConfigurationError, match="VOICE_AUDIT"):
        silent.feedback(event.event_id, correct=True)


def test_a_secondary_encoder_changes_no_event(tmp_path: Path, voices: Voices) -> None:
    config = by_cosine(audit=tmp_path / "audit.jsonl")
    other = BandEncoder()
    other.name = "other"
    with OpusAgentVoiceRecognizer(
        MemoryStorage(), config=config, encoder=BandEncoder(), secondary=other
    ) as recognizer:
        recognizer.enroll_caller("amara", voices["amara"][0])
        recognizer.match_caller(voices["amara"][1])
        found = [(event.action, event.encoder) for event in logged(recognizer)]
    assert found == [("enroll", recognizer.encoder.name), ("match", recognizer.encoder.name)]


def test_no_embedding_audio_or_metadata_is_in_the_log(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices, tmp_path: Path
) -> None:
    recognizer.match_caller(voices["amara"][1])
    recognizer.verify_caller("amara", voices["amara"][1])
    recognizer.delete_caller("amara", receipt=True)
    logged(recognizer)
    content = (tmp_path / "audit.jsonl").read_bytes()
    assert b'"caller":"amara"' in content
    assert b"secret" not in content
    for caller in recognizer.callers():
        for print_ in caller.voiceprints:
            for number in print_.embedding[:8]:
                assert repr(float(number)).encode()[:9] not in content or abs(number) < 1e-3
            assert print_.embedding.tobytes()[:16] not in content


def test_the_log_of_a_recognizer_is_one_chain_over_handles_and_runs(tmp_path: Path, voices: Voices) -> None:
    config = by_cosine(audit=tmp_path / "audit.jsonl", storage_path=tmp_path / "callers.json")
    for _ in range(2):
        with OpusAgentVoiceRecognizer(config=config, encoder=BandEncoder()) as one:
            one.enroll_caller("amara", voices["amara"][0])
            with OpusAgentVoiceRecognizer(config=config, encoder=BandEncoder()) as two:
                two.match_caller(voices["amara"][1])
            log = one.audit_log()
            assert log is not None
            assert verify_lines(log.lines()).faults == ()
    assert [event.action for event in logged(one)] == ["enroll", "match"] * 2


def test_the_store_itself_is_refused_as_audit_log(tmp_path: Path) -> None:
    config = by_cosine(audit=tmp_path / "callers.json", storage_path=tmp_path / "callers.json")
    with pytest.raises(ConfigurationError, match="belongs to the store"):
        OpusAgentVoiceRecognizer(config=config, encoder=BandEncoder())
    with pytest.raises(ConfigurationError, match="has no table"):
        OpusAgentVoiceRecognizer(MemoryStorage(), config=by_cosine(audit="store"), encoder=BandEncoder())


def test_a_log_that_cannot_be_written_does_not_stop_matches(
    tmp_path: Path, voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "folder").mkdir()
    config = by_cosine(audit=tmp_path / "folder")
    recognizer = OpusAgentVoiceRecognizer(open_storage("memory:"), config=config, encoder=BandEncoder())
    recognizer.enroll_caller("amara", voices["amara"][0])
    assert recognizer.match_caller(voices["amara"][1]) is not None
    with caplog.at_level(logging.ERROR):
        recognizer.close()
    assert "a directory" in caplog.text
    # Mended, the log gets what waited. Its thread would otherwise complain within other tests, too.
    (tmp_path / "folder").rmdir()
    with caplog.at_level(logging.WARNING):
        deadline = time.monotonic() + 30
        while "is written again" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
    assert [event.action for event in logged(recognizer)] == ["enroll", "match"]
