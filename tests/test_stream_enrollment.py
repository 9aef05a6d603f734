"""`CallStream.enroll`: the voice of a call is enrolled while the call lasts, or after it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import numpy as np
import pytest
from streams import MULAW, as_mulaw, fed
from voices import RATE, Audio, BandEncoder, Voices

from voiceprint import (
    AudioQualityError,
    DisabledError,
    InvalidArgumentError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    SeveralVoicesError,
    VoiceMismatchError,
)
from voiceprint.streaming.online_embedder import BUFFER_S


def of_length(voices: Voices, caller: str, seconds: float) -> Audio:
    """All utterances of a caller, over and over."""
    audio = np.concatenate(voices[caller])
    return np.tile(audio, -(-round(seconds * RATE) // len(audio)))[: round(seconds * RATE)]


@pytest.mark.resemblyzer
@pytest.mark.parametrize("finished", [False, True])
def test_a_stream_enrolls_what_enroll_caller_stores_of_the_same_audio(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices, finished: bool
) -> None:
    audio = voices["amara"][0]
    expected = recognizer.enroll_caller("amara", audio, {"plan": "gold"})
    assert expected.augmented is not None
    other = OpusAgentVoiceRecognizer(MemoryStorage())
    with other.stream() as session:
        fed(session, audio, 320)
        if finished:
            session.finish()
        stored = session.enroll("amara", {"plan": "gold"})
    assert (stored.caller_id, stored.metadata, stored.encoder) == ("amara", {"plan": "gold"}, "resemblyzer")
    np.testing.assert_allclose(stored.embedding, expected.embedding, atol=1e-5)
    assert stored.augmented is not None
    np.testing.assert_allclose(stored.augmented, expected.augmented, atol=1e-4)
    caller = other.get_caller("amara")
    assert caller is not None
    assert caller.voiceprints == (stored,)


def test_an_encoder_without_partials_enrolls_a_telephone_call_in_any_split(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    call = as_mulaw(voices["bruno"][0])
    expected = quick.enroll_caller("whole", call, **MULAW)
    for chunk in (160, 4001):
        with quick.stream(**MULAW) as session:
            stored = fed(session, call, chunk).enroll(f"in {chunk}")
        np.testing.assert_allclose(stored.embedding, expected.embedding, atol=1e-5)


def test_the_stream_goes_on_and_finds_the_caller_whom_it_has_enrolled(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    audio = of_length(voices, "carlo", 14)
    with recognizer.stream() as session:
        fed(session, audio[: 7 * RATE], 4000)
        assert session.result().caller_id is None
        first = session.enroll("carlo")
        fed(session, audio[7 * RATE :], 4000)
        assert session.finish().caller_id == "carlo"
        assert session.enroll("carlo").id != first.id  # more audio: another voiceprint
        again = session.enroll("carlo", {"seen": 2})
    caller = recognizer.get_caller("carlo")
    assert caller is not None
    assert [one.id for one in caller.voiceprints] == [first.id, again.id]  # the same audio: no other
    assert caller.metadata == {"seen": 2}


def test_exactly_the_configured_seconds_are_enough_also_before_the_end(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    audio = voices["carlo"][0]
    with quick.stream() as session:
        session.feed(audio[: 5 * RATE - 1])
        with pytest.raises(
            AudioQualityError, match=r"needs 5 s of audio.*VOICE_ENROLLMENT_DURATION"
        ) as error:
            session.enroll("carlo")
        assert error.value.quality.duration_s == (5 * RATE - 1) / RATE
        session.feed(audio[5 * RATE - 1 : 5 * RATE])
        session.enroll("carlo")


def test_bytes_that_end_within_a_sample_are_enrolled_up_to_it(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    pcm = np.round(voices["carlo"][0] * 32_767).astype("<i2").tobytes()
    expected = quick.enroll_caller("whole", pcm[: 2 * 6 * RATE])
    with quick.stream() as session:
        session.feed(pcm[: 2 * 6 * RATE + 1])
        stored = session.enroll("carlo")
        session.feed(pcm[2 * 6 * RATE + 1 :])
        assert session.finish().audio_s == len(pcm) / 2 / RATE
    np.testing.assert_allclose(stored.embedding, expected.embedding, atol=1e-5)


def test_a_stream_without_audio_has_nothing_to_enroll(quick: OpusAgentVoiceRecognizer) -> None:
    with quick.stream() as session:
        with pytest.raises(AudioQualityError, match=r"needs 5 s of audio, and this is 0\.00 s"):
            session.enroll("carlo")
        session.finish()
        with pytest.raises(AudioQualityError, match=r"needs 5 s of audio"):
            session.enroll("carlo")
    assert quick.storage.count() == 0


def test_poor_audio_is_refused(quick: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    audio = voices["dario"][0]
    noisy = (audio + np.random.default_rng(1).normal(0, audio.std(), audio.size)).clip(-1, 1)
    for finish in (False, True):
        with quick.stream() as session:
            session.feed(noisy)
            if finish:
                session.finish()
            with pytest.raises(AudioQualityError, match=r"0\.6 is needed"):
                session.enroll("dario")


def test_several_voices_are_refused_stored_or_the_largest_is_enrolled(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    agent, caller = of_length(voices, "bruno", 12), of_length(voices, "amara", 20)
    alone = recognizer.get_embedding(caller)
    for finish in (False, True):
        with recognizer.stream() as session:
            fed(session, np.concatenate([agent, caller]), 8000)
            if finish:
                session.finish()
            with pytest.raises(SeveralVoicesError) as error:
                session.enroll("amara")
            assert len(error.value.quality.voices) == 2
            assert recognizer.storage.count() == 0
            stored = session.enroll("amara", on_several_voices="largest")
            assert float(stored.embedding @ alone) > 0.97
            mixed = session.enroll("both", on_several_voices="store")
            assert float(mixed.embedding @ alone) < float(stored.embedding @ alone)
        for name in ("amara", "both"):
            recognizer.delete_caller(name)


@pytest.mark.resemblyzer
def test_a_voice_unlike_the_callers_others_is_refused_where_that_is_asked_for(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.enroll_caller("amara", voices["amara"][0])
    with recognizer.stream() as session:
        session.feed(voices["carlo"][0])
        with pytest.raises(VoiceMismatchError):
            session.enroll("amara", on_mismatch="refuse")
        session.enroll("amara")
    assert "does not sound like the caller's others" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"caller_id": ""}, "caller id is empty"),
        ({"caller_id": 7}, "caller id is a str"),
        ({"caller_id": "a", "metadata": {"a": {1}}}, "set"),
        ({"caller_id": "a", "metadata": "gold"}, "Metadata is a dict"),
        ({"caller_id": "a", "on_mismatch": "drop"}, "on_mismatch is 'drop'"),
        ({"caller_id": "a", "on_several_voices": "smallest"}, "on_several_voices is 'smallest'"),
    ],
)
def test_wrong_arguments_are_refused_and_the_stream_goes_on(
    quick: OpusAgentVoiceRecognizer, voices: Voices, wrong: dict[str, Any], message: str
) -> None:
    with quick.stream() as session:
        session.feed(voices["amara"][0])
        with pytest.raises(InvalidArgumentError, match=message):
            session.enroll(**wrong)
        assert quick.storage.count() == 0
        session.enroll("amara")
        assert session.finish().caller_id == "amara"


def test_a_closed_stream_enrolls_nobody(quick: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    with quick.stream() as session:
        session.feed(voices["amara"][0])
    with pytest.raises(InvalidArgumentError, match="closed"):
        session.enroll("amara")
    assert quick.storage.count() == 0


def test_switched_off_nothing_is_enrolled(quick: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    quick.config.fingerprinting_enabled = False
    with quick.stream() as session:
        session.feed(voices["amara"][0])
        with pytest.raises(DisabledError):
            session.enroll("amara")


def test_of_a_call_over_two_minutes_the_stretch_with_the_most_speech_is_enrolled(voices: Voices) -> None:
    quick = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder())
    speech, rest = of_length(voices, "amara", 110), of_length(voices, "gil", 8)
    silence = np.zeros(130 * RATE, dtype=np.float32)
    expected = quick.get_embedding(speech)
    for parts in ((speech, silence, rest), (silence, speech), (rest, silence, speech)):
        with quick.stream() as session:
            for part in parts:
                fed(session, part, RATE)
            stored = [session.enroll("before")]
            session.finish()
            stored.append(session.enroll("after"))
        for one in stored:
            assert float(one.embedding @ expected) > 0.99
            assert float(one.embedding @ quick.get_embedding(rest)) < 0.9
            quick.delete_caller(one.caller_id)


def test_the_memory_of_an_hour_is_bounded(quick: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    audio = of_length(voices, "amara", 60)
    with quick.stream() as session:
        sizes = []
        for minute in range(1, 11):
            fed(session, audio, RATE)
            online = session._online
            assert online._released is None or online._released.nbytes <= 2 * (BUFFER_S + 1) * RATE
            if minute % 4 == 1:  # one minute into a buffer
                held = sum(part.nbytes for part in online._native) + online._buffer._audio.nbytes
                sizes.append(held + (0 if online._released is None else online._released.nbytes))
        assert sizes[1] == sizes[2]


def test_an_event_loop_enrolls_and_a_cancellation_before_the_write_stores_nothing(
    quick: OpusAgentVoiceRecognizer, voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    async def call() -> None:
        async with quick.stream() as session:
            await session.afeed(voices["amara"][0])
            stored = await session.aenroll("amara", {"a": 1}, on_mismatch="refuse")
            assert stored.metadata == {"a": 1}
            running = asyncio.ensure_future(session.aenroll("bruno"))
            await asyncio.sleep(0)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        at_once = quick.storage.count_callers()
        await asyncio.sleep(0.3)
        assert quick.storage.count_callers() == at_once

    with caplog.at_level(logging.WARNING):
        asyncio.run(call())
    assert quick.get_caller("amara") is not None


def test_separated_streams_enroll_the_voice_that_speaks_most(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    agent, caller = of_length(voices, "bruno", 10), of_length(voices, "amara", 16)
    with recognizer.stream(separate=True) as session:
        fed(session, np.concatenate([agent, caller]), 8000)
        session.finish()
        with pytest.raises(SeveralVoicesError):
            session.enroll("amara")
        session.enroll("amara", on_several_voices="largest")
    match = recognizer.match_caller(voices["amara"][1])
    assert match is not None
    assert match[0] == "amara"


@pytest.mark.parametrize("seconds", [0.0, 6.0, BUFFER_S + 20.0])
def test_a_compact_stream_enrolls_the_same_audio(
    quick: OpusAgentVoiceRecognizer, voices: Voices, seconds: float
) -> None:
    call = as_mulaw(of_length(voices, "bruno", seconds)) if seconds else b""
    answers, stored = [], []
    for compact in (False, True):
        with quick.stream(**MULAW) as session:
            fed(session, call, 4000)
            answers.append(session.finish())
            for _ in range(2 * compact):  # twice, as it may be repeated
                session.compact()
            assert session.result() == session.finish() == answers[-1]
            if seconds:
                quick.delete_caller("bruno")
                stored.append(session.enroll("bruno"))
            else:
                with pytest.raises(AudioQualityError):
                    session.enroll("bruno")
    assert [answer.audio_s for answer in answers] == pytest.approx([seconds] * 2, abs=0.01)
    for one, other in zip(stored[::2], stored[1::2], strict=True):
        np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-6)


def test_a_stream_is_compact_after_its_end_alone(quick: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    with quick.stream() as session:
        fed(session, voices["bruno"][0], 4000)
        with pytest.raises(InvalidArgumentError, match=r"finish\(\) before compact"):
            session.compact()
        session.finish()
    with pytest.raises(InvalidArgumentError, match="closed"):
        session.compact()
    quick.config.fingerprinting_enabled = False
    with quick.stream() as disabled:
        disabled.finish()
        disabled.compact()
    quick.config.fingerprinting_enabled = True
