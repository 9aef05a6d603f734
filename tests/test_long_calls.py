"""Calls of up to an hour: the same answer as that of a part, in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from voices import SAMPLES, Voices

from voiceprint.audio import assess, to_mono
from voiceprint.audio.io import buffers
from voiceprint.audio.quality import clipping
from voiceprint.audio.speech import vad

pytestmark = pytest.mark.slow

MOST_MB = 200

HOUR = f"""
import re, sys
from pathlib import Path
import numpy as np, voiceprint
from voiceprint.audio.io import g711

def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

audio, rate = voiceprint.load_audio({str(SAMPLES / "amara" / "1.flac")!r})
recognizer = voiceprint.OpusAgentVoiceRecognizer(voiceprint.MemoryStorage())
recognizer.enroll_caller("amara", audio)
codes = (np.pad(audio, (0, 9 * len(audio))) * 32767).astype("<i2")  # pauses, so that it does not take as long
encoding = sys.argv[1]
if encoding == "mulaw":
    codes, rate = g711.encode(codes[::2], "mulaw"), rate // 2
hour = np.resize(codes, 3600 * rate).tobytes()
if encoding == "stereo":
    hour = np.stack([np.frombuffer(hour, "<i2")] * 2, axis=1)
    encoding = "pcm"
given = dict(sample_rate=rate, encoding=encoding)
recognizer.identify(hour[: len(hour) // 60], **given)
idle = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
(match,) = recognizer.identify(hour, **given)
print(memory("VmHWM") - idle, match.similarity)
"""


@pytest.mark.parametrize("encoding", ["pcm", "mulaw", "stereo"])
def test_an_hour_is_identified_in_200_mb_beside_the_buffer_it_came_in(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOUR, encoding],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    growth, similarity = map(float, done.stdout.split())
    assert growth < MOST_MB
    assert similarity > 0.8


@pytest.mark.parametrize("block", [1, 2, 7])
def test_the_quality_does_not_depend_on_where_blocks_end(
    monkeypatch: pytest.MonkeyPatch, voices: Voices, block: int
) -> None:
    audios = [audios[0] for audios in voices.values()]
    audios += [np.clip(20 * audio, -0.5, 0.4) for audio in audios[:4]]  # with runs over most borders
    expected = [assess(audio) for audio in audios]
    assert sum(one.clipping > 0.01 for one in expected) >= 4
    monkeypatch.setattr(clipping, "BLOCK", block * vad.WINDOW)
    monkeypatch.setattr(vad, "BLOCK", block * vad.WINDOW)
    for audio, before in zip(audios, expected, strict=True):
        now = assess(audio)
        assert now.level_dbfs == pytest.approx(before.level_dbfs, abs=1e-9)
        assert now.model_copy(update={"level_dbfs": before.level_dbfs}) == before


def test_short_runs_at_the_border_of_two_blocks_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipping, "BLOCK", 100)
    for start in range(90, 110):
        for length in (2, 3, 4, 150):
            audio = np.full(400, 0.1, dtype=np.float32)
            audio[start : start + length] = 0.5
            assert clipping.flat_tops(audio, 16_000) == (length if length >= 3 else 0) / 400
            assert clipping.flat_tops(-audio, 16_000) == (length if length >= 3 else 0) / 400


def test_assessing_leaves_the_buffer_as_it_was(voices: Voices) -> None:
    audio = voices["amara"][0].copy()
    before = audio.copy()
    assess(audio)
    np.testing.assert_array_equal(audio, before)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.float32, ">f8"])
@pytest.mark.parametrize("shape", [(1000,), (1000, 2), (3, 1000)])
def test_conversion_does_not_depend_on_where_blocks_end(
    monkeypatch: pytest.MonkeyPatch, dtype: str, shape: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).uniform(-1, 1, shape)
    kind = np.dtype(dtype)
    if kind.kind != "f":
        values = values * 2.0 ** (8 * kind.itemsize - 1) * 0.99 + (128 if kind.kind == "u" else 0)
    samples = values.astype(kind)
    expected = to_mono(samples, 16_000)
    monkeypatch.setattr(buffers, "_BLOCK", 7)
    np.testing.assert_array_equal(to_mono(samples, 16_000), expected)
