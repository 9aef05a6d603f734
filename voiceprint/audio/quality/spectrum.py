"""Spectral measures that separate speech from other sounds, for the quality score.

Together the measures reject sounds that each of them alone would accept:

    measure                  speech   steady noise   swelling noise   tone, sweep   siren   chords, melodies
    spectral variation       high     low            low                            high    high
    band occupancy           high                                     low
    modulation               high     low            high                           low
    harmonic stationarity    low      low            low              high          low     high

All work between 100 and 3800 Hz, so a telephone changes them little, and none uses voicing or pitch, so a
whisper is speech. All accept drums of changing color, and harmonics that glide as far as a voice does (a
vibrato of 1.5 % and more with a swelling level).

The idea that speech is modulated at the rate of its syllables is from Houtgast and Steeneken, "A
review of the MTF concept in room acoustics" (1985); the noise floor follows the minimum statistics
of Martin, "Noise power spectral density estimation" (2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from voiceprint.audio.speech.spectrogram import BANDS, Rows

Floats = npt.NDArray[np.float32]

_NYQUIST_HZ: Final = 8000.0
_SMOOTHED: Final = 3  # frames of 20 ms; averages the chance of noise out, and preserves syllables
_MAX_COPIED: Final = 1 << 20  # values copied at once
_ACTIVE: Final = 10**-2.5  # measured are frames down to 25 dB below the loud ones
_TINY: Final = 1e-20
_PRIOR_ROWS: Final = 8
_STATIONARY: Final = 0.75  # correlation of harmonics 60 ms apart
_SILENCE: Final = 1e-8  # energy of a frame: a sine of -125 dBFS, under a 30th of the last bit of 16


@dataclass(frozen=True)
class Spectrum:
    """Measures of one signal.

    Attributes:
        spectral_variation_db: standard deviation over time of the level-normalized band energies, mean over
            bands. Speech about 7, noise of any swell under 2.5.
        band_occupancy: share of bands within 30 dB of the strongest, among those whose noise floor does not
            mask that range, over all frames, 0..1. Speech over 0.40, a gliding tone under 0.30.
        modulation_db: standard deviation of the level over time. Speech over 7.
        harmonic_stationarity: share of rows whose harmonics correlate with those 60 ms before, 0..1. Speech
            under 0.1, notes over 0.3 unless they last less than 60 ms or have a wide vibrato.
        snr_db: power over floor power, each summed over bands, in [-20, 60].
        bandwidth_hz: the highest frequency at which the signal exceeds its floor.
    """

    spectral_variation_db: float
    band_occupancy: float
    modulation_db: float
    harmonic_stationarity: float
    snr_db: float
    bandwidth_hz: float


SILENCE: Final = Spectrum(0.0, 0.0, 0.0, 1.0, -20.0, 0.0)
"""The measures of digital silence."""


def measure(rows: Rows) -> Spectrum:
    """Measure the rows of a `Spectrogram`; all measures are finite."""
    if not len(rows.harmonic_correlation):
        return SILENCE
    energies = rows.bands.reshape(-1, BANDS)
    with np.errstate(all="ignore"):  # a caller's "raise" would turn underflow into an error
        smoothed = _moving_average(energies, _SMOOTHED)
        level = smoothed.sum(axis=1)
        (loud,) = map(float, _percentiles(level[:, None], [95])[:, 0])
        active = level > loud * _ACTIVE
        if loud <= _SILENCE or not active.any():
            return SILENCE
        # The floor is the tenth percentile of each band: speech leaves every band empty now and then, even
        # without a pause, and steady noise is close to its own tenth percentile.
        (floor,) = _percentiles(smoothed, [10])
        floor_power = float(floor.sum())
        signal_power = float(level[active].mean())
        snr_db = 10.0 * np.log10(max(signal_power - floor_power, _TINY) / max(floor_power, _TINY))
        level_db = 10.0 * np.log10(level + loud * 1e-5)
        smoothed = smoothed[active]
        variation_db = spectral_variation_db(smoothed)
        del smoothed  # 14 MB of an hour
        return Spectrum(
            spectral_variation_db=variation_db,
            band_occupancy=_band_occupancy(energies, floor),
            modulation_db=float(level_db.std()),
            harmonic_stationarity=_harmonic_stationarity(rows),
            snr_db=float(np.clip(snr_db, -20.0, 60.0)),
            bandwidth_hz=_bandwidth(rows.wide),
        )


def active_frames(energies: Floats) -> Floats:
    """Band energies float32[t, f], averaged over 64 ms, of the frames within 25 dB of the loud ones."""
    smoothed = _moving_average(energies, 4)
    level = smoothed.sum(axis=1)
    active: Floats = smoothed[level > float(np.percentile(level, 95)) * _ACTIVE]
    return active


def spectral_variation_db(energies: Floats) -> float:
    """The measure of `Spectrum`, of band energies float32[t, f]."""
    # In place and in groups of bands: each copy of an hour's energies takes 18 MB.
    shape = energies + energies.max() * np.float32(1e-5)
    np.log10(shape, out=shape)
    shape *= np.float32(10.0)
    shape -= shape.mean(axis=1, keepdims=True)
    return float(np.concatenate([columns.std(axis=0) for columns in _column_groups(shape)]).mean())


def _band_occupancy(energies: Floats, floor: Floats) -> float:
    level = energies.sum(axis=1)
    excess = energies[level > _percentiles(level[:, None], [95])[0, 0] * np.float32(_ACTIVE)]
    # Noise alone lies within a factor of about three around its floor.
    masked = np.float32(3.0) * floor
    excess -= masked
    np.maximum(excess, 0.0, out=excess)
    threshold = excess.max(axis=1, keepdims=True, initial=0.0) * 1e-3
    occupied = (excess > threshold) & (excess > 0.0)
    # Bands whose noise exceeds the threshold do not count: counted as empty, they would make any noisy speech
    # look like a tone.
    counted = occupied | (masked < threshold)
    return float(occupied.sum() / max(1, int(counted.sum())))


def _harmonic_stationarity(rows: Rows) -> float:
    """Share of the louder rows whose harmonics correlate over 0.75 with those 60 ms before.

    A prior of half a second of speech is added: one long vowel is a fifth of a second of speech.
    """
    if len(rows.harmonic_correlation) < 2:
        return 0.0
    weight = np.minimum(rows.harmonic_power[1:], rows.harmonic_power[:-1])
    counted = weight > weight.max() * np.float32(1e-3)
    stationary = (rows.harmonic_correlation[1:][counted] > _STATIONARY).sum()
    return float(stationary / (counted.sum() + _PRIOR_ROWS))


def _bandwidth(wide: Floats) -> float:
    """Upper edge, Hz, of the highest used band, from energies float32[t, 32] of bands of 250 Hz."""
    floor, loud = _percentiles(wide, [10, 95])
    used = np.flatnonzero((loud > 4.0 * floor) & (loud > loud.max() * 1e-6))
    return float(used[-1] + 1) * _NYQUIST_HZ / wide.shape[1] if len(used) else 0.0


def _percentiles(values: Floats, percents: list[int]) -> Floats:
    """Percentiles of each column of float32[t, f] by nearest rank, float32[p, f]."""
    ranks = [round(percent / 100.0 * (len(values) - 1)) for percent in percents]
    groups = [np.partition(columns, ranks, axis=0)[ranks] for columns in _column_groups(values)]
    return np.concatenate(groups, axis=1).astype(np.float32)


def _column_groups(values: Floats) -> list[Floats]:
    """Views of the columns of float32[t, f], at most `_MAX_COPIED` values each: an hour has 29 MB."""
    width = max(1, _MAX_COPIED // max(1, len(values)))
    return [values[:, first : first + width] for first in range(0, values.shape[1], width)]


def _moving_average(values: Floats, width: int) -> Floats:
    """Average `width` neighbors along the first axis: [t, f] to [t - width + 1, f]; `values` if shorter."""
    if len(values) < width:
        return values
    # Differences of a running sum would be faster, with rounding errors as big as quiet frames.
    total: Floats = np.array(values[: len(values) - width + 1], dtype=np.float32)
    for shift in range(1, width):
        total += values[shift : shift + len(total)]
    total /= np.float32(width)
    return total
