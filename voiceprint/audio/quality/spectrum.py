"""What tells speech from other sounds in a spectrogram: the measures behind the quality score.

Each measure is blind to some sounds that are not speech, and each of these is seen by another:

    measure      speech   steady noise   swelling noise   tone, sweep   siren   chords, melodies
    variety      high     low            low                            high    high
    spread       high                                     low
    modulation   high     low            high                           low
    steadiness   low      low            low              high          low     high

All work between 100 and 3800 Hz, so a telephone changes them little, and none uses voicing or
pitch, so a whisper is speech. What stays unseen: drums of changing color, and harmonics that glide
as far as a voice does (a vibrato of 1.5 % and more with a swelling level).

The idea that speech is modulated at the rate of its syllables is from Houtgast and Steeneken, "A
review of the MTF concept in room acoustics" (1985); the noise floor follows the minimum statistics
of Martin, "Noise power spectral density estimation" (2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io.lazy_audio import Samples
from voiceprint.audio.speech.spectrogram import Rows

Floats = npt.NDArray[np.float32]

_RATE: Final = 16000
_HOP: Final = 256  # 16 ms
_SHORT: Final = 512  # 32 ms: resolves syllables and formants
_LOW_HZ: Final = 100.0
_HIGH_HZ: Final = 3800.0
BANDS: Final = 20
"""Mel bands of `band_energies`."""

_SMOOTHED: Final = 3  # frames of 20 ms; evens out the chance of noise, and leaves syllables
_CHUNK: Final = 2048  # frames at a time: bounds the memory for an hour of audio
_COPIED: Final = 1 << 20  # values that may be copied at once
_ACTIVE: Final = 10**-2.5  # frames down to 25 dB under the loud ones are looked at
_TINY: Final = 1e-20
_PRIOR_ROWS: Final = 8
_SILENCE: Final = 1e-8  # energy of a frame: a sine of -125 dBFS, under a 30th of the last bit of 16
_FULL_SCALE: Final = np.float32(1.0)


@dataclass(frozen=True)
class Spectrum:
    """Measures of one signal.

    Attributes:
        variety: standard deviation over time of the spectrum's shape, dB, mean over bands; the
            level of each frame is taken out first. Speech about 7, noise of any swell under 2.5.
        spread: share of the bands that come within 30 dB of the strongest one, of those where the
            noise would let it be seen, over all frames, 0..1. Speech over 0.40, a tone that glides
            under 0.30.
        modulation: standard deviation of the level over time, dB. Speech over 7.
        steadiness: share of frames whose fine structure is the same 64 ms later, 0..1. Speech under
            0.1, notes over 0.3 unless they last less than 60 ms or have a wide vibrato.
        snr_db: power over floor power, each summed over bands, dB in [-20, 60].
        bandwidth_hz: the highest frequency at which something rises over the floor.
    """

    variety: float
    spread: float
    modulation: float
    steadiness: float
    snr_db: float
    bandwidth_hz: float


NOTHING: Final = Spectrum(0.0, 0.0, 0.0, 1.0, -20.0, 0.0)
"""The measures of digital silence."""


def measure(rows: Rows) -> Spectrum:
    """Measure what is in rows of a `Spectrogram`; all measures are finite."""
    if not len(rows.likeness):
        return NOTHING
    energies = rows.bands.reshape(-1, BANDS)
    with np.errstate(all="ignore"):  # the state is the caller's; with "raise" an underflow would escape
        smoothed = _moving_average(energies, _SMOOTHED)
        level = smoothed.sum(axis=1)
        (loud,) = map(float, _percentiles(level[:, None], [95])[:, 0])
        active = level > loud * _ACTIVE
        if loud <= _SILENCE or not active.any():
            return NOTHING
        # The tenth percentile of each band by itself: speech leaves every band alone now and then, even
        # where it makes no pause, and steady noise is nearly its own tenth percentile.
        (floor,) = _percentiles(smoothed, [10])
        floor_power = float(floor.sum())
        signal_power = float(level[active].mean())
        snr_db = 10.0 * np.log10(max(signal_power - floor_power, _TINY) / max(floor_power, _TINY))
        level_db = 10.0 * np.log10(level + loud * 1e-5)
        smoothed = smoothed[active]
        variety_db = variety(smoothed)
        del smoothed  # 14 MB of an hour
        return Spectrum(
            variety=variety_db,
            spread=_spread(energies, floor),
            modulation=float(level_db.std()),
            steadiness=_steadiness(rows),
            snr_db=float(np.clip(snr_db, -20.0, 60.0)),
            bandwidth_hz=_bandwidth(rows.wide),
        )


def active_frames(energies: Floats) -> Floats:
    """The louder frames of band energies float32[t, f], evened out in time; as many as there are."""
    smoothed = _moving_average(energies, 4)  # 64 ms
    level = smoothed.sum(axis=1)
    active: Floats = smoothed[level > float(np.percentile(level, 95)) * _ACTIVE]
    return active


def variety(energies: Floats) -> float:
    """How much the shape of the spectrum changes over frames of energies float32[t, f], dB."""
    # In place and some bands at a time: each copy of an hour's energies takes 18 MB.
    shape = energies + energies.max() * np.float32(1e-5)
    np.log10(shape, out=shape)
    shape *= np.float32(10.0)
    shape -= shape.mean(axis=1, keepdims=True)
    return float(np.concatenate([bands.std(axis=0) for bands in _columns(shape)]).mean())


def _spread(energies: Floats, floor: Floats) -> float:
    level = energies.sum(axis=1)
    risen = energies[level > _percentiles(level[:, None], [95])[0, 0] * np.float32(_ACTIVE)]
    # Noise alone lies within a factor of three or so around its floor.
    masked = np.float32(3.0) * floor
    risen -= masked
    np.maximum(risen, 0.0, out=risen)
    reach = risen.max(axis=1, keepdims=True, initial=0.0) * 1e-3
    reached = (risen > reach) & (risen > 0.0)
    # A band whose own noise lies above the reach says nothing either way; counting it as empty
    # would make any noisy speech look like a tone.
    telling = reached | (masked < reach)
    return float(reached.sum() / max(1, int(telling.sum())))


def _steadiness(rows: Rows) -> float:
    """The share of the louder rows whose harmonics correlate over 0.75 with those 60 ms before.

    As if half a second of speech had been there besides: of a second, one long vowel is a fifth.
    """
    if len(rows.likeness) < 2:
        return 0.0
    weight = np.minimum(rows.harmonic_power[1:], rows.harmonic_power[:-1])
    counted = weight > weight.max() * np.float32(1e-3)
    steady = (rows.likeness[1:][counted] > 0.75).sum()
    return float(steady / (counted.sum() + _PRIOR_ROWS))


def _bandwidth(wide: Floats) -> float:
    """From float32[t, 32], energies of bands of 250 Hz: the upper edge of the highest that is used, Hz."""
    floor, loud = _percentiles(wide, [10, 95])
    used = np.flatnonzero((loud > 4.0 * floor) & (loud > loud.max() * 1e-6))
    return float(used[-1] + 1) * _RATE / 2 / wide.shape[1] if len(used) else 0.0


def _percentiles(values: Floats, percents: list[int]) -> Floats:
    """Those of each column of float32[t, f], float32[p, f]: the nearest values there are."""
    places = [round(percent / 100.0 * (len(values) - 1)) for percent in percents]
    found = [np.partition(columns, places, axis=0)[places] for columns in _columns(values)]
    return np.concatenate(found, axis=1).astype(np.float32)


def _columns(values: Floats) -> list[Floats]:
    """All columns of float32[t, f] together, or of an hour some at a time, as a copy of all takes 29 MB."""
    some = max(1, _COPIED // max(1, len(values)))
    return [values[:, first : first + some] for first in range(0, values.shape[1], some)]


def band_energies(audio: Samples, peak: np.float32 = _FULL_SCALE) -> tuple[Floats, Floats]:
    """Energies float32[t, 20] of mel bands in 100..3800 Hz, and float32[t, 32] of bands of 250 Hz.

    peak: what `audio` is divided by first.
    """
    count = (len(audio) - _SHORT) // _HOP + 1
    narrow = np.empty((count, BANDS), dtype=np.float32)
    wide = np.empty((count, 32), dtype=np.float32)
    for start in range(0, count, _CHUNK):
        power = _power(_frames(audio, _SHORT, start, _CHUNK), peak)
        narrow[start : start + _CHUNK] = power @ _mel_matrix()
        wide[start : start + _CHUNK] = power[:, :-1].reshape(len(power), 32, -1).sum(axis=2)
    return narrow, wide


def _frames(audio: Samples, length: int, start: int, count: int) -> Floats:
    """At most `count` frames of `length` samples from frame `start` on, one every 16 ms."""
    part = audio[start * _HOP : (start + count - 1) * _HOP + length]
    return np.lib.stride_tricks.sliding_window_view(part, length)[::_HOP]


def _power(frames: Floats, peak: np.float32) -> Floats:
    """Power spectra of frames float32[t, n] over `peak`, under a Hann window: float32[t, n // 2 + 1]."""
    spectra = np.fft.rfft(np.divide(frames, peak, dtype=np.float32) * _hann(frames.shape[1]))
    return np.asarray(spectra.real**2 + spectra.imag**2, dtype=np.float32)


def _moving_average(values: Floats, width: int) -> Floats:
    """Average `width` neighbors of the first axis: [t, f] to [t - width + 1, f]; `values` if shorter."""
    if len(values) < width:
        return values
    # Differences of a running sum would be quicker, and leave rounding errors as big as quiet frames.
    total: Floats = np.array(values[: len(values) - width + 1], dtype=np.float32)
    for shift in range(1, width):
        total += values[shift : shift + len(total)]
    total /= np.float32(width)
    return total


@lru_cache(maxsize=2)
def _hann(length: int) -> Floats:
    return np.asarray(np.hanning(length + 1)[:-1], dtype=np.float32)


@lru_cache(maxsize=1)
def _mel_matrix() -> Floats:
    """float32[257, 20] that sums bins into bands of equal width in mel, ln(1 + f / 700) (O'Shaughnessy)."""
    low, high = np.log1p(_LOW_HZ / 700.0), np.log1p(_HIGH_HZ / 700.0)
    edges = 700.0 * np.expm1(np.linspace(low, high, BANDS + 1))
    frequency = np.fft.rfftfreq(_SHORT, 1.0 / _RATE)[:, None]
    return np.asarray((frequency >= edges[:-1]) & (frequency < edges[1:]), dtype=np.float32)
