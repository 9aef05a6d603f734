"""Buffers as callers of the library give them: files' bytes, interleaved channels, floats over full scale."""

from __future__ import annotations

from typing import Any

import field_files as field
import numpy as np
import pytest

from voiceprint.audio import as_pcm, duration, to_mono
from voiceprint.audio.io import g711, scale
from voiceprint.audio.io.buffers import rate_of
from voiceprint.audio.io.encodings import refuse_file
from voiceprint.errors import InvalidAudioError

VOICE = field.voice()
FILES = {
    "WAV": field.wav,
    "RF64": lambda: field.rf64(0),
    "AIFF": field.aiff,
    "CAF": lambda: field.caf(-1),
    "FLAC": lambda: field.written("FLAC"),
    "OGG": lambda: field.written("OGG", "OPUS"),
    "MP3": lambda: field.id3(b"cover") + field.mp3(),
    "MP4": lambda: b"\0\0\0\x1cftypM4A \0\0\2\0" + bytes(100),
    "Matroska": lambda: b"\x1a\x45\xdf\xa3" + bytes(100),
    "AMR": lambda: b"#!AMR\n" + bytes(100),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("encoding", ["pcm", "mulaw", "pcm_u8"])
def test_the_bytes_of_a_file_are_refused_as_samples(name: str, encoding: Any) -> None:
    data = FILES[name]()
    data = data[: len(data) // 2 * 2]
    for buffer in (data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)):
        how = {} if isinstance(buffer, np.ndarray) and encoding == "pcm_u8" else {"encoding": encoding}
        with pytest.raises(InvalidAudioError, match=f"this is {name}: use load_audio"):
            to_mono(buffer, 8000, **how)
    with pytest.raises(InvalidAudioError, match="use load_audio"):
        to_mono(np.frombuffer(data, "<i2"), 8000)


def test_samples_are_no_file_and_a_later_chunk_is_not_looked_at() -> None:
    to_mono(VOICE.tobytes(), 8000)
    for law in ("mulaw", "alaw"):
        to_mono(g711.encode(VOICE, law).tobytes(), 8000, encoding=law)  # type: ignore[arg-type]
    refuse_file(b"RIFF")  # too little to say
    with pytest.raises(InvalidAudioError, match="this is WAV"):
        refuse_file(field.wav()[:100])


def test_the_rate_of_g711_is_that_of_telephones() -> None:
    assert [rate_of(None, name) for name in ("mulaw", "alaw", "pcm", "pcm_f32le")] == [
        8000,
        8000,
        16000,
        16000,
    ]
    assert rate_of(16000.0, "mulaw") == 16000
    with pytest.raises(InvalidAudioError, match="encoding must be"):
        rate_of(None, "ulaw")  # type: ignore[arg-type]
    with pytest.raises(InvalidAudioError, match="sample_rate must be"):
        rate_of("8000", "mulaw")


def test_interleaved_channels_of_bytes_are_taken_apart() -> None:
    left, right = VOICE, np.roll(VOICE, 4000)
    frames = np.stack([left, right], axis=1)
    for buffer in (frames.tobytes(), frames.reshape(-1), frames):
        np.testing.assert_array_equal(to_mono(buffer, 8000, 8000, channels=2), to_mono(frames, 8000, 8000))
        for channel, one in enumerate((left, right)):
            taken = to_mono(buffer, 8000, 8000, channel=channel, channels=2)
            np.testing.assert_array_equal(taken, to_mono(one, 8000, 8000))
        np.testing.assert_array_equal(as_pcm(buffer, 8000, channels=2), frames)
        assert duration(buffer, 8000, channels=2) == len(VOICE) / 8000
    codes = g711.encode(frames, "mulaw")
    expected = to_mono(codes, 8000, 8000, encoding="mulaw")
    np.testing.assert_array_equal(
        to_mono(codes.tobytes(), 8000, 8000, encoding="mulaw", channels=2), expected
    )
    # One frame of eight channels is not one channel of eight samples.
    assert to_mono(np.arange(8, dtype=np.int16).tobytes(), 8000, 8000, channels=8).shape == (1,)


@pytest.mark.parametrize(
    ("buffer", "channels", "says"),
    [
        (bytes(6), 2, "not a whole number of frames of 2 channels"),
        (np.zeros((100, 2)), 3, "has 2 channels, and not 3"),
        (bytes(100), 9, "channels must be 1 to 8, not 9"),
        (bytes(100), 0, "channels must be"),
        (bytes(100), "2", "channels must be 1 to 8, not str"),
        (bytes(100), True, "channels must be"),
    ],
)
def test_channels_that_cannot_be_are_refused(buffer: Any, channels: Any, says: str) -> None:
    for function in (to_mono, as_pcm, duration):
        with pytest.raises(InvalidAudioError, match=says):
            function(buffer, 8000, channels=channels)


@pytest.mark.parametrize("peak", [1.26, 2.0, 8.0, 31.9])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floats_over_full_scale_are_scaled_down_as_a_whole(peak: float, kind: type) -> None:
    loud = (VOICE / np.abs(VOICE).max() * peak).astype(kind)
    np.testing.assert_allclose(to_mono(loud, 8000, 8000), loud / peak, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (VOICE.astype(np.float32), "look like int16 values"),
        (VOICE / 7.3, "look like int16 values"),  # quiet, and resampled
        (np.rint(VOICE / 3000), "look like int16 values"),  # very quiet: whole numbers, to 8
        (VOICE * 65536.0, "scale it"),
    ],
)
def test_integers_given_as_floats_are_refused(values: Any, says: str) -> None:
    with pytest.raises(InvalidAudioError, match=says):
        to_mono(values, 8000)


def test_the_level_of_parts_is_that_of_the_whole() -> None:
    for samples in (
        VOICE / 1000.0,
        np.rint(VOICE / 1000),
        np.array([0.1, np.nan, 3.5]),
        np.array([np.inf, 0.5]),
    ):
        parts = [scale.level(part) for part in np.array_split(samples, 3)]
        joined = scale.Level(0.0, True)
        for part in parts:
            joined = scale.combine(joined, part)
        np.testing.assert_equal(joined.peak, scale.level(samples).peak)
        if np.isfinite(joined.peak):
            assert joined.integral == scale.level(samples).integral
