"""Classification of single seconds of audio: speech, tone, music, noise or silence.

The measures are those of `voiceprint.audio.quality.spectrum`, computed per second: the spectrum of speech
varies and occupies many bands, its level is modulated, and its harmonics move.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from voiceprint.audio.speech.spectrogram import FRAMES, Floats, Rows
from voiceprint.audio.speech.tones import tonal_rows

Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int8]

SPEECH, TONE, MUSIC, NOISE, SILENCE = range(5)
PERHAPS_MUSIC: Final = 5
"""Too stationary for most speech: music only beside music."""

STEP: Final = 4
"""Rows of 60 ms from one decision to the next, 0.24 s."""
SPAN: Final = 16
"""Rows per decision, 0.96 s."""

_BATCH: Final = 24  # decisions: arrays over 128 KiB are slow, see `Spectrogram`
_SILENCE_DB: Final = -35.0  # energy of the loudest frame: noise of -80 dBFS
_MIN_VARIATION_DB: Final = 2.2  # steady noise has 1.2, speech 5 dB over noise at least 2.5
_MIN_OCCUPANCY: Final = 0.25  # share of bands: a gliding tone has less
_MIN_MODULATION_DB: Final = 1.2
# Share of rows. Quick melodies over a telephone have at least 0.28, like 0.3 % of children's speech and fewer
# of adults'.
_MUSIC_STATIONARITY: Final = 0.27
_NEAR_MUSIC: Final = 0.15  # exceeded by 1 % to 4 % of speech
_STATIONARY: Final = 0.75  # correlation of harmonics 60 ms apart
_PRIOR_ROWS: Final = 3
_ACTIVE: Final = np.float32(10**-2.5)  # measured are frames down to 25 dB below the loud ones
_EMPTY_BAND: Final = np.float32(1e-5)  # of the frame: -50 dB
_MIN_ACTIVE: Final = 5  # frames, 0.1 s
_TINY: Final = np.float32(1e-20)


def classify(rows: Rows, start: int, count: int, span: int = SPAN) -> Codes:
    """The kinds, int8[count], of stretches of `span` rows, one every `STEP` rows from row `start` on."""
    batches = [
        _classify_batch(rows, start + first * STEP, min(_BATCH, count - first), span)
        for first in range(0, count, _BATCH)
    ]
    return np.concatenate(batches)


def _classify_batch(rows: Rows, start: int, count: int, span: int) -> Codes:
    stop = start + (count - 1) * STEP + span
    tonal = _seconds(tonal_rows(rows, start, stop), span)
    tones = tonal.copy()  # and adjacent rows, which a tone may fill in part
    tones[:, 1:] |= tonal[:, :-1]
    tones[:, :-1] |= tonal[:, 1:]
    with np.errstate(all="ignore"):  # a caller's "raise" would turn underflow into an error
        stationarity = _stationarity(
            _seconds(rows.harmonic_correlation[start:stop], span),
            _seconds(rows.harmonic_power[start:stop], span),
            tones,
        )
        return _kinds(rows.bands[start:stop].reshape(-1, rows.bands.shape[2]), tones, stationarity)


Scalar = TypeVar("Scalar", bound=np.generic)


def _seconds(values: npt.NDArray[Scalar], span: int, step: int = STEP) -> npt.NDArray[Scalar]:
    """Stretches of `span` values [t, ...], one every `step`: [k, span, ...]."""
    windows = np.lib.stride_tricks.sliding_window_view(values, span, axis=0)[::step]
    return np.moveaxis(windows, -1, 1)


def _stationarity(correlation: Floats, power: Floats, tones: Flags) -> npt.NDArray[np.float64]:
    """Share, float64[k], of the louder rows [k, span] whose harmonics correlate with those 60 ms before."""
    lesser = np.minimum(power[:, 1:], power[:, :-1]) * ~(tones[:, 1:] | tones[:, :-1])
    counted = lesser > lesser.max(axis=1, keepdims=True) * np.float32(1e-3)
    # Prior rows of speech: without them, a single vowel beside a tone would be music.
    stationary = ((correlation[:, 1:] > _STATIONARY) & counted).sum(axis=1)
    return np.asarray(stationary / (counted.sum(axis=1) + _PRIOR_ROWS), dtype=np.float64)


def _kinds(frames: Floats, tones: Flags, stationarity: npt.NDArray[np.float64]) -> Codes:
    """Kinds of k seconds by energies of frames [t, 20], tones [k, span] and harmonic stationarity [k]."""
    length = tones.shape[1] * FRAMES
    usable = ~np.repeat(tones, FRAMES, axis=1)
    level = _seconds(frames.sum(axis=1), length, STEP * FRAMES) * usable
    loud = _third_highest(level)
    # Averaged over 60 ms: reduces the chance of noise, and preserves syllables.
    smoothed = frames[2:] + frames[1:-1] + frames[:-2]
    usable = usable[:, 2:] & usable[:, 1:-1] & usable[:, :-2]
    total = smoothed.sum(axis=1)
    shape = np.log10(smoothed + (total * _EMPTY_BAND + _TINY)[:, None])
    shape -= shape.mean(axis=1, keepdims=True)
    levels = _seconds(total, length - 2, STEP * FRAMES) * usable
    top = _third_highest(levels)
    active = (levels > (top * _ACTIVE + _TINY)[:, None]).astype(np.float32)
    number = np.maximum(active.sum(axis=1), 1.0)
    mean, square = (
        np.einsum("kt,ktf->kf", active, _seconds(values, length - 2, STEP * FRAMES)) / number[:, None]
        for values in (shape, np.square(shape))
    )
    variation = 10.0 * np.sqrt(np.maximum(square - mean * mean, 0.0)).mean(axis=1)
    level_db = 10.0 * np.log10(levels + (top * _EMPTY_BAND + _TINY)[:, None])
    counted = np.maximum(usable.sum(axis=1), 1)[:, None]
    level_db -= (level_db * usable).sum(axis=1, keepdims=True) / counted
    modulation = np.sqrt((np.square(level_db) * usable).sum(axis=1) / counted[:, 0])
    kinds = np.full(len(tones), SPEECH, dtype=np.int8)
    kinds[(variation < _MIN_VARIATION_DB) | (modulation < _MIN_MODULATION_DB)] = NOISE
    occupancy = _band_occupancy(_seconds(frames, length, STEP * FRAMES), level, loud)
    kinds[occupancy < _MIN_OCCUPANCY] = TONE
    kinds[(kinds == SPEECH) & (stationarity > _NEAR_MUSIC)] = PERHAPS_MUSIC
    kinds[stationarity > _MUSIC_STATIONARITY] = MUSIC
    kinds[10.0 * np.log10(loud + _TINY) < _SILENCE_DB] = SILENCE
    # Tones only: `tones.tone_rows` detects them, and the gaps between them are silent.
    kinds[number < _MIN_ACTIVE] = SILENCE
    return kinds


def _third_highest(levels: Floats) -> Floats:
    """The third highest level of each second: a click must not set the level."""
    return np.asarray(np.partition(levels, -3, axis=1)[:, -3])


def _band_occupancy(frames: Floats, level: Floats, loud: Floats) -> Floats:
    """`spectrum.Spectrum.band_occupancy` of each second of frames [k, t, 20], float32[k]."""
    tenth = frames.shape[1] // 10
    floor = np.float32(3.0) * np.partition(frames, tenth, axis=1)[:, tenth, None]
    excess = np.maximum(frames - floor, np.float32(0.0))
    excess *= (level > (loud * _ACTIVE + _TINY)[:, None])[:, :, None]
    threshold = excess.max(axis=2, keepdims=True) * np.float32(1e-3)
    occupied = excess > np.maximum(threshold, _TINY)
    counted = occupied | ((floor < threshold) & (threshold > 0.0))
    return np.asarray(occupied.sum(axis=(1, 2)) / np.maximum(counted.sum(axis=(1, 2)), 1), dtype=np.float32)
