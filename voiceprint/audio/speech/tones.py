"""Tones: beeps, keys, ring-back, busy and dial tones.

Three rules find them. No vowel in 1,160 recordings of speech meets one; keys of 50 ms do, and beeps of 80 ms
with silence around, and tones and pairs of tones of 0.3 s, 15 dB over noise:

    long tones   0.9 of the power in two peaks, and the spectrum that of 60 ms before, for 0.24 s
    keys         0.85 in two peaks at the frequencies of DTMF (ITU-T Q.23), for 40 ms
    beeps        0.95 in one peak of constant frequency and level, and 15 dB less on both sides
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from voiceprint.audio.speech.runs import long_runs
from voiceprint.audio.speech.spectrogram import FRAMES, Rows

Flags = npt.NDArray[np.bool_]

_PAIR: Final = 0.9
_CONSTANT: Final = 0.98
_LONG_TONE: Final = 4  # rows
# Below is no tone of any telephone, but the long vowel of a child that has all its power in one harmonic.
_LOWEST_HZ: Final = 330.0
_SAME_HZ: Final = 20.0
_KEY_ROWS: Final = (697.0, 770.0, 852.0, 941.0)
_KEY_COLUMNS: Final = (1209.0, 1336.0, 1477.0, 1633.0)
_KEY_SHARE: Final = 0.85
_KEY_TOLERANCE: Final = 0.02
_KEY_FRAMES: Final = 2
_BEEP_SHARE: Final = 0.95
_BEEP_STEP: Final = 0.003  # a beep's frequency changes by less from frame to frame
_BEEP_LEVEL_DB: Final = 1.0
_BEEP_EDGE_DB: Final = 15.0
_BEEP_FRAMES: Final = 2  # after the first
_TINY: Final = 1e-20


def tone_rows(rows: Rows) -> Flags:
    """The rows that tones lie in, bool[r]."""
    count = len(rows.likeness)
    found = np.zeros(count, dtype=np.bool_)
    for start, stop in long_runs(_steady(rows, 0, count), _LONG_TONE):
        found[_grown(rows, start, stop)] = True
    for start, stop in long_runs(_keys(rows, 0, count).reshape(-1), _KEY_FRAMES):
        found[max(0, start - 1) // FRAMES : -(-(stop + 1) // FRAMES)] = True
    for start, stop in _beeps(rows):
        found[max(0, start - 1) // FRAMES : -(-(stop + 1) // FRAMES)] = True
    return found


def _grown(rows: Rows, start: int, stop: int) -> slice:
    """A tone's rows with those at its ends that it fills in part."""
    frequency = rows.strongest_hz[(start + stop) // 2]
    for _ in range(2):
        if (
            start
            and abs(rows.strongest_hz[start - 1] - frequency) < _SAME_HZ
            and rows.pair_share[start - 1] > 0.5
        ):
            start -= 1
        if (
            stop < len(rows.likeness)
            and abs(rows.strongest_hz[stop] - frequency) < _SAME_HZ
            and rows.pair_share[stop] > 0.5
        ):
            stop += 1
    return slice(start, stop)


def _beeps(rows: Rows) -> list[tuple[int, int]]:
    """Short single tones with silence around, in frames."""
    share = rows.peak_share.reshape(-1)
    candidates = share > _BEEP_SHARE
    if not candidates.any():
        return []
    frequency = rows.peak_hz.reshape(-1)
    level = 10.0 * np.log10(rows.power.reshape(-1) + _TINY)
    same = candidates[1:] & candidates[:-1] & (frequency[1:] > _LOWEST_HZ)
    same &= np.abs(np.diff(frequency)) < _BEEP_STEP * frequency[1:]
    same &= np.abs(np.diff(level)) < _BEEP_LEVEL_DB
    found = []
    for start, stop in long_runs(same, _BEEP_FRAMES):
        before = level[max(0, start - 4) : max(1, start - 1)].min()
        after = level[stop + 2 : stop + 5].min(initial=np.inf)
        own = float(np.median(level[start : stop + 1]))
        if max(before, after) < own - _BEEP_EDGE_DB:
            found.append((start, stop + 1))
    return found


def momentary_tones(rows: Rows, start: int, stop: int) -> Flags:
    """Rows that sound like a tone by themselves."""
    return _steady(rows, start, stop) | _keys(rows, start, stop).any(axis=1)


def _steady(rows: Rows, start: int, stop: int) -> Flags:
    """Rows whose power is in two peaks, which were there 60 ms before."""
    found: Flags = (rows.pair_share[start:stop] > _PAIR) & (rows.constancy[start:stop] > _CONSTANT)
    return found & (rows.strongest_hz[start:stop] > _LOWEST_HZ)


def _keys(rows: Rows, start: int, stop: int) -> Flags:
    """Frames [r, 3] whose two strongest peaks are those of a key."""
    found: Flags = rows.two_shares[start:stop] > _KEY_SHARE
    if found.any():
        one, two = rows.peak_hz[start:stop], rows.second_hz[start:stop]
        for peak, keys in ((np.minimum(one, two), _KEY_ROWS), (np.maximum(one, two), _KEY_COLUMNS)):
            near = np.zeros_like(found)
            for key in keys:
                near |= np.abs(peak - np.float32(key)) < np.float32(key * _KEY_TOLERANCE)
            found = found & near
    return found
