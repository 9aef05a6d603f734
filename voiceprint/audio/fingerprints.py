"""Fingerprints of audio: 32 bits every 16 ms that are nearly equal for copies of the same audio.

After Haitsma and Kalker, "A highly robust audio fingerprinting system" (ISMIR 2002): a bit is the sign of the
change over time of the energy difference between adjacent bands, which level and slowly varying filters
preserve. As in the paper, the bands lie between 300 and 2000 Hz, which telephones pass, and a bit covers
0.3 s; here 33 bands have equal width in mel, and energies of 0.13 s are compared with those of the next
0.13 s.

Copies through a telephone line of 300 to 3400 Hz in 20 dB of noise, shifted by half a step: 12 % of the bits
differ, and one of eleven fingerprints is identical, which locates the match. A second of other speech at the
best of all offsets in ten seconds: at least 36 % differ (10 s for 5 s, 20 pairs).

Fingerprints identify recordings, not voices: the same words by the same speaker match no better than chance.
They are stored in memory only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io.buffers import SAMPLE_RATE
from voiceprint.audio.io.lazy_audio import Samples
from voiceprint.audio.speech.runs import true_runs

Bits = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

STEP: Final = 256  # samples at 16 kHz, 16 ms, from one fingerprint to the next
SPAN: Final = 19 * STEP + 8  # samples that a fingerprint covers: 15 steps, a window and the filter, 0.30 s
SECOND: Final = 62  # fingerprints
LONGEST_S: Final = 60.0
"""Seconds that `speech_fingerprint` covers, 19 KB. Doubled, the fingerprint of a long recording takes twice
the memory; a copy is found by its first minute anyway."""

_DOWN: Final = 4  # to 4 kHz
_WINDOW: Final = 256  # samples at 4 kHz, 64 ms
_BANDS: Final = 33
_LOW_HZ: Final = 300.0
_HIGH_HZ: Final = 1950.0
_SUMMED: Final = 8  # windows
_BLOCK: Final = 256  # fingerprints computed together: bounds the memory for an hour of audio
_MIN_POWER: Final = 1e-4  # of the loudest: -40 dB, below which line noise sets the bits

_MAX_ERROR_RATE: Final = 0.3  # of the bits of a second; by chance at least 0.38
_MAX_SHORT_ERROR_RATE: Final = 0.2  # of matches shorter than `_LONG`
_LONG: Final = (
    80  # 1.3 s: in two hours of speech, three pairs of a second differed in 0.25 to 0.3 of the bits
)
_MAX_END_ERRORS: Final = 8  # of 32 bits, at both ends of a match
_CHANCE_ERRORS: Final = 16  # of 32 bits
_MIN_HITS: Final = 2  # identical fingerprints at one offset


class Fingerprint(NamedTuple):
    """bits: uint32[t], one every `STEP` samples. loud: bool[t], where the bits are significant."""

    bits: Bits
    loud: Flags


def fingerprint(audio: Samples) -> Fingerprint:
    """The fingerprint of float32[n] at 16 kHz; t = 0 below 0.30 s."""
    running = RunningFingerprint()
    for start in range(0, len(audio), _BLOCK * STEP):
        running.add(audio[start : start + _BLOCK * STEP])
    return running.fingerprint()


def speech_fingerprint(audio: Samples, parts: Sequence[tuple[int, int]]) -> Fingerprint:
    """The fingerprint of `LONGEST_S` from the first speech on, significant in the speech alone.

    audio: float32[n] at 16 kHz. parts: start and stop of its speech, in samples. Silence, tones, music and
    known prompts are not significant: different calls share them.
    """
    first = parts[0][0] if parts else 0
    whole = fingerprint(audio[first : first + round(LONGEST_S * SAMPLE_RATE)])
    spoken = np.zeros(len(whole.bits), dtype=bool)
    for start, stop in parts:
        spoken[-(-(start - first) // STEP) : max(0, (stop - first - SPAN) // STEP + 1)] = True
    return Fingerprint(whole.bits, whole.loud & spoken)


class RunningFingerprint:
    """The fingerprint of audio that arrives in blocks."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, dtype=np.float32)
        self._bits: list[Bits] = [np.zeros(0, dtype=np.uint32)]
        self._power: list[Floats] = [np.zeros(0, dtype=np.float32)]

    def add(self, audio: Floats) -> None:
        """Process the next float32[n] at 16 kHz."""
        audio = np.concatenate((self._rest, audio))
        count = max(0, (len(audio) - SPAN) // STEP + 1)
        self._rest = audio[count * STEP :].copy()
        if not count:
            return
        with np.errstate(all="ignore"):  # a caller's "raise" would turn underflow into an error
            energies = _energies(audio[: (count - 1) * STEP + SPAN])
            slopes = np.cumsum(energies[:, :-1] - energies[:, 1:], axis=0, dtype=np.float64)
            slopes = np.concatenate((np.zeros((1, _BANDS - 1)), slopes))
            sums = slopes[_SUMMED:] - slopes[:-_SUMMED]
            signs = sums[_SUMMED:] - sums[:-_SUMMED] > 0
            self._bits.append(np.packbits(signs, axis=1).view(">u4")[:, 0].astype(np.uint32))
            level = np.concatenate(([0.0], np.cumsum(energies.sum(axis=1), dtype=np.float64)))
            self._power.append(np.float32(level[2 * _SUMMED :] - level[: -2 * _SUMMED]))

    def fingerprint(self) -> Fingerprint:
        """The fingerprint so far; further audio may follow."""
        self._bits, self._power = [np.concatenate(self._bits)], [np.concatenate(self._power)]
        (bits,), (power,) = self._bits, self._power
        return Fingerprint(bits, power > max(float(power.max(initial=0.0)) * _MIN_POWER, 1e-9))


class FingerprintIndex:
    """Finds stretches that recordings share."""

    def __init__(self, prints: list[Fingerprint], *, max_occurrences: int | None = None) -> None:
        """max_occurrences: ignore fingerprints that occur more often than this."""
        self._prints = prints
        sizes = [len(each.bits) for each in prints]
        self._starts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        loud = np.flatnonzero(np.concatenate([each.loud for each in prints] or [np.zeros(0, dtype=bool)]))
        bits = np.concatenate([each.bits for each in prints] or [np.zeros(0, dtype=np.uint32)])[loud]
        order = np.argsort(bits, kind="stable")
        self._bits, self._positions = bits[order], loud[order]
        self._max_occurrences = max_occurrences or len(bits)

    def candidates(self, probe: Fingerprint) -> list[tuple[int, int]]:
        """Pairs (recording, shift of the probe in it) with identical fingerprints, most hits first."""
        positions = np.flatnonzero(probe.loud)
        # Searches in ascending order stay in the processor's cache; few fingerprints are there at all.
        positions = positions[np.argsort(probe.bits[positions])]
        first = np.searchsorted(self._bits, probe.bits[positions], "left")
        there = first < len(self._bits)
        there[there] = self._bits[first[there]] == probe.bits[positions[there]]
        first, positions = first[there], positions[there]
        counts = np.searchsorted(self._bits, probe.bits[positions], "right") - first
        usable = counts <= self._max_occurrences
        first, counts, positions = first[usable], counts[usable], positions[usable]
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        matches = self._positions[np.repeat(first, counts) + within]
        recordings = np.searchsorted(self._starts, matches, "right") - 1
        shifts = matches - self._starts[recordings] - np.repeat(positions, counts)
        # Copies are rarely aligned to whole steps: hits of adjacent shifts are added.
        offset = len(probe.bits) + 1
        keys = recordings * (1 << 32) + shifts + offset
        keys, hits = np.unique(keys, return_counts=True)
        hits = hits + np.where(np.diff(keys, append=-9) == 1, np.append(hits[1:], 0), 0)
        order = np.argsort(-hits, kind="stable")[: np.count_nonzero(hits >= _MIN_HITS)]
        return [(int(key >> 32), int(key & 0xFFFFFFFF) - offset) for key in keys[order]]

    def stretches(self, probe: Fingerprint, recording: int, shift: int) -> list[tuple[int, int]]:
        """Start and stop of the probe's fingerprints that match the recording at `shift`."""
        other = self._prints[recording]
        begin, end = max(0, -shift), min(len(probe.bits), len(other.bits) - shift)
        if end <= begin:
            return []
        errors = _bit_count(probe.bits[begin:end] ^ other.bits[begin + shift : end + shift])
        errors[~(probe.loud[begin:end] & other.loud[begin + shift : end + shift])] = _CHANCE_ERRORS
        width = min(SECOND, len(errors))
        total = np.concatenate(([0], np.cumsum(errors)))
        similar = total[width:] - total[:-width] <= _MAX_ERROR_RATE * 32 * width
        ends = np.flatnonzero(errors <= _MAX_END_ERRORS)
        matches: list[tuple[int, int]] = []
        for start, stop in true_runs(similar):
            inside = ends[(ends >= start) & (ends < stop - 1 + width)]
            if len(inside) < width // 4:
                continue
            first, last = int(inside[0]), int(inside[-1])
            length = last + 1 - first
            if length < _LONG and total[last + 1] - total[first] > _MAX_SHORT_ERROR_RATE * 32 * length:
                continue
            match = begin + first, begin + last + 1
            if matches and match[0] - matches[-1][1] < SECOND:
                match = matches.pop()[0], match[1]
            matches.append(match)
        return matches


def _bit_count(bits: Bits) -> npt.NDArray[np.int64]:
    """Number of set bits of each value; numpy 1 has no such function."""
    low, high = _bit_counts_16()[bits & 0xFFFF], _bit_counts_16()[bits >> 16]
    counts: npt.NDArray[np.int64] = low + high
    return counts


@lru_cache(maxsize=1)
def _bit_counts_16() -> npt.NDArray[np.int64]:
    return np.array([value.bit_count() for value in range(1 << 16)], dtype=np.int64)


def _energies(audio: Floats) -> Floats:
    """Band energies, float32[t, 33], in windows of 64 ms every 16 ms."""
    # Decimated by sums of neighbors: their aliases are weak, and equal in copies.
    half = audio[: len(audio) // 2 * 2 : 2] + audio[1::2]
    ends, middle = half[:-3] + half[3:], half[1:-2] + half[2:-1]
    quarter = ends[::2] + 3 * middle[::2]
    windows = np.lib.stride_tricks.sliding_window_view(quarter, _WINDOW)[:: STEP // _DOWN]
    spectra = np.fft.rfft(windows * _hann())
    power = np.asarray(spectra.real**2 + spectra.imag**2, dtype=np.float32)
    edges = _edges()
    # A matrix product would start the threads of the BLAS.
    bands: Floats = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1)
    return bands


@lru_cache(maxsize=1)
def _hann() -> Floats:
    return np.asarray(np.hanning(_WINDOW + 1)[:-1], dtype=np.float32)


@lru_cache(maxsize=1)
def _edges() -> npt.NDArray[np.int64]:
    """First bin of each band, and the end of the last. Mel is ln(1 + f / 700) (O'Shaughnessy)."""
    hertz = 700.0 * np.expm1(np.linspace(np.log1p(_LOW_HZ / 700), np.log1p(_HIGH_HZ / 700), _BANDS + 1))
    return np.ceil(hertz * _WINDOW * _DOWN / 16000).astype(np.int64)
