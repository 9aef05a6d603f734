"""Calls for the tests of streaming: sample voices as a telephone line brings them, and how they are fed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import soxr
from voices import RATE, Audio, Voices

from voiceprint import CallStream, MemoryStorage, OpusAgentVoiceRecognizer, VoiceFingerprintConfig
from voiceprint.audio.io import g711

MULAW: dict[str, Any] = {"sample_rate": 8000, "encoding": "mulaw"}


def as_mulaw(audio: Audio) -> bytes:
    """16 kHz audio down a telephone line, 8000 bytes a second."""
    low = np.clip(soxr.resample(audio, RATE, 8000), -1.0, 1.0)
    return g711.encode(np.rint(low * 32767).astype(np.int16), "mulaw").tobytes()


def at_level(audio: Audio, dbfs: float) -> Audio:
    """The audio at an RMS level."""
    gain = 10 ** (dbfs / 20) / np.sqrt(np.mean(np.square(audio, dtype=np.float64)))
    return np.asarray(audio * gain, dtype=np.float32)


def with_pauses(audio: Audio) -> Audio:
    """3, 6 and 4 s of faint noise before, in and after it."""
    noise = np.random.default_rng(5).normal(0.0, 1e-4, 13 * RATE).astype(np.float32)
    half = len(audio) // 2
    before, within, after = np.split(noise, [3 * RATE, 9 * RATE])
    return np.concatenate((before, audio[:half], within, audio[half:], after))


def fed(session: CallStream, audio: Any, chunks: Iterable[int] | int) -> CallStream:
    """Feed it all, in chunks of so many items, over and over."""
    sizes = [chunks] if isinstance(chunks, int) else [*chunks]
    first = turn = 0
    while first < len(audio):
        size = sizes[turn % len(sizes)]
        session.feed(audio[first : first + size])
        first, turn = first + size, turn + 1
    return session


def enrolled(voices: Voices, callers: Iterable[str]) -> OpusAgentVoiceRecognizer:
    """A recognizer that knows these callers by their first utterance."""
    # The tests play the same recordings again and again.
    config = VoiceFingerprintConfig(same_recording=False)
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config)
    for caller in callers:
        recognizer.enroll_caller(caller, voices[caller][0], {"name": caller.title()})
    return recognizer
