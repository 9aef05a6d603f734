"""DC offset and mains hum: found, and cut out with all that lies up to 60 Hz.

No voice is below 60 Hz, but the encoder sees these frequencies, and the level of the audio, by which quiet
audio is raised, counts them too. An offset of 0.05 or 0.2 of full scale, or a hum of 50 Hz at 0.1, takes
callers' cosine with their own print from 0.81-0.89 to 0.67-0.78, 0.59-0.66 and 0.64-0.71; cut out, an offset
changes it by 0.002, the hum by up to 0.02 (`research/low-frequencies.md`, three sets of speakers).

Only audio in which an offset holds over a fiftieth of the power, or a line at 50 or 60 Hz over a sixteenth,
is filtered. Rumble is not: up to a quarter of clean recordings have as much of it, cutting it from print and
probe changes nothing (the same page), and the embedding of a clean recording stays Resemblyzer's to the
bit. Of clean recordings 0 to 5 % have such a component.
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
"""Where the filter is 6 dB down where hum is cut out: 60 Hz and all below are gone (-50 dB), 78 Hz passes."""

OFFSET_CUTOFF_HZ: Final = 20.0
"""The same for an offset alone, so that the voice keeps its very lows, as in its clean recordings."""

OFFSET_SHARE: Final = 1 / 50
"""Share of the power, -17 dB, from which an offset counts: at 0.04 of it a probe has lost 0.07 of cosine."""

HUM_SHARE: Final = 1 / 16
"""The same of a line, -12 dB: clean recordings have one of up to -13 dB."""

_MAINS_HZ: Final = (50.0, 60.0)
_LINE_HZ: Final = 1.0  # to either side of the mains frequency
# Samples that are averaged: the low band is looked at with a rate of 250 Hz. A tone near 200 Hz, which stands
# for 50 Hz then, is 12 dB fainter, and so never holds enough.
_STEP: Final = 64
_SHORTEST: Final = 125  # values, 0.5 s: in less, a line is as wide as a voice
REACH: Final = 1600
"""Samples to either side that the filter sees, 0.1 s: it falls within 17 Hz from 0 to -53 dB."""


class LowFrequencyMeter:
    """Measures steady components under 60 Hz of mono audio at 16 kHz that comes in pieces of any length."""

    def __init__(self) -> None:
        self._low: list[Audio] = []
        self._rest = np.zeros(0, dtype=np.float32)
        self._energy = 0.0
        self._samples = 0

    def add(self, audio: Audio) -> None:
        """Take the next piece, float32[n]."""
        self._energy += energy_of(audio)
        self._samples += len(audio)
        joined = np.concatenate((self._rest, audio)) if len(self._rest) else audio
        whole = len(joined) - len(joined) % _STEP
        if whole:
            self._low.append(joined[:whole].reshape(-1, _STEP).mean(axis=1))
        self._rest = joined[whole:].copy()

    def shares(self) -> tuple[float, float]:
        """The shares of the power, 0..1, that the offset holds, and the stronger line of 50 or 60 Hz."""
        if not self._low or self._energy <= 0.0:
            return 0.0, 0.0
        low = np.concatenate(self._low).astype(np.float64)
        if len(low) < _SHORTEST:
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
        """The cutoff of the filter that the audio is to get; None for none."""
        offset, hum = self.shares()
        if hum > HUM_SHARE:
            return HUM_CUTOFF_HZ
        return OFFSET_CUTOFF_HZ if offset > OFFSET_SHARE else None


class HighPass:
    """Audio without its frequencies under a cutoff, neither delayed nor shortened; filtered as it is read."""

    def __init__(self, audio: Samples, cutoff_hz: float) -> None:
        self._audio = audio
        self._low_pass = _low_pass(cutoff_hz)

    def __len__(self) -> int:
        return len(self._audio)

    def __getitem__(self, part: slice) -> Audio:
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError("Only whole parts can be read, without a step.")
        before, after = max(0, start - REACH), min(len(self), stop + REACH)
        # Mirrored at both ends: an offset that began there would be a step.
        around = np.pad(
            self._audio[before:after], (REACH - start + before, stop + REACH - after), "symmetric"
        )
        size = 1 << (len(around) + 2 * REACH).bit_length()
        low = np.fft.irfft(np.fft.rfft(around, size) * np.fft.rfft(self._low_pass, size), size)
        kept = around[REACH : REACH + stop - start] - low[2 * REACH : 2 * REACH + stop - start]
        return np.asarray(kept, dtype=np.float32)


@lru_cache(maxsize=2)
def _low_pass(cutoff_hz: float) -> Audio:
    """float32[3201]: a sinc under a Hamming window, of sum 1 (Oppenheim and Schafer, ch. 7)."""
    place = np.arange(-REACH, REACH + 1)
    taps = np.sinc(2.0 * cutoff_hz / SAMPLE_RATE * place) * np.hamming(2 * REACH + 1)
    return np.asarray(taps / taps.sum(), dtype=np.float32)


def _response(frequency: float) -> float:
    """The power that the averaging leaves of a line at so many Hz."""
    return float(np.sinc(frequency * _STEP / SAMPLE_RATE) ** 2)
