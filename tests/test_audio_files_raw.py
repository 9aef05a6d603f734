"""Files of telephones and recorders: WAV of every sample format, and files without a header."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from raw_audio import SUBTYPES, every_encoding, raw

from voiceprint.audio import Encoding, load_audio
from voiceprint.audio.io import g711
from voiceprint.errors import InvalidAudioError

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)

# How far a sample format is from what was written: a step and the scale, 1/128 or 1/127 and so on.
FORMATS = {
    "ULAW": 0.016, "ALAW": 0.016, "PCM_U8": 0.01, "PCM_16": 6e-5, "PCM_24": 3e-7, "PCM_32": 1e-7,
    "FLOAT": 1e-7, "DOUBLE": 1e-7,
}  # fmt: skip


@pytest.mark.parametrize("subtype", FORMATS)
@pytest.mark.parametrize("rate", [8000, 44100])
def test_wav_of_every_sample_format_is_read(tmp_path: Path, subtype: str, rate: int) -> None:
    soundfile.write(tmp_path / "tone.wav", TONE, rate, subtype=subtype)
    samples, read_rate = load_audio(tmp_path / "tone.wav")
    assert (read_rate, samples.dtype, samples.shape) == (rate, np.float32, TONE.shape)
    np.testing.assert_allclose(samples, TONE, atol=FORMATS[subtype])


@pytest.mark.parametrize(("law", "subtype"), [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_g711_in_a_wav_is_g711_in_a_buffer(tmp_path: Path, law: g711.Law, subtype: str) -> None:
    codes = np.arange(256, dtype=np.uint8)
    soundfile.write(tmp_path / "codes.wav", g711.decode(codes, law), 8000, subtype=subtype)
    np.testing.assert_array_equal(load_audio(tmp_path / "codes.wav")[0], g711.decode(codes, law) / 32768)


@pytest.mark.skipif(shutil.which("sox") is None, reason="sox is not installed")
@pytest.mark.parametrize("law", ["u-law", "a-law"])
def test_a_stereo_g711_wav_of_sox_keeps_its_channels(tmp_path: Path, law: str) -> None:
    path = tmp_path / "call.wav"
    command = [
        "sox",
        "-n",
        "-r",
        "8000",
        "-c",
        "2",
        "-e",
        law,
        path,
        "synth",
        "1",
        "sine",
        "440",
        "sine",
        "880",
    ]
    subprocess.run(command, check=True)
    samples, rate = load_audio(path)
    assert (samples.shape, rate) == ((8000, 2), 8000)
    assert [int(np.argmax(np.abs(np.fft.rfft(channel)))) for channel in samples.T] == [440, 880]


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("a.ul", "mulaw"),
        ("a.ULAW", "mulaw"),
        ("a.al", "alaw"),
        ("a.alaw", "alaw"),
        ("a.raw", "pcm"),
        ("a.pcm", "pcm"),
    ],
)
def test_a_file_without_a_header_is_what_its_suffix_says(
    tmp_path: Path, name: str, encoding: Encoding
) -> None:
    (tmp_path / name).write_bytes(raw(TONE, encoding))
    given: dict[str, Any] = {"sample_rate": 8000} if encoding == "pcm" else {}
    samples, rate = load_audio(tmp_path / name, **given)
    assert rate == 8000
    np.testing.assert_allclose(samples, TONE, atol=0.016)
    assert load_audio(tmp_path / name, sample_rate=16_000)[1] == 16_000


@every_encoding
def test_a_file_without_a_header_is_read_as_it_is_told(tmp_path: Path, encoding: Encoding) -> None:
    for name in ("a.raw", "a.ul"):
        (tmp_path / name).write_bytes(raw(TONE, encoding))
        samples, rate = load_audio(str(tmp_path / name), encoding=encoding, sample_rate=24_000)
        assert (rate, samples.dtype) == (24_000, np.float32)
        np.testing.assert_allclose(samples, TONE, atol=FORMATS[SUBTYPES[encoding]])


def test_a_header_wins_over_what_is_told(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.wav", TONE, 16_000)
    samples, rate = load_audio(tmp_path / "tone.wav", encoding="mulaw", sample_rate=8000)
    assert rate == 16_000
    np.testing.assert_allclose(samples, TONE, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "how", "says"),
    [
        ("a.raw", b"\0\0", {}, r"a\.raw has no header .*sample_rate"),
        ("a.pcm", b"\0\0", {"encoding": "pcm_u8"}, "sample_rate"),
        ("a.ul", b"\0\0", {"encoding": "pcm_s16le"}, "sample_rate"),
        ("a.raw", b"\0\0\0", {"sample_rate": 8000}, r"a\.raw as pcm: audio of 3 bytes"),
        ("a.ul", b"\0\0\0", {"encoding": "pcm_s24le", "sample_rate": 7999}, "7999"),
        ("a.ul", b"", {}, "is empty"),
        ("a.ul", b"\0", {"encoding": "ulaw"}, "encoding must be one of"),
        ("a.wav", b"\0", {"encoding": "ulaw"}, "encoding must be one of"),
        ("a.raw", b"\0\0", {"sample_rate": "8000"}, "whole number"),
    ],
)
def test_a_file_without_a_header_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, name: str, content: bytes, how: dict[str, Any], says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidAudioError, match=says):
        load_audio(tmp_path / name, **how)


def test_an_endless_file_without_a_header_is_refused_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "long.ul").open("wb") as file:
        file.truncate(10**12)  # sparse: takes no room
    with pytest.raises(InvalidAudioError, match=r"long\.ul as mulaw: lasts .* at most 3600 s"):
        load_audio(tmp_path / "long.ul")
