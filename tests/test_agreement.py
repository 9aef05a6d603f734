"""Copies of a recording, another person's voice, and the best recordings of one caller."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
from voices import RATE, Voices, real_speech

from voiceprint import OpusAgentVoiceRecognizer, VoiceMismatchError, Voiceprint, load_audio
from voiceprint.audio.io import g711
from voiceprint.audio.io.buffers import resample
from voiceprint.enrollment.agreement import agreement, best_agreeing, same_recording, sounds_alike


def _line(audio: np.ndarray, law: g711.Law) -> np.ndarray:
    """The G.711 codes of audio, at 8 kHz."""
    return g711.encode((np.clip(audio, -1, 1) * 32767).astype(np.int16), law)


@pytest.mark.resemblyzer
def test_a_recording_that_was_encoded_once_more_costs_no_slot(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices, tmp_path: Path
) -> None:
    audio = voices["amara"][0]
    first = recognizer.enroll_caller("amara", audio, {"name": "Amara"})
    other = recognizer.enroll_caller("amara", voices["amara"][1])
    soundfile.write(tmp_path / "copy.ogg", audio, RATE)
    copy, rate = load_audio(tmp_path / "copy.ogg")
    for again in (
        recognizer.enroll_caller("amara", audio, {"plan": "gold"}),
        recognizer.enroll_caller("amara", (audio * 32767).astype(np.int16)),
        recognizer.enroll_caller("amara", copy, sample_rate=rate),
    ):
        assert (again.id, again.created_at) == (first.id, first.created_at)
    caller = recognizer.get_caller("amara")
    assert caller is not None
    assert [print_.id for print_ in caller.voiceprints] == [first.id, other.id]
    assert caller.metadata == {"name": "Amara", "plan": "gold"}


@pytest.mark.resemblyzer
def test_a_call_in_mu_law_is_a_copy_of_itself_in_a_law(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    line = _line(resample(voices["amara"][0], RATE, 8_000), "mulaw")
    again = _line(g711.decode(line, "mulaw") / np.float32(32768), "alaw")
    first = recognizer.enroll_caller("amara", line, sample_rate=8_000, encoding="mulaw")
    second = recognizer.enroll_caller("amara", again, sample_rate=8_000, encoding="alaw")
    assert first.id == second.id


def test_a_copy_is_logged_with_the_caller_and_nothing_else(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.enroll_caller("amara", voices["amara"][0])
    with caplog.at_level(logging.INFO, "voiceprint.enrollment.writer"):
        recognizer.enroll_caller("amara", voices["amara"][0], {"name": "Hunter"})
    assert caplog.messages == ["The caller 'amara' is already enrolled with this recording."]


@pytest.mark.resemblyzer
def test_the_augmented_print_comes_with_the_same_recording_later(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    recognizer.config.enroll_simulated_lines = False
    first = recognizer.enroll_caller("amara", voices["amara"][0])
    recognizer.config.enroll_simulated_lines = True
    again = recognizer.enroll_caller("amara", voices["amara"][0])
    assert (first.augmented is None, again.augmented is None) == (True, False)
    assert again.id == first.id


@pytest.mark.resemblyzer
def test_another_person_is_warned_of_or_refused_and_the_caller_is_not(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    line = resample(voices["amara"][2], RATE, 8_000)
    with caplog.at_level(logging.WARNING, "voiceprint"):
        for audio in voices["amara"][:2]:
            recognizer.enroll_caller("amara", audio, on_mismatch="refuse")
        recognizer.enroll_caller("amara", line, sample_rate=8_000, on_mismatch="refuse")
        with pytest.raises(VoiceMismatchError, match="delete the caller first"):
            recognizer.enroll_caller("amara", voices["hakan"][0], {"name": "Hakan"}, on_mismatch="refuse")
        caller = recognizer.get_caller("amara")
        assert caller is not None
        assert (len(caller.voiceprints), caller.metadata) == (3, {})
        assert caplog.messages == []
        stored = recognizer.enroll_caller("amara", voices["hakan"][0])
    assert stored.id is not None
    assert len(caplog.messages) == 1
    assert "the caller 'amara' does not sound like" in caplog.text


def test_an_encoder_without_a_measured_limit_is_not_judged(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    quick.enroll_caller("amara", voices["amara"][0])
    quick.enroll_caller("amara", voices["hakan"][0], on_mismatch="refuse")
    assert quick.storage.count() == 2


def test_opposite_prints_agree_with_nothing() -> None:
    embedding = np.eye(1, 256, dtype=np.float32)[0]
    others = [Voiceprint("a", embedding), Voiceprint("a", -embedding)]
    assert agreement(embedding, others) == 0.0
    assert not sounds_alike(embedding, others)
    assert same_recording(embedding, others) is others[0]
    assert same_recording(embedding, []) is None


def _vectors(*angles: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)] for angle in angles], dtype=np.float32)


@pytest.mark.parametrize(
    ("angles", "qualities", "count", "kept"),
    [
        ((0.0, 0.2, 0.4), (1, 1, 1), 3, [0, 1, 2]),
        ((0.0, 1.5, 0.2, 0.4), (0.7, 1, 0.7, 0.7), 3, [0, 2, 3]),  # the outlier goes, however good
        ((0.0, 0.2, 0.4, 1.5, 1.6), (1, 1, 1, 1, 1), 2, [0, 1]),
        ((0.0, 0.0, 1.5, 0.2, 0.4), (1, 1, 1, 1, 1), 3, [0, 1, 3, 4]),  # a copy takes no place
        ((0.0, 0.0, 0.0, 0.0), (1, 1, 1, 1), 1, [0, 1, 2, 3]),
        ((0.0, 0.3), (0.6, 0.9), 1, [1]),  # equal agreement: the better
        ((0.0, 0.3), (0.9, 0.9), 1, [0]),
    ],
)
def test_the_recordings_that_agree_best_are_kept(
    angles: tuple[float, ...], qualities: tuple[float, ...], count: int, kept: list[int]
) -> None:
    assert best_agreeing(_vectors(*angles), qualities, count) == kept


@pytest.mark.slow
@pytest.mark.speech
def test_real_speakers_of_another_day_are_mostly_found_alike_and_others_mostly_not(
    recognizer: OpusAgentVoiceRecognizer,
) -> None:
    folder = real_speech() / "librispeech-sessions"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    sessions: dict[str, list[Voiceprint]] = {}
    for speaker in sorted(folder.glob("*/")):
        for chapter in sorted(speaker.glob("*/"))[:2]:
            audio = np.concatenate([soundfile.read(file)[0] for file in sorted(chapter.glob("*.flac"))])
            one = recognizer.enroll_caller(f"{speaker.name} {chapter.name}", audio[: 5 * RATE])
            sessions.setdefault(speaker.name, []).append(one)
    own = [_alike(prints[1], prints[0]) for prints in sessions.values() if len(prints) > 1]
    others = [_alike(a[0], b[0]) for a in sessions.values() for b in sessions.values() if a is not b]
    assert len(own) >= 15
    assert np.mean(own) >= 0.9
    assert np.mean(others) <= 0.4


def _alike(new: Voiceprint, other: Voiceprint) -> bool:
    return sounds_alike(np.stack([v for v in (new.embedding, new.augmented) if v is not None]), [other])
