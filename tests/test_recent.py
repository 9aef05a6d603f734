"""A recording that is played again is found among the recent ones, and live speech is not."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from voices import SAMPLES

from voiceprint import Recording, load_audio
from voiceprint.audio.recent import RecentRecordings
from voiceprint.audio.simulate import Condition

RATE = 16_000
LATER = 3600.0  # seconds

Audio = NDArray[np.float32]


def sample(name: str, number: int) -> Audio:
    audio, rate = load_audio(SAMPLES / name / f"{number}.flac")
    assert rate == RATE
    return np.asarray(audio, dtype=np.float32)


def found(original: Audio, copy: Audio, after_s: float = LATER) -> bool:
    """Whether the second is a copy of the first."""
    recent = RecentRecordings()
    assert not has(recent, original, 0.0)
    return has(recent, copy, after_s)


def has(recent: RecentRecordings, audio: Audio, now: float) -> bool:
    return recent.has(Recording.from_buffer(audio).fingerprint, len(audio) / RATE, now)


@pytest.mark.parametrize(
    "condition",
    ["as-is", "telephone", "telephone:law=alaw,band=full", "telephone:snr=20", "noise:snr=20"],
)
@pytest.mark.parametrize("name", ["amara", "bruno"])
def test_a_copy_is_found_over_a_line_and_in_noise(name: str, condition: str) -> None:
    audio = sample(name, 1)
    assert found(audio, Condition.parse(condition).apply(audio))


@pytest.mark.parametrize(
    "changed",
    [
        lambda audio: audio * np.float32(0.05),
        lambda audio: audio[RATE // 2 :],
        lambda audio: audio[: len(audio) // 2],
        lambda audio: np.concatenate([np.zeros(2 * RATE, dtype=np.float32), audio]),
    ],
    ids=["quieter", "later", "half", "after silence"],
)
def test_a_copy_of_another_level_or_cut_is_found(changed) -> None:
    audio = sample("amara", 1)
    assert found(audio, changed(audio))


def test_live_speech_of_the_same_voices_is_no_copy() -> None:
    recent, times = RecentRecordings(), count(step=LATER)
    files = sorted(SAMPLES.glob("*/*.flac"))
    assert len(files) > 20
    for file in files:
        assert not has(recent, np.asarray(load_audio(file)[0], dtype=np.float32), next(times)), file


def test_the_same_call_may_be_asked_about_again_while_it_lasts() -> None:
    audio, recent = sample("amara", 1), RecentRecordings()
    for seconds in (2, 3, 4, 5):  # a buffer that grows with the call
        assert not has(recent, audio[: seconds * RATE], float(seconds))
    assert not has(recent, audio[: 5 * RATE], 6.0)
    assert has(recent, audio[: 5 * RATE], 6.0 + 5.0)


def test_a_call_that_is_asked_about_often_is_remembered_once() -> None:
    audio, recent = sample("amara", 1), RecentRecordings()
    for step in range(40):
        has(recent, audio[: 2 * RATE + step * RATE // 20], 2 + step / 20)
    kept = sum(len(segment.prints) - len(segment.replaced) for segment in recent._segments)
    assert kept == 1


def test_a_copy_in_the_speech_of_another_call_counts_from_half_of_it() -> None:
    played, spoken = sample("amara", 1)[: 4 * RATE], sample("bruno", 1)
    assert found(played, np.concatenate([played, spoken[: 2 * RATE]]))
    assert not found(played, np.concatenate([played[: 2 * RATE], spoken[: 5 * RATE]]))


def test_silence_tones_and_short_sounds_are_never_copies() -> None:
    tone = np.sin(np.arange(5 * RATE) * (2 * np.pi * 440 / RATE)).astype(np.float32) / 4
    hiss = np.random.default_rng(0).standard_normal(5 * RATE).astype(np.float32) / 100
    for audio in (np.zeros(5 * RATE, dtype=np.float32), tone, hiss, sample("amara", 1)[: RATE // 2]):
        assert not found(audio, audio)


def test_memory_is_bounded_and_the_oldest_recordings_are_forgotten_first() -> None:
    recent, audio = RecentRecordings(seconds=600.0), sample("amara", 1)
    chance = np.random.default_rng(0)
    first = sample("bruno", 1)
    assert not has(recent, first, 0.0)
    assert has(recent, first, LATER)
    for number in range(300):  # 300 s of speech that is no copy: played at other speeds
        positions = np.arange(0, len(audio), chance.uniform(0.7, 1.4))
        other = np.interp(positions, np.arange(len(audio)), audio).astype(np.float32)
        has(recent, other, (2 + number) * LATER)
        assert sum(segment.length for segment in recent._segments) * 0.016 < 620
    assert len(recent._segments) < 30
    assert has(recent, other, 400 * LATER)
    assert not has(recent, first, 401 * LATER)


def test_each_store_has_its_own_recent_recordings(tmp_path: Path) -> None:
    one, other = (RecentRecordings.of_process(str(tmp_path / name)) for name in ("a", "b"))
    assert one is RecentRecordings.of_process(str(tmp_path / "a"))
    assert one is not other


def test_a_forked_process_begins_without_recordings_and_can_compare() -> None:
    recent = RecentRecordings.of_process("json:forked")
    audio = sample("amara", 1)
    has(recent, audio, 0.0)
    with recent._lock:  # as another thread of the parent may hold it
        child = os.fork()
        if not child:
            os._exit(1 if has(recent, audio, LATER) else 0)
    assert os.waitpid(child, 0)[1] == 0
    assert has(recent, audio, LATER)
