"""Spectral features of audio, one row per 60 ms, from which the segmenter and the quality score work.

A row covers two windows of the VAD: three spectra of 32 ms, which resolve syllables, formants and short
tones, and one of 64 ms, which resolves harmonics. A row depends on the samples around it alone, so pieces cut
anywhere give the same rows to the bit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from voiceprint.audio.speech.vad import WINDOW

Floats = npt.NDArray[np.float32]
Samples = npt.NDArray[np.float32]

BANDS: Final = 20
"""Mel bands between `LOW_HZ` and `HIGH_HZ`: a telephone changes them little."""
LOW_HZ: Final = 100.0
HIGH_HZ: Final = 3800.0
WIDE: Final = 32
"""Bands of 250 Hz."""

ROW: Final = 2 * WINDOW
"""Samples per row: 60 ms."""
FRAMES: Final = 3
"""Short spectra per row."""
MARGIN: Final = 96
"""Samples a row uses before and after its own, 6 ms: the short spectra are centered on their 20 ms."""

_RATE: Final = 16_000
_SHORT: Final = 512  # 32 ms
_LONG: Final = 1024  # 64 ms
_HOP: Final = ROW // FRAMES  # of the short spectra, 20 ms
_SPAN: Final = ROW + 2 * MARGIN
_FIRST_LONG: Final = (_SPAN - _LONG) // 2
_FIRST_BIN: Final = 13  # of the long spectrum, 203 Hz: below, hum would be the strongest tone of a pause
_LAST_BIN: Final = 243  # 3797 Hz, where harmonics end
_LAST_TONE: Final = 269  # 4203 Hz
_ENVELOPE: Final = 17  # bins of 15.6 Hz averaged into the envelope, above which harmonics rise
# The system maps arrays over 128 KiB anew each time, which triples the total time.
_GROUP: Final = 40  # rows at a time
_TRANSFORMED: Final = 30_000  # samples at a time
_TINY: Final = 1e-20

# Half width of the main lobe of a Hann window: two bins. In the long spectrum two more, so that the pair 440
# and 480 Hz of a ring-back is one peak.
_SHORT_LOBE: Final = 2
_LONG_LOBE: Final = 4
_LOWEST_PEAK: Final = 3  # bins of the short spectrum: 94 Hz to 4188 Hz
_HIGHEST_PEAK: Final = 135
_PEAKED: Final = 0.2  # least share of the power in the highest bin of a tone, or of the stronger of two
_TONAL: Final = 0.8  # least share of two peaks for which their frequencies are measured


class Rows(NamedTuple):
    """Features of r rows. Powers refer to samples in [-1, 1] under a Hann window."""

    bands: Floats
    """float32[r, 3, 20]: energies of mel bands, every 20 ms."""
    wide: Floats
    """float32[r, 32]: energies of bands of 250 Hz, of the first short spectrum."""
    harmonic_correlation: Floats
    """float32[r]: correlation of the harmonics with those 60 ms before, -1..1."""
    harmonic_power: Floats
    """float32[r]: power of the harmonics, 0.2 to 3.8 kHz."""
    spectral_similarity: Floats
    """float32[r]: cosine of the power spectrum with that 60 ms before, 0..1."""
    pair_share: Floats
    """float32[r]: share of the power from 0.2 to 4.2 kHz in the two strongest peaks; 0 where it is small."""
    strongest_hz: Floats
    """float32[r]: the strongest peak, to 8 Hz."""
    power: Floats
    """float32[r, 3]: power from 0.1 to 4.2 kHz, every 20 ms."""
    peak_share: Floats
    """float32[r, 3]: share of `power` in the strongest peak; 0 where it is small."""
    two_peak_share: Floats
    """float32[r, 3]: share of `power` in the two strongest peaks; 0 where that of the strongest is small."""
    peak_hz: Floats
    """float32[r, 3]: the strongest peak, interpolated; 0 where `two_peak_share` is small."""
    second_hz: Floats
    """float32[r, 3]: the second strongest peak, as `peak_hz`."""


_SHAPES: Final[dict[str, tuple[int, ...]]] = {
    "bands": (FRAMES, BANDS), "wide": (WIDE,),
    "harmonic_correlation": (), "harmonic_power": (), "spectral_similarity": (), "pair_share": (),
    "strongest_hz": (),
    "power": (FRAMES,), "peak_share": (FRAMES,), "two_peak_share": (FRAMES,), "peak_hz": (FRAMES,),
    "second_hz": (FRAMES,),
}  # fmt: skip
_COLUMNS: Final = np.cumsum([0, *(int(np.prod(shape)) for shape in _SHAPES.values())]).tolist()


class Spectrogram:
    """The rows of audio that arrives in pieces, float32 mono at 16 kHz."""

    def __init__(self, expected: int = 0) -> None:
        """expected: samples to allocate for."""
        self._pending: Samples = np.zeros(0, dtype=np.float32)
        self._started = False
        self._table: Floats = np.empty((max(32, expected // ROW + 1), _COLUMNS[-1]), dtype=np.float32)
        self._previous_fine: Floats = np.zeros((1, _LAST_BIN - _FIRST_BIN), dtype=np.float32)
        self._previous_shape: Floats = np.zeros((1, _LAST_TONE - _FIRST_BIN), dtype=np.float32)
        self.count = 0
        """Number of complete rows."""

    def add(self, audio: Samples) -> None:
        """Process the next piece, of any length."""
        self._pending = np.concatenate((self._pending, audio))
        if not self._started:
            if len(self._pending) < MARGIN:
                return
            # Mirrored: after zeros, audio that starts loud would start with a click.
            self._pending = np.concatenate((self._pending[MARGIN - 1 :: -1], self._pending))
            self._started = True
        new = (len(self._pending) - _SPAN) // ROW + 1
        if new <= 0:
            return
        if self.count + new > len(self._table):
            table = np.empty((max(self.count + new, 2 * len(self._table)), _COLUMNS[-1]), dtype=np.float32)
            table[: self.count] = self._table[: self.count]
            self._table = table
        with np.errstate(all="ignore"):  # a caller's "raise" would turn underflow into an error
            for first in range(0, new, _GROUP):
                group = min(_GROUP, new - first)
                part = self._pending[first * ROW : (first + group - 1) * ROW + _SPAN]
                rows = self._rows(self.count, self.count + group)
                self._measure_long(_power(_frames(part[_FIRST_LONG:-_FIRST_LONG], _LONG, ROW)), rows)
                _measure_short(_power(_frames(part, _SHORT, _HOP)[: FRAMES * group]), rows)
                self.count += group
        self._pending = self._pending[new * ROW :].copy()

    def rows(self) -> Rows:
        """The complete rows: those that `MARGIN` samples follow. Views, valid until the next `add`."""
        return self._rows(0, self.count)

    def _rows(self, start: int, stop: int) -> Rows:
        table = self._table[start:stop]
        return Rows(
            *(
                table[:, first:last].reshape(-1, *shape) if shape else table[:, first]
                for first, last, shape in zip(_COLUMNS[:-1], _COLUMNS[1:], _SHAPES.values(), strict=True)
            )
        )

    def _measure_long(self, power: Floats, rows: Rows) -> None:
        half = _ENVELOPE // 2
        harmonics = power[:, _FIRST_BIN:_LAST_BIN]
        least = harmonics.max(axis=1, keepdims=True) * np.float32(1e-7) + np.float32(_TINY)
        levels = np.log(power[:, _FIRST_BIN - half - 1 : _LAST_BIN + half] + least)
        total = np.cumsum(levels, axis=1, dtype=np.float64)
        envelope = (total[:, _ENVELOPE:] - total[:, :-_ENVELOPE]) / _ENVELOPE
        fine = np.subtract(levels[:, half + 1 : -half], envelope, dtype=np.float32, casting="same_kind")
        fine /= np.sqrt(np.einsum("tf,tf->t", fine, fine))[:, None] + np.float32(1e-6)
        rows.harmonic_correlation[:], self._previous_fine = _correlate_with_previous(
            fine, self._previous_fine
        )
        harmonics.sum(axis=1, out=rows.harmonic_power)
        shape = power[:, _FIRST_BIN:_LAST_TONE]
        shape = shape / (np.sqrt(np.einsum("tf,tf->t", shape, shape))[:, None] + np.float32(_TINY))
        rows.spectral_similarity[:], self._previous_shape = _correlate_with_previous(
            shape, self._previous_shape
        )
        rows.pair_share[:] = 0.0
        total = shape.sum(axis=1)
        rows.strongest_hz[:] = (shape.argmax(axis=1) + _FIRST_BIN) * np.float32(_RATE / _LONG)
        peaked = np.flatnonzero(shape.max(axis=1) > _PEAKED * total)
        if len(peaked):
            spectrum = shape[peaked]
            _, first = _take_peak(spectrum, _LONG_LOBE)
            _, second = _take_peak(spectrum, _LONG_LOBE)
            rows.pair_share[peaked] = (first + second) / total[peaked]


def _correlate_with_previous(values: Floats, previous: Floats) -> tuple[Floats, Floats]:
    """Inner products of each row with the row before, and the last row."""
    chain = np.concatenate((previous, values))
    return np.einsum("tf,tf->t", chain[1:], chain[:-1]), values[-1:].copy()


def _measure_short(power: Floats, rows: Rows) -> None:
    rows.bands[:] = _mel_energies(power).reshape(rows.bands.shape)
    rows.wide[:] = power[::FRAMES, :-1].reshape(-1, WIDE, 8).sum(axis=2)
    spectra = power[:, _LOWEST_PEAK:_HIGHEST_PEAK]
    total = spectra.sum(axis=1)
    rows.power[:] = total.reshape(rows.power.shape)
    for empty in (rows.peak_share, rows.two_peak_share, rows.peak_hz, rows.second_hz):
        empty[:] = 0.0
    peaked = np.flatnonzero(spectra.max(axis=1) > _PEAKED * total + _TINY)
    if len(peaked):
        row, frame = np.divmod(peaked, FRAMES)
        spectra, total = spectra[peaked], total[peaked]
        levels = spectra.copy()
        first, first_power = _take_peak(spectra, _SHORT_LOBE)
        second, second_power = _take_peak(spectra, _SHORT_LOBE)
        both = first_power + second_power
        rows.peak_share[row, frame] = first_power / total
        rows.two_peak_share[row, frame] = both / total
        tone = np.flatnonzero(both > _TONAL * total)
        if len(tone):
            row, frame = row[tone], frame[tone]
            frequencies = _interpolate_peaks(levels[tone], first[tone], second[tone])
            rows.peak_hz[row, frame], rows.second_hz[row, frame] = frequencies


def _take_peak(spectrum: Floats, lobe: int) -> tuple[npt.NDArray[np.intp], Floats]:
    """The bin of the highest value of each row, and the sum of its lobe, which this sets to zero."""
    peak = spectrum.argmax(axis=1)
    around = np.clip(peak[:, None] + np.arange(-lobe, lobe + 1), 0, spectrum.shape[1] - 1)
    # At an edge the same bin counts more than once, which only strengthens a peak there a little.
    row = np.arange(len(spectrum))[:, None]
    power = spectrum[row, around].sum(axis=1)
    spectrum[row, around] = 0.0
    return peak, power


def _interpolate_peaks(power: Floats, *peaks: npt.NDArray[np.intp]) -> Floats:
    """Frequencies of peaks [t] each, Hz, by a parabola through the logarithm of three bins."""
    center = np.clip(np.stack(peaks), 1, power.shape[1] - 2)
    row = np.arange(len(power))
    below, middle, above = (np.log(power[row, center + step] + np.float32(_TINY)) for step in (-1, 0, 1))
    curvature = np.minimum(below - 2.0 * middle + above, np.float32(-1e-3))
    offset = np.clip(0.5 * (below - above) / curvature, -0.5, 0.5)
    return np.asarray((center + _LOWEST_PEAK + offset) * (_RATE / _SHORT), dtype=np.float32)


def band_energies(audio: Samples, hop: int) -> Floats:
    """Energies float32[t, 20] of the mel bands, in frames of 32 ms every `hop` samples."""
    return _mel_energies(_power(_frames(audio, _SHORT, hop)))


def _mel_energies(power: Floats) -> Floats:
    edges, end = _mel_edges()
    energies: Floats = np.add.reduceat(power[:, :end], edges, axis=1)
    return energies


def _frames(part: Samples, length: int, hop: int) -> Floats:
    return np.lib.stride_tricks.sliding_window_view(part, length)[::hop]


def _power(frames: Floats) -> Floats:
    """Power spectra under a Hann window."""
    count, length = frames.shape
    power = np.empty((count, length // 2 + 1), dtype=np.float32)
    step = _TRANSFORMED // length
    for first in range(0, count, step):
        spectra = np.fft.rfft(frames[first : first + step] * _hann(length))
        np.add(np.square(spectra.real), np.square(spectra.imag), out=power[first : first + step])
    return power


@lru_cache(maxsize=2)
def _hann(length: int) -> Floats:
    return np.asarray(np.hanning(length + 1)[:-1], dtype=np.float32)


@lru_cache(maxsize=1)
def _mel_edges() -> tuple[npt.NDArray[np.intp], int]:
    """First bins of bands of equal width in mel, ln(1 + f / 700) (O'Shaughnessy), and the end of the last."""
    low, high = np.log1p(LOW_HZ / 700.0), np.log1p(HIGH_HZ / 700.0)
    edges = 700.0 * np.expm1(np.linspace(low, high, BANDS + 1))
    bins = np.ceil(edges * _SHORT / _RATE - 1e-9).astype(np.intp)
    return bins[:-1], int(bins[-1])
