"""What a second of audio sounds like, from that second alone.

The measures are those of `voiceprint.audio.quality.spectrum`, made local: the spectrum of speech varies and
fills many bands, its level is modulated, and its harmonics do not stand still.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from voiceprint.audio.speech.spectrogram import FRAMES, Floats, Rows
from voiceprint.audio.speech.tones import momentary_tones

Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int8]

SPEECH, TONE, MUSIC, NOISE, SILENCE = range(5)
PERHAPS_MUSIC: Final = 5
"""Too steady for most speech: music only beside music."""

STEP: Final = 4
"""Rows of 60 ms from one decision to the next, 0.24 s."""
SPAN: Final = 16
"""Rows that a decision looks at, 0.96 s."""

_AT_ONCE: Final = 24  # decisions: arrays over 128 KiB are slow, see `Spectrogram`
_SILENCE_DB: Final = -35.0  # energy of the loudest frame in dB: a noise of -80 dBFS
_LEAST_VARIETY_DB: Final = 2.2  # steady noise has 1.2, speech 5 dB over noise 2.5 and more
_LEAST_SPREAD: Final = 0.25  # of the bands: a tone that glides has less
_LEAST_MODULATION_DB: Final = 1.2
# Of the rows. Quick melodies over a telephone have 0.28 and more; so has 0.3 % of children's speech, and less
# of other.
_MUSIC_STEADINESS: Final = 0.27
_NEAR_MUSIC: Final = 0.15  # 1 % to 4 % of speech have more
_STEADY: Final = 0.75  # correlation of harmonics 60 ms apart
_PRIOR_ROWS: Final = 3
_ACTIVE: Final = np.float32(10**-2.5)  # frames down to 25 dB under the loud ones are looked at
_EMPTY_BAND: Final = np.float32(1e-5)  # of the frame: -50 dB
_LEAST_ACTIVE: Final = 5  # frames, 0.1 s
_TINY: Final = np.float32(1e-20)


def decisions(rows: Rows, start: int, count: int, span: int = SPAN) -> Codes:
    """The kind of `count` stretches of `span` rows, one each `STEP` rows from row `start` on, int8[count]."""
    found = [
        _decide(rows, start + first * STEP, min(_AT_ONCE, count - first), span)
        for first in range(0, count, _AT_ONCE)
    ]
    return np.concatenate(found)


def _decide(rows: Rows, start: int, count: int, span: int) -> Codes:
    stop = start + (count - 1) * STEP + span
    near = _seconds(momentary_tones(rows, start, stop), span)
    tones = near.copy()  # and the rows beside, which a tone fills in part
    tones[:, 1:] |= near[:, :-1]
    tones[:, :-1] |= near[:, 1:]
    with np.errstate(all="ignore"):  # the state is the caller's; with "raise" an underflow would escape
        steadiness = _steadiness(
            _seconds(rows.likeness[start:stop], span), _seconds(rows.harmonic_power[start:stop], span), tones
        )
        return _classify(rows.bands[start:stop].reshape(-1, rows.bands.shape[2]), tones, steadiness)


Each = TypeVar("Each", bound=np.generic)


def _seconds(values: npt.NDArray[Each], span: int, step: int = STEP) -> npt.NDArray[Each]:
    """Stretches of `span` values, one each `step`: [k, span], and behind those axes the others."""
    windows = np.lib.stride_tricks.sliding_window_view(values, span, axis=0)[::step]
    return np.moveaxis(windows, -1, 1)


def _steadiness(likeness: Floats, power: Floats, tones: Flags) -> npt.NDArray[np.float64]:
    """Share of the louder rows [k, span] whose harmonics are those of 60 ms before."""
    lesser = np.minimum(power[:, 1:], power[:, :-1]) * ~(tones[:, 1:] | tones[:, :-1])
    counted = lesser > lesser.max(axis=1, keepdims=True) * np.float32(1e-3)
    # As if some rows of speech were there besides, or one vowel beside a tone would be music.
    steady = ((likeness[:, 1:] > _STEADY) & counted).sum(axis=1)
    return np.asarray(steady / (counted.sum(axis=1) + _PRIOR_ROWS), dtype=np.float64)


def _classify(frames: Floats, tones: Flags, steadiness: npt.NDArray[np.float64]) -> Codes:
    """Kinds of seconds: by energies of frames [t, 20], tones [k, span] and steadiness [k]."""
    length = tones.shape[1] * FRAMES
    usable = ~np.repeat(tones, FRAMES, axis=1)
    level = _seconds(frames.sum(axis=1), length, STEP * FRAMES) * usable
    loud = _third(level)
    # Evened out over 60 ms: the chance of noise, and not syllables.
    smoothed = frames[2:] + frames[1:-1] + frames[:-2]
    usable = usable[:, 2:] & usable[:, 1:-1] & usable[:, :-2]
    total = smoothed.sum(axis=1)
    shape = np.log10(smoothed + (total * _EMPTY_BAND + _TINY)[:, None])
    shape -= shape.mean(axis=1, keepdims=True)
    levels = _seconds(total, length - 2, STEP * FRAMES) * usable
    top = _third(levels)
    active = (levels > (top * _ACTIVE + _TINY)[:, None]).astype(np.float32)
    number = np.maximum(active.sum(axis=1), 1.0)
    mean, square = (
        np.einsum("kt,ktf->kf", active, _seconds(each, length - 2, STEP * FRAMES)) / number[:, None]
        for each in (shape, np.square(shape))
    )
    variety = 10.0 * np.sqrt(np.maximum(square - mean * mean, 0.0)).mean(axis=1)
    in_db = 10.0 * np.log10(levels + (top * _EMPTY_BAND + _TINY)[:, None])
    counted = np.maximum(usable.sum(axis=1), 1)[:, None]
    in_db -= (in_db * usable).sum(axis=1, keepdims=True) / counted
    modulation = np.sqrt((np.square(in_db) * usable).sum(axis=1) / counted[:, 0])
    kinds = np.full(len(tones), SPEECH, dtype=np.int8)
    kinds[(variety < _LEAST_VARIETY_DB) | (modulation < _LEAST_MODULATION_DB)] = NOISE
    kinds[_spread(_seconds(frames, length, STEP * FRAMES), level, loud) < _LEAST_SPREAD] = TONE
    kinds[(kinds == SPEECH) & (steadiness > _NEAR_MUSIC)] = PERHAPS_MUSIC
    kinds[steadiness > _MUSIC_STEADINESS] = MUSIC
    kinds[10.0 * np.log10(loud + _TINY) < _SILENCE_DB] = SILENCE
    # Nothing but tones: those are found by themselves, and the gaps between them hold nothing.
    kinds[number < _LEAST_ACTIVE] = SILENCE
    return kinds


def _third(levels: Floats) -> Floats:
    """The third highest of each second: a click is no level."""
    return np.asarray(np.partition(levels, -3, axis=1)[:, -3])


def _spread(frames: Floats, level: Floats, loud: Floats) -> Floats:
    """As `spectrum.Spectrum.spread`, of each second [t, 20]."""
    tenth = frames.shape[1] // 10
    floor = np.float32(3.0) * np.partition(frames, tenth, axis=1)[:, tenth, None]
    risen = np.maximum(frames - floor, np.float32(0.0))
    risen *= (level > (loud * _ACTIVE + _TINY)[:, None])[:, :, None]
    reach = risen.max(axis=2, keepdims=True) * np.float32(1e-3)
    reached = risen > np.maximum(reach, _TINY)
    telling = reached | ((floor < reach) & (reach > 0.0))
    return np.asarray(reached.sum(axis=(1, 2)) / np.maximum(telling.sum(axis=(1, 2)), 1), dtype=np.float32)
