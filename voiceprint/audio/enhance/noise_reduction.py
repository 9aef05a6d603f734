"""Mild spectral subtraction of steady noise before embedding.

The encoder's input is the power of mel bands, not its logarithm, and its training data had little noise:
white noise 20 dB below the speech shifts an embedding further than a whole telephone line. Mild subtraction
preserves the embedding of clean speech (cosine 0.99) and moves that of noisy speech closer to it. Stronger
subtraction, and equalization of the long-term spectrum, performed worse (research/telephone-lines.md).
Amplifying only the low frequencies that a line attenuates performed better:
`voiceprint.audio.enhance.low_frequencies`.

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
_BLOCK: Final = 2500  # frames, 20 s, of noise assumed steady; also bounds the memory
_SMOOTHING: Final = np.float32(0.7)
_QUANTILE: Final = 0.1
_BIAS: Final = 2.0  # from the low quantile of smoothed noise power to slightly above its mean
_FLOOR: Final = 0.05  # least remaining share of the power

NOISY_DB: Final = 25.0
"""Signal-to-noise ratio below which audio counts as noisy: clean recordings have 28 to 60 dB."""

NARROWBAND: Final = "narrowband"
"""The feedback code of audio from a telephone line."""

Audio = NDArray[np.float32]


def is_noisy(quality: AudioQuality) -> bool:
    """Whether the audio needs `reduce_noise`; clean audio stays unchanged, and so does its embedding."""
    return quality.snr_db < NOISY_DB


def clean(audio: Audio, quality: AudioQuality) -> Audio:
    """Reduce noise in noisy audio, and restore the low frequencies of a telephone line.

    audio: as for `reduce_noise`; returned itself if neither applies.
    """
    if is_noisy(quality):
        return restore_low_frequencies(reduce_noise(audio))
    return restore_low_frequencies(audio) if NARROWBAND in quality.feedback else audio


def reduce_noise(audio: Audio) -> Audio:
    """The audio with less steady noise.

    Args:
        audio: float32[n] in [-1, 1] at 16 kHz, as from `to_mono`.

    Returns:
        float32[n], neither delayed nor shortened, at a possibly lower level. Silence stays silence.
    """
    frames = -(-len(audio) // _HOP) + 3  # so that four windows cover every sample
    window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    reduced = np.zeros((frames + 3) * _HOP, dtype=np.float32)
    blocks = max(1, round(frames / _BLOCK))
    for numbers in np.array_split(np.arange(frames), blocks):
        first, count = int(numbers[0]), len(numbers)
        padded = _padded_slice(audio, first * _HOP - 3 * _HOP, (count + 3) * _HOP)
        pieces = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
        spectra = np.fft.rfft(pieces * window, axis=1).astype(np.complex64, copy=False)
        spectra *= np.sqrt(_power_gain(np.abs(spectra) ** 2))
        output = np.fft.irfft(spectra, _WINDOW, axis=1).astype(np.float32, copy=False) * window
        for quarter in range(4):  # of each window: equal quarters do not overlap
            part = output[:, quarter * _HOP : (quarter + 1) * _HOP].reshape(-1)
            start = (first + quarter) * _HOP
            reduced[start : start + len(part)] += part
    # Four Hann windows squared sum to 1.5.
    reduced /= np.float32(1.5)
    return reduced[3 * _HOP : 3 * _HOP + len(audio)]


def _padded_slice(audio: Audio, start: int, count: int) -> Audio:
    """`count` samples from `start` on; zeros outside of the audio."""
    padded = np.zeros(count, dtype=np.float32)
    first, last = max(start, 0), min(start + count, len(audio))
    padded[first - start : last - start] = audio[first:last]
    return padded


def _power_gain(power: Audio) -> Audio:
    """Gain for the power [frames, frequencies], `_FLOOR` to 1."""
    smooth = _smoothed(power)
    rank = round(_QUANTILE * (len(smooth) - 1))
    noise = np.float32(_BIAS) * np.partition(smooth, rank, axis=0)[rank]
    return np.asarray(np.maximum(1.0 - noise / np.maximum(smooth, np.float32(1e-20)), np.float32(_FLOOR)))


def _smoothed(power: Audio) -> Audio:
    """The exponential average over the frames: s[t] = 0.7 s[t - 1] + 0.3 p[t].

    By doubling: after each pass, every frame holds twice as many terms of the sum of 0.7**k p[t - k]. A loop
    over the frames would hold the GIL, and so stop the other threads.
    """
    smooth: Audio = np.multiply(power, np.float32(1.0) - _SMOOTHING)
    terms, weight = 1, _SMOOTHING
    while terms < len(smooth) and weight > np.finfo(np.float32).tiny:
        smooth[terms:] += weight * smooth[:-terms]
        terms, weight = 2 * terms, weight * weight
    return smooth
