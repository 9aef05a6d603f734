from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from voiceprint.audio import load_audio
from voiceprint.errors import InvalidAudioError

TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [("wav", 1e-4), ("flac", 1e-4), ("ogg", 0.05), ("mp3", 0.05)]
)
def test_every_format_reads_back(tmp_path: Path, suffix: str, tolerance: float) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, TONE, 16000)
    for given in (path, str(path)):
        samples, rate = load_audio(given)
        assert rate == 16000
        assert samples.dtype == np.float32
        np.testing.assert_allclose(samples, TONE, atol=tolerance)


def test_channels_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([TONE, -TONE], axis=1), 44100)
    samples, rate = load_audio(path)
    assert samples.shape == (32000, 2)
    assert rate == 44100
    np.testing.assert_allclose(samples[:, 0], -samples[:, 1], atol=1e-4)


def test_a_recording_longer_than_a_block_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, np.tile(TONE[:16000], 150)[: 61 * 16000 + 5], 8000)
    assert len(load_audio(path)[0]) == 61 * 16000 + 5


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"tone.{suffix}"
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 32000)
    soundfile.write(path, noise, 16000)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InvalidAudioError, match=r"tone\." + suffix):
        load_audio(path)


def test_a_wav_from_a_pipe_with_no_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "piped.wav"
    soundfile.write(path, TONE, 16000)
    data = bytearray(path.read_bytes())
    start = data.index(b"data") + 4
    data[start : start + 4] = struct.pack("<I", 0xFFFFFFFF)
    data[4:8] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    assert len(load_audio(path)[0]) == len(TONE)


def test_a_missing_file_is_named_with_its_cause(tmp_path: Path) -> None:
    with pytest.raises(InvalidAudioError, match=r"gone\.wav.*No such file") as caught:
        load_audio(tmp_path / "gone.wav")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named_with_its_cause(tmp_path: Path) -> None:
    path = tmp_path / "locked.wav"
    soundfile.write(path, TONE, 16000)
    path.chmod(0)
    with pytest.raises(InvalidAudioError, match=r"locked\.wav.*[Pp]ermission") as caught:
        load_audio(path)
    assert isinstance(caught.value.__cause__, PermissionError)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidAudioError, match="directory"):
        load_audio(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(InvalidAudioError, match="not a regular file"):
        load_audio(tmp_path / "pipe.wav")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"hello, this is no audio at all" * 100, "not an audio file"),
        (b"RIFF\x24\0\0\0WAVE", "not an audio file"),
        (b"OggS", "truncated"),
        (b"fLaC" + bytes(200), "not an audio file"),
        (bytes(5000), "not an audio file"),
    ],
)
@pytest.mark.parametrize("name", ["x.wav", "x"])
def test_what_is_no_audio_is_refused(tmp_path: Path, content: bytes, says: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidAudioError, match=says) as caught:
        load_audio(path)
    assert name in str(caught.value)


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", TONE[:0], 16000)
    with pytest.raises(InvalidAudioError, match="no samples"):
        load_audio(tmp_path / "none.wav")


@pytest.mark.parametrize("rate", [4000, 96000])
def test_a_rate_out_of_range_is_refused(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "rate.wav", TONE, rate)
    with pytest.raises(InvalidAudioError, match=rf"rate\.wav.*{rate}"):
        load_audio(tmp_path / "rate.wav")


def test_too_many_channels_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "many.wav", np.zeros((100, 9)), 16000)
    with pytest.raises(InvalidAudioError, match="9 channels"):
        load_audio(tmp_path / "many.wav")


@pytest.mark.parametrize("path", [None, 3, b"bytes", "nul\0.wav", "", ["a"]])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(InvalidAudioError):
        load_audio(path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_flipped_bytes_give_audio_or_a_typed_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, TONE, 16000)
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(100):
        damaged = bytearray(whole)
        for position in rng.integers(0, min(len(whole), 4000), 5):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            samples, rate = load_audio(path)
        except InvalidAudioError:
            continue
        assert len(samples) > 0
        assert 8000 <= rate <= 48000
