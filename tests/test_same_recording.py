"""Answers on audio that may be played or synthetic have a reason, and stay as they are."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from voices import load_voices

from voiceprint import (
    ConfigurationError,
    InvalidArgumentError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    Recording,
    VoiceFingerprintConfig,
    open_storage,
)
from voiceprint.audio import recent
from voiceprint.audio.simulate import Condition
from voiceprint.consent import Provenance

RATE = 16_000
COPY, SUSPECTED = ("same_recording",), ("spoof_suspected",)

Audio = NDArray[np.float32]
Answer = Callable[[OpusAgentVoiceRecognizer, Audio], Any]

VOICES = load_voices()


def loudness(samples: Audio, sample_rate: int) -> float:
    """A detector of the application."""
    assert sample_rate == RATE
    return float(np.abs(samples).max())


def broken(samples: Audio, sample_rate: int) -> float:
    raise ZeroDivisionError


def identified(recognizer: OpusAgentVoiceRecognizer, audio: Audio) -> Any:
    return recognizer.identify(audio)


def verified(recognizer: OpusAgentVoiceRecognizer, audio: Audio) -> Any:
    return recognizer.verify_caller("amara", audio)


def streamed(recognizer: OpusAgentVoiceRecognizer, audio: Audio) -> Any:
    with recognizer.stream() as stream:
        for start in range(0, len(audio), RATE):
            stream.feed(audio[start : start + RATE])
            stream.result()
        return stream.finish()


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each question is asked an hour after the one before: hours[0] is the present."""
    now = [0.0]

    def clock() -> float:
        now[0] += 3600.0
        return now[0]

    monkeypatch.setattr(recent.time, "monotonic", clock)
    return now


def recognizer(tmp_path: Path, **settings: Any) -> OpusAgentVoiceRecognizer:
    """amara and bruno are enrolled by their first utterances."""
    opened = OpusAgentVoiceRecognizer(
        open_storage(f"json:{tmp_path / 'v.json'}"), config=VoiceFingerprintConfig(**settings)
    )
    for name in ("amara", "bruno"):
        opened.enroll_caller(name, VOICES[name][0])
    return opened


@pytest.mark.parametrize("answer", [identified, verified, streamed])
@pytest.mark.parametrize("condition", ["as-is", "telephone", "noise:snr=30"])
def test_a_copy_of_an_enrolled_recording_is_found(answer: Answer, condition: str, tmp_path: Path) -> None:
    enrolled = recognizer(tmp_path)
    copy = Condition.parse(condition).apply(VOICES["amara"][0])
    assert answer(enrolled, copy).reasons == COPY
    assert answer(enrolled, VOICES["amara"][1]).reasons == ()


@pytest.mark.parametrize("answer", [identified, verified, streamed])
@pytest.mark.parametrize("condition", ["as-is", "telephone:snr=20"])
@pytest.mark.usefixtures("hours")
def test_a_copy_of_an_earlier_call_is_found(answer: Answer, condition: str, tmp_path: Path) -> None:
    enrolled = recognizer(tmp_path)
    live = answer(enrolled, VOICES["amara"][1])
    copied = answer(enrolled, Condition.parse(condition).apply(VOICES["amara"][1]))
    assert (live.reasons, copied.reasons) == ((), COPY)
    if condition == "as-is":
        assert (live.verdict, copied.verdict) == ("accepted", "accepted")


def test_one_call_may_be_identified_and_verified_with_the_same_audio(tmp_path: Path) -> None:
    enrolled, call = recognizer(tmp_path), Recording.from_buffer(VOICES["amara"][1])
    assert enrolled.identify(call).reasons == enrolled.verify_caller("amara", call).reasons == ()


def test_a_stream_that_enrolls_its_caller_is_no_copy_of_itself(tmp_path: Path) -> None:
    enrolled, audio = recognizer(tmp_path), VOICES["carlo"][0]
    with enrolled.stream() as stream:
        stream.feed(audio)
        stream.enroll("carlo")
        assert stream.finish().reasons == ()
    assert enrolled.identify(audio).reasons == COPY


def test_a_reason_at_the_decision_stays_until_the_end(tmp_path: Path) -> None:
    enrolled = recognizer(tmp_path)
    played = np.concatenate([VOICES["amara"][0], *VOICES["amara"][1:3], *VOICES["amara"][1:3]])
    with enrolled.stream() as stream:
        results = []
        for start in range(0, len(played), RATE):
            stream.feed(played[start : start + RATE])
            results.append(stream.result())
        final = stream.finish()
    decided = next(result for result in results if result.decided)
    assert (decided.final, decided.reasons) == (False, COPY)
    assert final.reasons == COPY


@pytest.mark.usefixtures("hours")
def test_a_copy_of_a_call_of_over_two_minutes_is_found(tmp_path: Path) -> None:
    enrolled = recognizer(tmp_path)
    long = np.resize(np.concatenate([VOICES[name][1] for name in sorted(VOICES)]), 140 * RATE)
    assert streamed(enrolled, long).reasons == ()
    final = streamed(enrolled, Condition.parse("telephone").apply(long))
    assert (final.final, final.reasons) == (True, COPY)


