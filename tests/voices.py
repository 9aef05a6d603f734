"""The sample callers for tests, and a small encoder that tells them apart in a fraction of the time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceprint import (
    EncoderError,
    VoiceFingerprintConfig,
    Voiceprint,
    VoiceprintError,
    load_audio,
)

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "examples" / "voices"
RATE = 16_000

Audio = NDArray[np.float32]
Voices = dict[str, list[Audio]]


def load_voices(folder: Path = SAMPLES) -> Voices:
    """The utterances, float32[n] at 16 kHz, of every caller: `voices["amara"][0]` is amara/1.flac."""
    voices: Voices = {}
    for file in sorted(folder.glob("*/*.flac")):
        audio, rate = load_audio(file)
        assert rate == RATE, file
        voices.setdefault(file.parent.name, []).append(audio)
    return voices


def real_speech() -> Path:
    """The folder of real speech: that of VOICE_TEST_DATA, or `shared/data` beside the checkout."""
    named = os.environ.get("VOICE_TEST_DATA")
    return Path(named) if named else ROOT.parent / "shared" / "data"


def saved(result: Voiceprint | VoiceprintError) -> Voiceprint:
    """An enrollment that is expected to have succeeded."""
    assert isinstance(result, Voiceprint), result
    return result


def by_cosine(**settings: Any) -> VoiceFingerprintConfig:
    """Settings by which a cosine of 0.75 decides in the space of `BandEncoder` too."""
    return VoiceFingerprintConfig(**{"similarity_threshold": 0.75, **settings})


class BandEncoder:
    """A second real encoder: how the energy of the speech spreads over 32 bands, around the mean.

    It knows voices by their timbre alone, which is enough for the sample callers.
    """

    name = "test-bands"
    dimension = 32
    sample_rate = RATE

    def warm_up(self) -> None:
        """As `Encoder.warm_up`: there is nothing to load."""

    def embed(self, audio: Audio) -> NDArray[np.float32]:
        """As `Encoder.embed`."""
        if len(audio) < RATE // 10 or not audio.any():
            raise EncoderError("The audio holds no speech to embed.")
        power = np.abs(np.fft.rfft(audio.astype(np.float64))) ** 2
        edges = np.geomspace(100, 7_800, self.dimension + 1) * len(audio) / RATE
        starts = edges[:-1].astype(int)
        bands = np.log(np.add.reduceat(power[: int(edges[-1])], starts) / np.diff(edges) + 1e-9)
        bands -= bands.mean()
        unit: Any = (bands / np.linalg.norm(bands)).astype(np.float32)
        return unit

    def embed_batch(self, audios: Sequence[Audio]) -> NDArray[np.float32]:
        """As `Encoder.embed_batch`."""
        return np.stack([self.embed(audio) for audio in audios])
