"""Whether the channels of a recording hold different sounds, as those of a call do: agent and caller.

Mixed, two voices give an embedding that is neither's. Channels that hold one voice must not be told
apart: copies at another level or polarity, through a codec or a telephone line, or two microphones.

The rule. Each channel is taken to energies of 20 bands between 100 and 3800 Hz every 16 ms (see
`voiceprint.audio.quality.spectrum`). A channel counts if it is at most 50 dB under the loudest and its
spectrum changes as that of speech or music does, and not of line noise: variety over 3.8 dB. Of any
two that count, the amplitudes of each band are correlated over time (Pearson), pooled over bands by
their energy, at the best of delays up to 48 ms. Below 0.7 the two differ. Levels, filters and delays
change a correlation of band amplitudes little, and unlike a coherence it bears echoes.

Measured on 1 to 10 s of LibriSpeech: one voice through a telephone line, in 10 dB of noise, in two
rooms or 60 ms later, at least 0.69 and in the mean 0.9; two voices at once or in turn at most 0.41,
where each leaks into the other's channel at -12 dB at most 0.7. Leaking at -6 dB they pass as one; so
do two voices in as much noise as to hide their changes (from 10 dB, a third of them), and a second
voice in less than a twentieth of the time.
"""

from __future__ import annotations

import logging
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io import buffers
from voiceprint.audio.quality import spectrum

logger = logging.getLogger(__name__)

MIXED: Final = (
    "The channels of the audio differ, and were mixed: on a call these are two voices, and the answer "
    "may be about neither. Choose one with channel=."
)

_ALIKE: Final = 0.7
_LEAST_VARIETY_DB: Final = 3.8
_QUIETEST: Final = 1e-5  # of the power of the loudest channel: -50 dB
_SILENCE: Final = 1e-9  # energy of a frame, that of an amplitude of some 1e-7
_LAGS: Final = 3  # frames of 16 ms, to either side
_SHORTEST_S: Final = 0.5  # less says nothing of a voice anyway
_BLOCK_S: Final = 60  # bounds the memory for an hour of audio


def channels_differ(audio_buffer: npt.NDArray[Any], sample_rate: int) -> bool:
    """Whether two channels of an array hold different sounds, by the rule above.

    Args:
        audio_buffer: an array as for `to_mono`; with one channel, or less than 0.5 s, never.
        sample_rate: Hz in 8000..48000.

    Raises:
        InvalidAudioError: the buffer or its sample rate cannot be used.
    """
    rows = buffers.channels(audio_buffer, sample_rate)
    if len(rows[0]) < _SHORTEST_S * sample_rate:
        return False
    # Most stereo files are one channel twice.
    rows = [row for place, row in enumerate(rows) if not place or not np.array_equal(row, rows[0])]
    if len(rows) < 2:
        return False
    with np.errstate(all="ignore"):  # the state is the caller's; with "raise" an underflow would escape
        energies = [_energies(row, sample_rate) for row in rows]
        loud = [float(np.percentile(each.sum(axis=1), 95)) for each in energies]
        least = max(max(loud) * _QUIETEST, _SILENCE)
        counting = [
            np.sqrt(each)
            for each, level in zip(energies, loud, strict=True)
            if level > least and spectrum.variety(spectrum.active_frames(each)) > _LEAST_VARIETY_DB
        ]
        return any(_likeness(one, other) < _ALIKE for one, other in combinations(counting, 2))


def warn_if_mixed(audio_buffer: npt.NDArray[Any], sample_rate: int) -> None:
    """Log a warning where channels that differ are about to be mixed; raises as `channels_differ`."""
    if channels_differ(audio_buffer, sample_rate):
        logger.warning(MIXED)


def _energies(row: npt.NDArray[Any], sample_rate: int) -> spectrum.Floats:
    """Band energies float32[t, 20] of one channel."""
    block = _BLOCK_S * int(sample_rate)
    least = int(_SHORTEST_S * sample_rate)  # a shorter rest is not worth a block
    return np.concatenate(
        [
            spectrum.band_energies(buffers.to_mono(row[start : start + block], sample_rate))[0]
            for start in range(0, len(row) - least + 1, block)
        ]
    )


def _likeness(one: spectrum.Floats, other: spectrum.Floats) -> float:
    """The correlation of band amplitudes float32[t, f] over time, at the best of the delays; -1..1."""
    frames = min(len(one), len(other))
    best = -1.0
    for lag in range(-_LAGS, _LAGS + 1):
        a = one[max(0, lag) : frames + min(0, lag)]
        b = other[max(0, -lag) : frames + min(0, -lag)]
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        shared = np.einsum("tf,tf->f", a, b, dtype=np.float64)
        size = np.sqrt(
            np.square(a).sum(axis=0, dtype=np.float64) * np.square(b).sum(axis=0, dtype=np.float64)
        )
        best = max(best, float(shared.sum() / max(size.sum(), 1e-30)))
    return best
