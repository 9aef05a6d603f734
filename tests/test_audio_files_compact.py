"""Files read as the samples that they hold, in half the memory, and one channel of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from voiceprint import InvalidAudioError
from voiceprint.audio import load_audio, to_mono

RATE = 16_000
NOISE = np.random.default_rng(3).uniform(-1, 1, (RATE, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        ("wav", "PCM_U8"), ("wav", "PCM_16"), ("wav", "ULAW"), ("wav", "ALAW"),
        ("flac", "PCM_S8"), ("flac", "PCM_16"),
    ],
)  # fmt: skip
def test_samples_of_16_bits_or_less_stay_integers_of_the_same_value(
    tmp_path: Path, suffix: str, subtype: str
) -> None:
    path = tmp_path / f"noise.{suffix}"
    soundfile.write(path, NOISE, RATE, subtype=subtype)
    compact, rate = load_audio(path, compact=True)
    assert (compact.dtype, rate) == (np.int16, RATE)
    usual, _ = load_audio(path)
    assert usual.dtype == np.float32
    np.testing.assert_array_equal(compact / np.float32(32768), usual)
    np.testing.assert_array_equal(to_mono(compact, RATE), to_mono(usual, RATE))


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", "PCM_24"), ("ogg", None), ("mp3", None)],
)
def test_samples_that_16_bits_would_round_stay_floats(
    tmp_path: Path, suffix: str, subtype: str | None
) -> None:
    path = tmp_path / f"noise.{suffix}"
    soundfile.write(path, NOISE, RATE, subtype=subtype)
    compact, _ = load_audio(path, compact=True)
    assert compact.dtype == np.float32
    np.testing.assert_array_equal(compact, load_audio(path)[0])


@pytest.mark.parametrize(("suffix", "kind"), [("raw", np.int16), ("ul", np.int16)])
def test_files_without_a_header_are_read_so_too(tmp_path: Path, suffix: str, kind: type) -> None:
    path = tmp_path / f"noise.{suffix}"
    path.write_bytes(np.random.default_rng(4).integers(0, 256, 8_000, dtype=np.uint8).tobytes())
    compact, rate = load_audio(path, sample_rate=8_000, compact=True)
    assert compact.dtype == kind
    np.testing.assert_array_equal(to_mono(compact, rate, rate), load_audio(path, sample_rate=8_000)[0])


@pytest.mark.parametrize("compact", [False, True])
def test_one_channel_is_kept(tmp_path: Path, compact: bool) -> None:
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.tile(NOISE, (61, 1))[: 60 * RATE + 1], RATE)  # one sample in the second block
    both, _ = load_audio(path, compact=compact)  # type: ignore[call-overload]
    for channel in (0, 1):
        one, _ = load_audio(path, channel=channel, compact=compact)  # type: ignore[call-overload]
        assert one.dtype == both.dtype
        np.testing.assert_array_equal(one, both[:, channel])


def test_a_channel_that_is_not_there_is_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    stereo, mono, raw = tmp_path / "stereo.wav", tmp_path / "mono.wav", tmp_path / "line.ul"
    soundfile.write(stereo, NOISE, RATE)
    soundfile.write(mono, NOISE[:, 0], RATE)
    raw.write_bytes(bytes(8_000))
    for path, channel in ((stereo, 2), (stereo, -1), (mono, 1), (raw, 1)):
        with pytest.raises(InvalidAudioError, match=rf"{path.name}.*channel is {channel}"):
            load_audio(path, channel=channel)
    np.testing.assert_array_equal(load_audio(mono, channel=0)[0], load_audio(mono)[0])


HOUR = """
import re, sys
from pathlib import Path
import numpy as np, soundfile, voiceprint

def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

voiceprint.load_audio(sys.argv[2], compact=True)
idle = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
audio, _ = voiceprint.load_audio(sys.argv[1], compact=True, channel=1)
print(memory("VmHWM") - idle, audio.nbytes / 2**20)
"""


def test_a_long_file_takes_no_more_memory_than_what_is_kept_of_it(tmp_path: Path) -> None:
    long, short = tmp_path / "long.wav", tmp_path / "short.wav"
    soundfile.write(short, np.zeros((RATE, 2), np.int16), RATE)
    soundfile.write(long, np.zeros((1_800 * RATE, 2), np.int16), RATE)
    done = subprocess.run(
        [sys.executable, "-c", HOUR, str(long), str(short)],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    growth, samples_mb = map(float, done.stdout.split())
    assert samples_mb == pytest.approx(1_800 * RATE * 2 / 2**20)
    assert growth < samples_mb + 20