def test_the_log_names_the_file_and_not_the_caller(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    enrolled = recognizer(tmp_path)
    call = Recording.open("examples/voices/amara/1.flac")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert enrolled.match_caller(call) is not None
    (record,) = [record for record in caplog.records if "copy" in record.getMessage()]
    assert record.getMessage().startswith("examples/voices/amara/1.flac: The audio is a copy")


@pytest.mark.usefixtures("hours")
def test_the_events_of_all_answers_have_the_reasons_and_the_score(tmp_path: Path) -> None:
    enrolled = recognizer(tmp_path, spoof_detector=f"{__name__}:loudness")
    events: list[Any] = []
    enrolled.on_event(events.append)
    audio = VOICES["amara"][1]
    assert enrolled.match_caller(audio) is not None
    assert enrolled.match_caller(audio) is not None
    for answer in (identified, verified, streamed):
        answer(enrolled, audio)
    found = {(event.action, event.reasons) for event in events[1:]}
    assert found == {(action, COPY) for action in ("match", "identify", "verify", "stream")}
    assert events[0].reasons == ()
    assert all(event.spoof_score == pytest.approx(float(np.abs(audio).max())) for event in events)


@pytest.mark.usefixtures("hours")
def test_the_setting_turns_all_of_it_off(tmp_path: Path) -> None:
    enrolled = recognizer(tmp_path, same_recording=False)
    for _ in range(2):
        assert enrolled.identify(VOICES["amara"][0]).reasons == ()
    caller = enrolled.get_caller("amara")
    assert caller is not None
    assert caller.voiceprints[0].provenance is not None
    assert caller.voiceprints[0].provenance.fingerprints is None


def test_an_own_embedding_is_compared_with_the_stored_ones(tmp_path: Path) -> None:
    enrolled = recognizer(tmp_path)
    caller = enrolled.get_caller("amara")
    assert caller is not None
    assert enrolled.identify(embedding=caller.voiceprints[0]).reasons == COPY
    other = enrolled.get_embedding(VOICES["amara"][1])
    assert enrolled.identify(embedding=other).reasons == ()


@pytest.mark.usefixtures("hours")
def test_recognizers_of_one_store_remember_together_and_of_two_apart(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, second, other = (recognizer(path) for path in (tmp_path, tmp_path, tmp_path / "other"))
    assert first.identify(VOICES["bruno"][1]).reasons == ()
    assert other.identify(VOICES["bruno"][1]).reasons == ()
    assert second.identify(VOICES["bruno"][1]).reasons == COPY


@pytest.mark.parametrize("answer", [identified, verified, streamed])
def test_the_score_of_a_detector_is_in_the_answer(answer: Answer, tmp_path: Path) -> None:
    audio = VOICES["amara"][1]
    enrolled = recognizer(tmp_path, spoof_detector=f"{__name__}:loudness", spoof_threshold=2.0)
    found = answer(enrolled, audio)
    assert (found.spoof_score, found.reasons) == (pytest.approx(float(np.abs(audio).max())), ())
    enrolled.config.spoof_threshold = 0.0
    assert answer(enrolled, audio).reasons[-1:] == SUSPECTED
    assert answer(enrolled, audio).accepted


@pytest.mark.parametrize("answer", [identified, verified, streamed])
def test_a_detector_that_fails_breaks_no_match(answer: Answer, tmp_path: Path) -> None:
    found = answer(recognizer(tmp_path, spoof_detector=f"{__name__}:broken"), VOICES["amara"][1])
    assert (found.verdict, found.spoof_score) == ("accepted", None)


def test_a_detector_that_cannot_be_loaded_stops_the_recognizer_from_being_built() -> None:
    config = VoiceFingerprintConfig(spoof_detector="no_such_module:score")
    with pytest.raises(ConfigurationError, match="no_such_module"):
        OpusAgentVoiceRecognizer(MemoryStorage(), config=config)


def test_the_command_line_prints_reasons_and_score(tmp_path: Path, run, monkeypatch) -> None:
    monkeypatch.setenv("VOICE_SPOOF_DETECTOR", f"{__name__}:loudness")
    store, file = f"json:{tmp_path / 'v.json'}", "examples/voices/amara/1.flac"
    run("enroll", "amara", file, "--store", store)
    _, out, _ = run("identify", file, "--store", store, "--json")
    (answer,) = json.loads(out)
    assert answer["reasons"] == ["same_recording"]
    assert 0 < answer["spoof_score"] <= 1
    _, out, _ = run("verify", "amara", file, "--store", store, "--json")
    assert '"same_recording"' in out


def test_the_fingerprints_are_serialized_with_the_embeddings_alone(tmp_path: Path) -> None:
    caller = recognizer(tmp_path).get_caller("amara")
    assert caller is not None
    (voiceprint,) = caller.voiceprints
    assert voiceprint.provenance is not None
    sketch = voiceprint.provenance.fingerprints
    assert sketch is not None
    for model in (caller, voiceprint):
        assert sketch not in model.model_dump_json()
        assert sketch not in repr(model.model_dump()) + repr(model) + repr(voiceprint.provenance)
        assert sketch in model.model_dump_json(include_embeddings=True)


@pytest.mark.parametrize("text", ["?", "AAA", base64.b64encode(bytes(260)).decode(), "AAA="])
def test_fingerprints_that_are_no_sketch_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="sketch"):
        Provenance(fingerprints=text)
