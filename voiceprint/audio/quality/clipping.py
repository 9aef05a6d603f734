"""Clipping: flat tops of the waveform, and amplitudes that crowd below the peak as in no natural voice."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io.lazy_audio import Samples, blocks
from voiceprint.audio.quality.score_curves import interpolate
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.audio.speech.vad import BLOCK

_FLAT: Final = 0.985  # of the extreme: samples beyond belong to a flat top if their neighbors do
_NEAR_PEAK: Final = 0.7  # of the peak
_SAMPLED: Final = 32_000  # samples, two seconds: enough for the shares of all
_CROWDING: Final = ((0.38, 0.0), (0.58, 1.0))


def flat_tops(audio: Samples, rate: int) -> float:
    """Share of samples in runs at the positive or the negative extreme, whatever its level, 0..1.

    A run is three samples at 16 kHz, wider than most peaks of unclipped speech; at 8 kHz, two.
    """
    width = 3 if rate >= 12000 else 2
    extremes = [(float(block.min()), float(block.max())) for block in blocks(audio, BLOCK)]
    lowest, highest = min(low for low, _ in extremes), max(high for _, high in extremes)
    flat = 0
    for start in range(0, len(audio), BLOCK):
        # With neighbors: a run may cross the border of two blocks.
        before = min(start, width - 1)
        block = audio[start - before : start + BLOCK + width - 1]
        for at_top, reached in (
            (block >= _FLAT * highest, highest > 0.0),
            (block <= _FLAT * lowest, lowest < 0.0),
        ):
            if reached:
                flat += int(_in_runs(at_top, width)[before : before + BLOCK].sum())
    return flat / len(audio)


def _in_runs(flags: npt.NDArray[np.bool_], width: int) -> npt.NDArray[np.bool_]:
    """The flags that are set in a run of at least `width`."""
    padded: npt.NDArray[np.bool_] = np.pad(flags, width)
    starts = padded[: len(padded) - width + 1].copy()
    for shift in range(1, width):
        starts &= padded[shift : shift + len(starts)]
    inside: npt.NDArray[np.bool_] = starts.copy()
    for shift in range(1, width):
        inside[shift:] |= starts[: len(starts) - shift]
    return inside[width : width + len(flags)]


def amplitude_crowding(speech: TrimmedSpeech, samples: int) -> float:
    """Share of samples near the peak, weighted by their excess density there over a natural voice, 0..1.

    Filters and resampling after clipping make the flat tops wavy, but leave the samples crowded there: of
    those over half of the near-peak level, 10 to 30 % are near the peak in speech, and 40 to 80 % in speech
    that was clipped hard. The peak is a percentile, as ripples rise over the flat top.

    samples: of all `speech.blocks()`.
    """
    every = max(1, samples // _SAMPLED)
    amplitudes = np.concatenate([np.abs(block[::every]) for block in speech.blocks()])
    rank = round(0.995 * (len(amplitudes) - 1))
    peak = float(np.partition(amplitudes, rank)[rank])
    near = float((amplitudes > _NEAR_PEAK * peak).mean())
    half = float((amplitudes > _NEAR_PEAK / 2 * peak).mean())
    return near * interpolate(near / max(half, 1e-9), _CROWDING)
