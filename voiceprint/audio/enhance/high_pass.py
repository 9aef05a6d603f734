"""Detection and removal of a DC offset and mains hum, with all frequencies up to 60 Hz.

No voice is below 60 Hz, but the encoder's input includes these frequencies, and so does the level by which
quiet audio is amplified. An offset of 0.05 or 0.2 of full scale, or a hum of 50 Hz at 0.1, reduces callers'
cosine with their own print from 0.81-0.89 to 0.67-0.78, 0.59-0.66 and 0.64-0.71; after removal, an offset
changes it by 0.002, the hum by up to 0.02 (`research/low-frequencies.md`, three sets of speakers).

The filter applies only if an offset exceeds a fiftieth of the power, or a line at 50 or 60 Hz a sixteenth, as
in 0 to 5 % of clean recordings. It ignores rumble: up to a quarter of clean recordings have as much of it,
removal from print and probe changes nothing (the same page), and so the embedding of a clean recording stays
equal to Resemblyzer's to the bit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio.io.buffers import SAMPLE_RATE
from voiceprint.audio.io.lazy_audio import Samples
from voiceprint.audio.speech.vad import energy_of

Audio = NDArray[np.float32]

HUM_CUTOFF_HZ: Final = 69.0
"""The -6 dB frequency of the filter against hum: -50 dB up to 60 Hz, and no loss from 78 Hz."""

OFFSET_CUTOFF_HZ: Final = 20.0
"""The same for an offset alone, which preserves the lowest frequencies of the voice."""

OFFSET_SHARE: Final = 1 / 50
"""Share of the power, -17 dB, above which an offset is removed: 0.04 costs a probe 0.07 of cosine."""

HUM_SHARE: Final = 1 / 16
"""The same for a line, -12 dB: clean recordings have lines of up to -13 dB."""

_MAINS_HZ: Final = (50.0, 60.0)
_LINE_HZ: Final = 1.0  # half width of a line
# Samples averaged for a low band sampled at 250 Hz. A tone near 200 Hz, which aliases to 50 Hz, loses 12 dB,
# and so never exceeds the threshold.
_STEP: Final = 64
_MIN_VALUES: Final = 125  # 0.5 s: in less, a line is as wide as a voice
REACH: Final = 1600
"""Half length of the filter in samples, 0.1 s: it falls from 0 to -53 dB within 17 Hz."""


class LowFrequencyMeter:
    """Measures steady components below 60 Hz of mono audio at 16 kHz in pieces of any length."""

    def __init__(self) -> None:
        self._low: list[Audio] = []
        self._rest = np.zeros(0, dtype=np.float32)
        self._energy = 0.0
        self._samples = 0

    def add(self, audio: Audio) -> None:
        """Process the next piece, float32[n]."""
        self._energy += energy_of(audio)
        self._samples += len(audio)
        joined = np.concatenate((self._rest, audio)) if len(self._rest) else audio
        whole = len(joined) - len(joined) % _STEP
        if whole:
            self._low.append(joined[:whole].reshape(-1, _STEP).mean(axis=1))
        self._rest = joined[whole:].copy()

    def shares(self) -> tuple[float, float]:
        """Shares of the power, 0..1, of the offset, and of the stronger line at 50 or 60 Hz."""
        if not self._low or self._energy <= 0.0:
            return 0.0, 0.0
        low = np.concatenate(self._low).astype(np.float64)
        if len(low) < _MIN_VALUES:
            return 0.0, 0.0
        power, mean = self._energy / self._samples, float(low.mean())
        window = np.hanning(len(low))
        spectrum = np.square(np.abs(np.fft.rfft((low - mean) * window)))
        spectrum *= 2.0 / (np.square(window).sum() * len(low))
        frequency = np.fft.rfftfreq(len(low), _STEP / SAMPLE_RATE)
        lines = [
            float(spectrum[np.abs(frequency - mains) < _LINE_HZ].sum()) / _response(mains)
            for mains in _MAINS_HZ
        ]
        return min(1.0, mean**2 / power), min(1.0, max(lines) / power)

    @property
    def cutoff_hz(self) -> float | None:
        """Cutoff of the filter that the audio needs, Hz; None if it needs none."""
        offset, hum = self.shares()
        if hum > HUM_SHARE:
            return HUM_CUTOFF_HZ
        return OFFSET_CUTOFF_HZ if offset > OFFSET_SHARE else None


class HighPass:
    """Audio without frequencies below a cutoff, neither delayed nor shortened; filtered on reading."""

    def __init__(self, audio: Samples, cutoff_hz: float) -> None:
        self._audio = audio
        self._low_pass = _low_pass(cutoff_hz)

    def __len__(self) -> int:
        return len(self._audio)

    def __getitem__(self, part: slice) -> Audio:
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError("Slices must have no step.")
        before, after = max(0, start - REACH), min(len(self), stop + REACH)
        # Mirrored at both ends: an offset after zeros would be a step.
        around = np.pad(
            self._audio[before:after], (REACH - start + before, stop + REACH - after), "symmetric"
        )
        size = 1 << (len(around) + 2 * REACH).bit_length()
        low = np.fft.irfft(np.fft.rfft(around, size) * np.fft.rfft(self._low_pass, size), size)
        filtered = around[REACH : REACH + stop - start] - low[2 * REACH : 2 * REACH + stop - start]
        return np.asarray(filtered, dtype=np.float32)


@lru_cache(maxsize=2)
def _low_pass(cutoff_hz: float) -> Audio:
    """float32[3201]: a sinc under a Hamming window, of sum 1 (Oppenheim and Schafer, ch. 7)."""
    time = np.arange(-REACH, REACH + 1)
    taps = np.sinc(2.0 * cutoff_hz / SAMPLE_RATE * time) * np.hamming(2 * REACH + 1)
    return np.asarray(taps / taps.sum(), dtype=np.float32)


def _response(frequency: float) -> float:
    """Power gain of the averaging at `frequency` Hz."""
    return float(np.sinc(frequency * _STEP / SAMPLE_RATE) ** 2)
