"""The advice to those who record is true: following it helps."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import signals
from voices import RATE, Audio, BandEncoder, Voices

from voiceprint import (
    AudioQualityError,
    InvalidAudioError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    VoiceFingerprintConfig,
    assess,
)


@pytest.fixture
def speech(voices: Voices) -> Audio:
    """12 s of one voice."""
    return np.concatenate(voices["amara"][:2])


def _figures(sentence: str) -> list[float]:
    return [float(one) for one in re.findall(r"-?\d+\.?\d*", sentence)]


def _noisy(speech: Audio) -> Audio:
    noisy = signals.with_noise(speech.astype(np.float64), np.random.default_rng(4), 10.0)
    return noisy.astype(np.float32)


def test_good_audio_needs_no_advice(speech: Audio) -> None:
    assert assess(speech).advice == ()


def test_the_seconds_of_speech_that_are_asked_for_are_enough(speech: Audio) -> None:
    first = assess(speech[: round(1.2 * RATE)])
    (sentence,) = (one for one in first.advice if "s of speech" in one)
    said, more, goal = _figures(sentence)
    assert said == pytest.approx(first.net_speech_s, abs=0.05)
    assert goal == 3
    pauses = 0.2  # which are no speech
    after = assess(speech[: round((1.2 + more + pauses) * RATE)])
    assert after.net_speech_s >= goal - 0.1
    assert after.score > first.score
    assert after.score > 0.9


def test_raising_the_gain_as_told_is_enough(speech: Audio) -> None:
    quiet = assess(speech * 0.0015)
    (sentence,) = quiet.advice
    level, more = _figures(sentence)
    assert level == pytest.approx(quiet.level_dbfs, abs=0.5)
    assert assess(speech * 0.0015 * 10 ** ((more + 0.5) / 20)).advice == ()


@pytest.mark.parametrize(
    ("spoil", "first_words"),
    [
        (_noisy, "Noisy: the speech is"),
        (lambda speech: np.clip(speech * 10, -1, 1), "Clipped:"),
        (lambda speech: signals.white(np.random.default_rng(1)), "No speech was found"),
        (lambda speech: speech[:1000], "0.1 s are too short"),
        (lambda speech: np.stack([speech, np.roll(speech, RATE)]), "The channels hold different sounds"),
    ],
)
def test_the_gravest_fault_is_named_first(
    spoil: Callable[[Audio], Audio], first_words: str, speech: Audio
) -> None:
    assert assess(spoil(speech)).advice[0].startswith(first_words)


def test_all_that_is_poor_is_named_the_costliest_first(speech: Audio) -> None:
    part = speech[: round(1.5 * RATE)].astype(np.float64)
    poor = assess(np.clip(signals.with_noise(part, np.random.default_rng(4), 8.0) * 3, -1, 1))
    words = [re.split(r"[: ]", sentence)[0] for sentence in poor.advice]
    assert words[:2] == ["Clipped", "Noisy"], poor


def test_a_refusal_by_quality_always_says_what_to_do(voices: Voices) -> None:
    """Also where no single measure is bad enough for a code of its own."""
    rng = np.random.default_rng(6)
    refused = 0
    for voice in voices.values():
        audio = voice[0].astype(np.float64)
        for snr in (4, 8, 11, 12, 13, 14):
            quality = assess(signals.with_noise(audio[: round(1.3 * RATE)], rng, snr))
            if quality.score < 0.6:
                refused += 1
                assert quality.advice, quality
    assert refused > 5


def _variants(speech: Audio) -> dict[str, Audio]:
    return {
        "good": speech[: 6 * RATE],
        "short": speech[: 3 * RATE],
        "clipped": np.clip(speech * 10, -1, 1),
        "noise": signals.white(np.random.default_rng(2)).astype(np.float32),
        "silence": np.zeros(6 * RATE, dtype=np.float32),
        "pauses": np.concatenate([speech[: 2 * RATE], np.zeros(4 * RATE, dtype=np.float32)]),
    }


def test_the_check_of_an_enrollment_agrees_with_enrolling(speech: Audio) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder())
    answers = []
    for name, audio in _variants(speech).items():
        check = recognizer.check_enrollment(audio)
        assert recognizer.get_caller(name) is None  # nothing was stored
        answers.append(check.ready)
        if check.ready:
            recognizer.enroll_caller(name, audio)
        else:
            with pytest.raises(AudioQualityError) as refusal:
                recognizer.enroll_caller(name, audio)
            assert check.advice[0] in str(refusal.value)
            assert refusal.value.quality == check.quality
    assert set(answers) == {True, False}


def test_the_check_says_how_many_seconds_are_missing(speech: Audio) -> None:
    recognizer = OpusAgentVoiceRecognizer(
        MemoryStorage(), config=VoiceFingerprintConfig(enrollment_duration=8)
    )
    check = recognizer.check_enrollment(speech[: round(2.5 * RATE)])
    assert not check.ready
    assert check.more_audio_s == pytest.approx(5.5)
    assert check.more_speech_s == pytest.approx(3.0 - check.quality.net_speech_s)
    assert check.advice[0].startswith("Enrollment needs 8 s of audio, and this is 2.50 s: record 5.5 s more")
    enough = recognizer.check_enrollment(speech[: 8 * RATE])
    assert enough.ready
    assert (enough.more_audio_s, enough.more_speech_s) == (0.0, 0.0)


def test_the_check_refuses_what_is_no_audio() -> None:
    with pytest.raises(InvalidAudioError):
        OpusAgentVoiceRecognizer(MemoryStorage()).check_enrollment(np.zeros(0, dtype=np.float32))
