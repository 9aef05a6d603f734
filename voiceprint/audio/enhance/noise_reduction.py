"""Steady noise taken off before the encoder hears it: spectral subtraction, as mild as serves.

The encoder sees the power of the mel bands, not its logarithm, and has heard little noise: white noise
20 dB under the speech moves an embedding further than the whole of a telephone line does. Taken off
gently, clean speech keeps its embedding (cosine 0.99) and noisy speech comes nearer to it. Harder
subtraction, and equalizing the long-term spectrum, were measured and lost (research/telephone-lines.md).
Raising what a line took of the lows alone wins: `voiceprint.audio.enhance.low_frequencies`.

Source: Berouti, Schwartz and Makhoul, "Enhancement of speech corrupted by acoustic noise", ICASSP 1979
(subtraction of power with a floor); the noise is a low quantile of the power in each frequency, after
Stahl, Fischer and Bippus, "Quantile based noise estimation", ICASSP 2000.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio.enhance.low_frequencies import restore_low_frequencies
from voiceprint.audio.quality.model import AudioQuality

_WINDOW: Final = 512  # 32 ms at 16 kHz
_HOP: Final = _WINDOW // 4
_BLOCK: Final = 2500  # frames, 20 s, over which the noise counts as steady; bounds the memory as well
_SMOOTHING: Final = np.float32(0.7)
_QUANTILE: Final = 0.1
_BIAS: Final = 2.0  # from the low quantile of smoothed noise power up to somewhat over its mean
_FLOOR: Final = 0.05  # of the power that is left at least

NOISY_DB: Final = 25.0
"""Signal-to-noise ratio under which audio counts as noisy: clean recordings have 28 to 60 dB."""

NARROWBAND: Final = "narrowband"
"""What the quality of a telephone line says of it."""

Audio = NDArray[np.float32]


def is_noisy(quality: AudioQuality) -> bool:
    """Whether `reduce_noise` helps; clean audio is left as it is, and keeps its very embedding."""
    return quality.snr_db < NOISY_DB


def may_be_cleaned(quality: AudioQuality) -> bool:
    """Whether `cleaned` may do anything: noisy audio, and that of a telephone line."""
    return is_noisy(quality) or NARROWBAND in quality.feedback


def cleaned(audio: Audio, quality: AudioQuality) -> Audio:
    """What says most of the voice: noise reduced where it is noisy, and lows back that a line took.

    audio: as for `reduce_noise`. Where there is nothing to do, it is given back itself.
    """
    if is_noisy(quality):
        return restore_low_frequencies(reduce_noise(audio))
    return restore_low_frequencies(audio) if NARROWBAND in quality.feedback else audio


def reduce_noise(audio: Audio) -> Audio:
    """The audio with less of what goes on all the time.

    Args:
        audio: float32[n] in [-1, 1] at 16 kHz, as from `to_mono`.

    Returns:
        float32[n], not aligned in level, neither delayed nor shortened. Silence stays silence.
    """
    frames = -(-len(audio) // _HOP) + 3  # so that four windows lie over every sample
    window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    cleaned = np.zeros((frames + 3) * _HOP, dtype=np.float32)
    blocks = max(1, round(frames / _BLOCK))
    for numbers in np.array_split(np.arange(frames), blocks):
        first, count = int(numbers[0]), len(numbers)
        heard = _samples(audio, first * _HOP - 3 * _HOP, (count + 3) * _HOP)
        pieces = np.lib.stride_tricks.sliding_window_view(heard, _WINDOW)[::_HOP]
        spectra = np.fft.rfft(pieces * window, axis=1).astype(np.complex64, copy=False)
        spectra *= np.sqrt(_kept_power(np.abs(spectra) ** 2))
        back = np.fft.irfft(spectra, _WINDOW, axis=1).astype(np.float32, copy=False) * window
        for quarter in range(4):  # of each window: where the windows lie side by side
            part = back[:, quarter * _HOP : (quarter + 1) * _HOP].reshape(-1)
            start = (first + quarter) * _HOP
            cleaned[start : start + len(part)] += part
    # Four Hann windows squared sum to 1.5.
    cleaned /= np.float32(1.5)
    return cleaned[3 * _HOP : 3 * _HOP + len(audio)]


def _samples(audio: Audio, start: int, count: int) -> Audio:
    """So many samples; zeros outside of the audio."""
    read = np.zeros(count, dtype=np.float32)
    first, last = max(start, 0), min(start + count, len(audio))
    read[first - start : last - start] = audio[first:last]
    return read


def _kept_power(power: Audio) -> Audio:
    """The share of the power [frames, frequencies] that is kept, `_FLOOR` to 1."""
    smooth = np.empty_like(power)
    last = np.zeros(power.shape[1], dtype=np.float32)
    for frame, now in zip(smooth, power, strict=True):
        last = _SMOOTHING * last + (np.float32(1.0) - _SMOOTHING) * now
        frame[:] = last
    rank = round(_QUANTILE * (len(smooth) - 1))
    noise = np.float32(_BIAS) * np.partition(smooth, rank, axis=0)[rank]
    return np.asarray(np.maximum(1.0 - noise / np.maximum(smooth, np.float32(1e-20)), np.float32(_FLOOR)))
