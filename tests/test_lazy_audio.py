"""Audio that is converted while it is read: the same values as of the whole, wherever the cuts are."""

from __future__ import annotations

import random

import numpy as np
import pytest
from voices import RATE, Voices

from voiceprint import InvalidAudioError
from voiceprint.audio import as_pcm, assess, to_mono
from voiceprint.audio.io import g711, lazy_audio
from voiceprint.audio.io.lazy_audio import LazyAudio
from voiceprint.audio.speech import vad
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.encoder import OnnxEncoder


def int16(audio: np.ndarray) -> np.ndarray:
    return np.round(audio * 32767).astype(np.int16)


RATES = [8_000, 11_025, 16_000, 22_050, 44_100, 48_000]


@pytest.mark.parametrize("rate", RATES)
def test_any_parts_are_those_of_the_whole(voices: Voices, rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_audio, "_BLOCK_S", 1)
    pcm = int16(voices["amara"][0])[: 5 * 8_000 + 123]
    whole = to_mono(pcm, rate)
    lazily = LazyAudio(pcm, rate)
    assert len(lazily) == len(whole)
    chance = random.Random(rate)
    for _ in range(30):
        start, stop = sorted(chance.sample(range(len(whole) + 1), 2))
        part = lazily[start:stop]
        assert part.dtype == np.float32
        np.testing.assert_array_equal(part, whole[start:stop])
    np.testing.assert_array_equal(lazily[:], whole)
    np.testing.assert_array_equal(np.concatenate([*lazy_audio.blocks(lazily, 777)]), whole)


@pytest.mark.parametrize("rate", RATES)
def test_there_are_as_many_samples_as_of_the_whole(rate: int) -> None:
    for length in [20, 160, *range(1_000, 1_020), 70_001]:
        pcm = np.resize(np.arange(-900, 900, 7, dtype=np.int16), length)
        whole = to_mono(pcm, rate)
        np.testing.assert_array_equal(LazyAudio(pcm, rate)[:], whole)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.float32, ">f8"])
@pytest.mark.parametrize("shape", [(4000,), (4000, 2), (3, 4000)])
def test_any_numbers_and_channels_are_converted(dtype: str, shape: tuple[int, ...]) -> None:
    kind = np.dtype(dtype)
    values = np.random.default_rng(0).uniform(-1, 1, shape)
    if kind.kind != "f":
        values = values * 2.0 ** (8 * kind.itemsize - 1) * 0.99 + (128 if kind.kind == "u" else 0)
    samples = values.astype(kind)
    for rate in (8_000, 16_000):
        np.testing.assert_array_equal(LazyAudio(samples, rate)[:], to_mono(samples, rate))


def test_what_a_whole_is_refused_for_is_refused_before_a_part_is_read() -> None:
    samples = np.zeros(10_000, dtype=np.float32)
    samples[9_999] = np.nan
    with pytest.raises(InvalidAudioError, match="NaN"):
        LazyAudio(samples, RATE)


def test_parts_with_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="step"):
        LazyAudio(np.zeros(100, dtype=np.int16), RATE)[::2]


def changed(voices: Voices) -> list[tuple[np.ndarray, int]]:
    """Calls of all kinds, integers and floats."""
    one, other = voices["amara"][0], voices["bruno"][0]
    pauses = np.concatenate([np.zeros(20 * RATE, np.float32), one, np.zeros(40 * RATE, np.float32), other])
    return [
        (int16(pauses), RATE),
        (int16(0.01 * pauses), RATE),
        (int16(np.clip(20 * one, -0.5, 0.4)), RATE),
        (one, RATE),
        (g711.decode(g711.encode(int16(pauses)[::2].copy(), "mulaw"), "mulaw"), 8_000),
        (np.stack([int16(one), int16(one) // 2], axis=1), RATE),
        (int16(np.zeros(RATE, np.float32)), RATE),
        (int16(np.repeat(one, 3)), 48_000),
    ]


def test_the_embedding_of_long_audio_is_that_of_the_whole(voices: Voices) -> None:
    encoder = OnnxEncoder(1)
    for pcm, rate in changed(voices):
        whole, lazily = to_mono(as_pcm(pcm, rate), rate), LazyAudio(pcm, rate)
        if not vad.speech_mask(whole).any():
            continue
        np.testing.assert_array_equal(encoder.embed(lazily), encoder.embed(whole))
        np.testing.assert_array_equal(encoder.embed_batch([lazily])[0], encoder.embed_batch([whole])[0])


def test_the_quality_of_long_audio_is_that_of_the_whole(
    voices: Voices, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = changed(voices)
    expected = [assess(pcm, sample_rate=rate) for pcm, rate in calls]
    monkeypatch.setattr(lazy_audio, "LONG_S", 0.0)
    for (pcm, rate), before in zip(calls, expected, strict=True):
        now = assess(pcm, sample_rate=rate)
        assert now.level_dbfs == pytest.approx(before.level_dbfs, abs=1e-9)
        assert now.model_copy(update={"level_dbfs": before.level_dbfs}) == before


def test_audio_is_long_from_two_minutes_on() -> None:
    second = np.zeros(8_000, dtype=np.int16)
    assert isinstance(lazy_audio.samples(np.tile(second, 119), 8_000), np.ndarray)
    assert isinstance(lazy_audio.samples(np.tile(second, 120), 8_000), LazyAudio)


def test_speech_far_apart_is_read_without_what_lies_between(voices: Voices) -> None:
    pauses = np.zeros(60 * RATE, np.float32)
    parts = [part for audios in voices.values() for part in (audios[0][: 2 * RATE], pauses)]
    pcm = int16(np.concatenate(parts[:10]))
    asked: list[int] = []

    class Listening(LazyAudio):
        def __getitem__(self, part: slice) -> np.ndarray:
            read = super().__getitem__(part)
            asked.append(len(read))
            return read

    speech = TrimmedSpeech(Listening(pcm, RATE))
    assert len(speech) > 4 * RATE  # searched for now
    asked.clear()
    everything = speech.read(0, len(speech))
    assert len(everything) == len(speech)
    assert max(asked) <= 16 * RATE
    whole = to_mono(pcm, RATE)
    np.testing.assert_array_equal(everything, (whole * vad.volume_gain(whole))[vad.speech_mask(whole)])
