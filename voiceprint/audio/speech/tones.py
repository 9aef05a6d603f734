"""Detection of tones: beeps, keys, ring-back, busy and dial tones.

Three rules detect keys of 50 ms, beeps of 80 ms between silence, and tones or pairs of tones of 0.3 s, 15 dB
over noise; no vowel in 1,160 recordings of speech meets them:

    long tones   0.9 of the power in two peaks, and the same spectrum as 60 ms before, for 0.24 s
    keys         0.85 of the power in two peaks at the frequencies of DTMF (ITU-T Q.23), for 40 ms
    beeps        0.95 of the power in one peak of constant frequency and level, and 15 dB less on both sides
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from voiceprint.audio.speech.runs import true_runs
from voiceprint.audio.speech.spectrogram import FRAMES, Rows

Flags = npt.NDArray[np.bool_]

_PAIR: Final = 0.9
_SIMILAR: Final = 0.98
_LONG_TONE: Final = 4  # rows
# No telephone tone is lower, but long vowels of children have all their power in one harmonic there.
_LOWEST_HZ: Final = 330.0
_TOLERANCE_HZ: Final = 20.0
_KEY_ROWS: Final = (697.0, 770.0, 852.0, 941.0)
_KEY_COLUMNS: Final = (1209.0, 1336.0, 1477.0, 1633.0)
_KEY_SHARE: Final = 0.85
_KEY_TOLERANCE: Final = 0.02
_KEY_FRAMES: Final = 2
_BEEP_SHARE: Final = 0.95
_BEEP_STEP: Final = 0.003  # relative change of a beep's frequency from frame to frame
_BEEP_LEVEL_DB: Final = 1.0
_BEEP_EDGE_DB: Final = 15.0
_BEEP_FRAMES: Final = 2  # after the first
_TINY: Final = 1e-20


def tone_rows(rows: Rows) -> Flags:
    """Rows that tones cover, bool[r]."""
    count = len(rows.harmonic_correlation)
    covered = np.zeros(count, dtype=np.bool_)
    for start, stop in true_runs(_constant_rows(rows, 0, count), _LONG_TONE):
        covered[_extend(rows, start, stop)] = True
    keys = true_runs(_key_frames(rows, 0, count).reshape(-1), _KEY_FRAMES)
    for start, stop in (*keys, *_beeps(rows)):
        covered[max(0, start - 1) // FRAMES : -(-(stop + 1) // FRAMES)] = True
    return covered


def _extend(rows: Rows, start: int, stop: int) -> slice:
    """A tone's rows, with up to two at each end that it fills in part."""
    frequency = rows.strongest_hz[(start + stop) // 2]

    def belongs(row: int) -> bool:
        return bool(abs(rows.strongest_hz[row] - frequency) < _TOLERANCE_HZ and rows.pair_share[row] > 0.5)

    for _ in range(2):
        if start and belongs(start - 1):
            start -= 1
        if stop < len(rows.pair_share) and belongs(stop):
            stop += 1
    return slice(start, stop)


def _beeps(rows: Rows) -> list[tuple[int, int]]:
    """Start and stop, in frames, of short single tones between silence."""
    share = rows.peak_share.reshape(-1)
    candidates = share > _BEEP_SHARE
    if not candidates.any():
        return []
    frequency = rows.peak_hz.reshape(-1)
    level = 10.0 * np.log10(rows.power.reshape(-1) + _TINY)
    constant = candidates[1:] & candidates[:-1] & (frequency[1:] > _LOWEST_HZ)
    constant &= np.abs(np.diff(frequency)) < _BEEP_STEP * frequency[1:]
    constant &= np.abs(np.diff(level)) < _BEEP_LEVEL_DB
    beeps = []
    for start, stop in true_runs(constant, _BEEP_FRAMES):
        before = level[max(0, start - 4) : max(1, start - 1)].min()
        after = level[stop + 2 : stop + 5].min(initial=np.inf)
        tone = float(np.median(level[start : stop + 1]))
        if max(before, after) < tone - _BEEP_EDGE_DB:
            beeps.append((start, stop + 1))
    return beeps


def tonal_rows(rows: Rows, start: int, stop: int) -> Flags:
    """Rows that are like a tone, regardless of its duration, bool[stop - start]."""
    return _constant_rows(rows, start, stop) | _key_frames(rows, start, stop).any(axis=1)


def _constant_rows(rows: Rows, start: int, stop: int) -> Flags:
    """Rows with their power in two peaks, and the spectrum of 60 ms before."""
    constant: Flags = (rows.pair_share[start:stop] > _PAIR) & (
        rows.spectral_similarity[start:stop] > _SIMILAR
    )
    return constant & (rows.strongest_hz[start:stop] > _LOWEST_HZ)


def _key_frames(rows: Rows, start: int, stop: int) -> Flags:
    """Frames, bool[r, 3], whose two strongest peaks are those of a key."""
    matches: Flags = rows.two_peak_share[start:stop] > _KEY_SHARE
    if matches.any():
        first, second = rows.peak_hz[start:stop], rows.second_hz[start:stop]
        for peak, keys in ((np.minimum(first, second), _KEY_ROWS), (np.maximum(first, second), _KEY_COLUMNS)):
            near = np.zeros_like(matches)
            for key in keys:
                near |= np.abs(peak - np.float32(key)) < np.float32(key * _KEY_TOLERANCE)
            matches = matches & near
    return matches
