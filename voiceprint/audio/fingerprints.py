"""Fingerprints of audio: 32 bits every 16 ms that stay nearly the same when the same audio is heard again.

After Haitsma and Kalker, "A highly robust audio fingerprinting system" (ISMIR 2002): a bit says whether the
energy of a band, less that of the next band, grew. Level and slowly varying filters change no sign. As
theirs, the bands lie between 300 and 2000 Hz, which telephones pass, and a bit looks at 0.3 s; here they are
33 of equal width in mel, and energies of 0.13 s are compared with those of the 0.13 s after.

The same audio through a telephone line of 300 to 3400 Hz in 20 dB of noise, half a step off: 12 % of the
bits differ, and one of eleven fingerprints is the same to the bit, which is how a place is found. A second of
other speech, at the best of all places in ten seconds: 36 % and more (10 s for 5 s, 20 pairs).

They say which audio it is, and not whose voice: the same words by the same speaker match no better than
chance. They are kept in memory alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io.lazy_audio import Samples

Bits = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

STEP: Final = 256  # samples at 16 kHz, 16 ms, from one fingerprint to the next
SPAN: Final = 19 * STEP + 8  # samples that a fingerprint looks at: 15 steps, a window and the filter, 0.30 s
SECOND: Final = 62  # fingerprints

_DOWN: Final = 4  # to 4 kHz
_WINDOW: Final = 256  # samples at 4 kHz, 64 ms
_BANDS: Final = 33
_LOW_HZ: Final = 300.0
_HIGH_HZ: Final = 1950.0
_SUMMED: Final = 8  # windows
_BLOCK: Final = 256  # fingerprints made together: bounds the memory for an hour of audio
_QUIET: Final = 1e-4  # of the power of the loudest: -40 dB, where line noise sets the bits

_MOST_ERRORS: Final = 0.3  # of the bits of a second; chance gives 0.38 and more
_FEW_ERRORS: Final = 0.2  # of shorter stretches than
_LONG: Final = 80  # 1.3 s: in two hours of speech, three pairs of a second were alike by 0.25 to 0.3
_SURE: Final = 8  # of 32 bits that differ at the ends of a stretch at most
_LEAST_HITS: Final = 2  # fingerprints that are the same, at one place


class Fingerprint(NamedTuple):
    """bits: uint32[t], one every `STEP` samples. loud: bool[t], where they say something."""

    bits: Bits
    loud: Flags


def fingerprint(audio: Samples) -> Fingerprint:
    """The fingerprint of float32[n] at 16 kHz; of less than 0.30 s, t = 0."""
    running = RunningFingerprint()
    for start in range(0, len(audio), _BLOCK * STEP):
        running.add(audio[start : start + _BLOCK * STEP])
    return running.so_far()


class RunningFingerprint:
    """The fingerprint of audio that comes in blocks."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, dtype=np.float32)
        self._bits: list[Bits] = [np.zeros(0, dtype=np.uint32)]
        self._power: list[Floats] = [np.zeros(0, dtype=np.float32)]

    def add(self, audio: Floats) -> None:
        """Take the next float32[n] at 16 kHz."""
        audio = np.concatenate((self._rest, audio))
        count = max(0, (len(audio) - SPAN) // STEP + 1)
        self._rest = audio[count * STEP :].copy()
        if not count:
            return
        with np.errstate(all="ignore"):  # the state is the caller's; with "raise" an underflow would escape
            energies = _energies(audio[: (count - 1) * STEP + SPAN])
            slopes = np.cumsum(energies[:, :-1] - energies[:, 1:], axis=0, dtype=np.float64)
            slopes = np.concatenate((np.zeros((1, _BANDS - 1)), slopes))
            sums = slopes[_SUMMED:] - slopes[:-_SUMMED]
            grown = sums[_SUMMED:] - sums[:-_SUMMED] > 0
            self._bits.append(np.packbits(grown, axis=1).view(">u4")[:, 0].astype(np.uint32))
            level = np.concatenate(([0.0], np.cumsum(energies.sum(axis=1), dtype=np.float64)))
            self._power.append(np.float32(level[2 * _SUMMED :] - level[: -2 * _SUMMED]))

    def so_far(self) -> Fingerprint:
        """The fingerprint of what was taken; more can be added afterwards."""
        self._bits, self._power = [np.concatenate(self._bits)], [np.concatenate(self._power)]
        (bits,), (power,) = self._bits, self._power
        return Fingerprint(bits, power > max(float(power.max(initial=0.0)) * _QUIET, 1e-9))


class FingerprintIndex:
    """Finds places where recordings go on alike."""

    def __init__(self, prints: list[Fingerprint], *, most_in_one: int | None = None) -> None:
        """most_in_one: fingerprints that are the same more often than so tell nothing apart."""
        self._prints = prints
        sizes = [len(one.bits) for one in prints]
        self._starts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        loud = np.flatnonzero(np.concatenate([one.loud for one in prints] or [np.zeros(0, dtype=bool)]))
        bits = np.concatenate([one.bits for one in prints] or [np.zeros(0, dtype=np.uint32)])[loud]
        order = np.argsort(bits, kind="stable")
        self._bits, self._places = bits[order], loud[order]
        self._most_in_one = most_in_one or len(bits)

    def alike(self, probe: Fingerprint) -> list[tuple[int, int, int]]:
        """Where some fingerprints are the same: hits, recording, its place less the probe's; most first."""
        own = np.flatnonzero(probe.loud)
        first = np.searchsorted(self._bits, probe.bits[own], "left")
        found = np.searchsorted(self._bits, probe.bits[own], "right") - first
        some = (found > 0) & (found <= self._most_in_one)
        first, found, own = first[some], found[some], own[some]
        within = np.arange(int(found.sum())) - np.repeat(np.cumsum(found) - found, found)
        places = self._places[np.repeat(first, found) + within]
        recordings = np.searchsorted(self._starts, places, "right") - 1
        shifts = places - self._starts[recordings] - np.repeat(own, found)
        # Audio does not stand in the grid of the fingerprints: neighbors in shift are one place.
        reach = len(probe.bits) + 1
        keys = recordings * (1 << 32) + shifts + reach
        keys, hits = np.unique(keys, return_counts=True)
        together = hits + np.where(np.diff(keys, append=-9) == 1, np.append(hits[1:], 0), 0)
        order = np.argsort(-together, kind="stable")
        return [
            (int(together[i]), int(keys[i] >> 32), int(keys[i] & 0xFFFFFFFF) - reach)
            for i in order[: np.count_nonzero(together >= _LEAST_HITS)]
        ]

    def stretches(self, probe: Fingerprint, recording: int, shift: int) -> list[tuple[int, int]]:
        """Start and stop of the probe's fingerprints that go on as the recording does at that shift."""
        other = self._prints[recording]
        begin, end = max(0, -shift), min(len(probe.bits), len(other.bits) - shift)
        if end <= begin:
            return []
        errors = _ones(probe.bits[begin:end] ^ other.bits[begin + shift : end + shift])
        errors[~(probe.loud[begin:end] & other.loud[begin + shift : end + shift])] = 16  # as by chance
        width = min(SECOND, len(errors))
        total = np.concatenate(([0], np.cumsum(errors)))
        good = total[width:] - total[:-width] <= _MOST_ERRORS * 32 * width
        sure = np.flatnonzero(errors <= _SURE)
        found: list[tuple[int, int]] = []
        for start, stop in runs(good):
            inside = sure[(sure >= start) & (sure < stop - 1 + width)]
            if len(inside) < width // 4:
                continue
            first, last = int(inside[0]), int(inside[-1])
            length = last + 1 - first
            if length < _LONG and total[last + 1] - total[first] > _FEW_ERRORS * 32 * length:
                continue
            place = begin + first, begin + last + 1
            if found and place[0] - found[-1][1] < SECOND:
                place = found.pop()[0], place[1]
            found.append(place)
        return found


def runs(flags: Flags) -> list[tuple[int, int]]:
    """Start and stop of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _ones(bits: Bits) -> npt.NDArray[np.int64]:
    """How many bits of each are set; numpy 1 cannot count them."""
    low, high = _ones_of_16()[bits & 0xFFFF], _ones_of_16()[bits >> 16]
    ones: npt.NDArray[np.int64] = low + high
    return ones


@lru_cache(maxsize=1)
def _ones_of_16() -> npt.NDArray[np.int64]:
    return np.array([value.bit_count() for value in range(1 << 16)], dtype=np.int64)


def _energies(audio: Floats) -> Floats:
    """Of bands, float32[t, 33], in windows of 64 ms every 16 ms."""
    # Sums of neighbors filter poorly; what they fold down is weak, and the same each time.
    half = audio[: len(audio) // 2 * 2 : 2] + audio[1::2]
    ends, middle = half[:-3] + half[3:], half[1:-2] + half[2:-1]
    quarter = ends[::2] + 3 * middle[::2]
    windows = np.lib.stride_tricks.sliding_window_view(quarter, _WINDOW)[:: STEP // _DOWN]
    spectra = np.fft.rfft(windows * _hann())
    power = np.asarray(spectra.real**2 + spectra.imag**2, dtype=np.float32)
    edges = _edges()
    # A product of matrices would wake the threads of the BLAS.
    bands: Floats = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1)
    return bands


@lru_cache(maxsize=1)
def _hann() -> Floats:
    return np.asarray(np.hanning(_WINDOW + 1)[:-1], dtype=np.float32)


@lru_cache(maxsize=1)
def _edges() -> npt.NDArray[np.int64]:
    """The first bin of each band, and the end of the last. Mel is ln(1 + f / 700) (O'Shaughnessy)."""
    hertz = 700.0 * np.expm1(np.linspace(np.log1p(_LOW_HZ / 700), np.log1p(_HIGH_HZ / 700), _BANDS + 1))
    return np.ceil(hertz * _WINDOW * _DOWN / 16000).astype(np.int64)
