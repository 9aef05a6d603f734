"""Detection of two channels in a buffer declared as mono: interleaved samples, or interleaved frames.

A buffer does not declare its channels. Stereo PCM read as mono plays at half speed, with each channel in
every other sample; a recorder that appends the packets of both directions on arrival alternates frames of 10
to 60 ms of the two parties. Both show as jumps of the signal.

Frames: at each frame boundary the signal jumps, and continues the frame before the last one. In speech, and
within frames, neighbors are closer. Frames are detected if the two mean differences are at least 3 dB apart
at the boundaries, and not within. In 1,162 recordings of speech, at 8 and 16 kHz and for each frame length,
the difference is at most 0.3 dB; 1 in 100 interleavings of two voices is missed.

Samples: either every other difference is smaller by at least 10 dB (one channel twice; in speech at most
0.5 dB), or neighbors differ more than samples two apart, and in each frame the spectrum equals its mirror
image around a quarter of the sample rate, as the aliases of both channels lie there: concordance (Lin, "A
concordance correlation coefficient to evaluate reproducibility", 1989) of bands and frames in dB over 0.8.
Two voices have at least 0.96, one voice at most 0.54. Copies at another level are missed, which harms only
the speed. Differences are not squared, as a few loud clicks would dominate; sparse clicks of a single sample
without any speech are false alarms. See research/interleaving.md.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_FRAMES_MS: Final = (10, 20, 30, 40, 60)  # of RTP packets (RFC 3551)
_ANALYZED_S: Final = 30
_MIN_FRAMES: Final = 50
_JUMP: Final = 10**0.15  # 3 dB
_DUPLICATED: Final = 10**0.5  # 10 dB
_NEIGHBORS: Final = 10**0.025  # 0.5 dB; 0 dB for noise
_MIRRORED: Final = 0.8
_WINDOW: Final = 512
_MIN_WINDOWS: Final = 10  # loud ones: a few clicks do not suffice
_BAND: Final = 8  # bins, averages out chance similarity of the channels
_FLOOR: Final = 1e-7  # of the loudest frame

Floats = npt.NDArray[np.float32]


def interleaved(samples: npt.NDArray[Any], sample_rate: int) -> int | None:
    """Detect two interleaved channels in a buffer declared as mono.

    Args:
        samples: [n] of any PCM type; only the first 30 s count.
        sample_rate: the declared rate, Hz.

    Returns:
        Samples per channel and turn: 1 for stereo samples, the frame length for frames of two parties; None
        for true mono, or audio under a second.
    """
    audio = samples[: _ANALYZED_S * sample_rate]
    if len(audio) < sample_rate:
        return None
    with np.errstate(all="ignore"):
        if _has_interleaved_samples(audio):
            return 1
        for length in (sample_rate * ms // 1000 for ms in _FRAMES_MS):
            if len(audio) // length >= _MIN_FRAMES and _has_interleaved_frames(audio, length):
                return length
    return None


def deinterleave(samples: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Split turns of `length` samples into two channels, [n // 2, 2]; drops an incomplete last turn."""
    pairs = len(samples) // (2 * length)
    frames = samples[: pairs * 2 * length].reshape(pairs, 2, length)
    channels: npt.NDArray[Any] = frames.swapaxes(1, 2).reshape(-1, 2)
    return channels


def _has_interleaved_samples(audio: npt.NDArray[Any]) -> bool:
    from_even, from_odd, over_two = _mean_steps(audio)
    if max(from_even, from_odd) > _DUPLICATED * min(from_even, from_odd):
        return True
    return (
        from_even + from_odd > 2 * _NEIGHBORS * over_two
        and _mirror_concordance(_normalize(audio)) > _MIRRORED
    )


def _mean_steps(audio: npt.NDArray[Any]) -> tuple[float, float, float]:
    """Mean steps from even samples to the next, from odd samples to the next, and over two samples."""
    even, odd = (audio[parity::2][: len(audio) // 2].astype(np.float32) for parity in range(2))
    from_even, from_odd = np.abs(odd - even), np.abs(even[1:] - odd[:-1])
    over_two = np.abs(even[1:] - even[:-1]).mean() + np.abs(odd[1:] - odd[:-1]).mean()
    return float(from_even.mean()), float(from_odd.mean()), float(over_two) / 2.0


def _normalize(audio: npt.NDArray[Any]) -> Floats:
    """Remove the mean and scale the peak to 1."""
    floats = audio - audio.mean(dtype=np.float64)
    floats /= max(float(np.abs(floats).max()), 1e-30)
    return np.asarray(floats, dtype=np.float32)


def _mirror_concordance(audio: Floats) -> float:
    """Concordance, -1..1, of the spectrum below a quarter of the sample rate with the mirror image above."""
    windows = np.lib.stride_tricks.sliding_window_view(audio, _WINDOW)[:: _WINDOW // 2]
    power = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW).astype(np.float32))) ** 2
    quarter = _WINDOW // 4
    low, high = power[:, 1:quarter], power[:, quarter + 1 : -1][:, ::-1]
    whole = low.shape[1] // _BAND * _BAND
    low, high = (part[:, :whole].reshape(len(power), -1, _BAND).sum(axis=2) for part in (low, high))
    level = low.sum(axis=1) + high.sum(axis=1)
    loud = level > level.max() * 1e-3
    if loud.sum() < _MIN_WINDOWS:
        return 0.0
    floor = level.max() * _FLOOR
    a, b = (10.0 * np.log10(part[loud] + floor) for part in (low, high))
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    return float(2.0 * covariance / max(a.var() + b.var() + (a.mean() - b.mean()) ** 2, 1e-9))


def _has_interleaved_frames(audio: npt.NDArray[Any], length: int) -> bool:
    def mean_steps(offset: int) -> tuple[float, float]:
        """Mean steps to a sample of each frame from the sample before, and from that one frame earlier."""
        indices = np.arange(2 * length + offset, len(audio), length)
        current, previous, previous_turn = (
            audio[at].astype(np.float32) for at in (indices, indices - 1, indices - length - 1)
        )
        return float(np.abs(current - previous).mean()), float(np.abs(current - previous_turn).mean())

    jump, continued = mean_steps(0)
    if jump <= _JUMP * continued:
        return False
    # A tone whose period fits the frame jumps within frames too.
    within = [mean_steps(length * quarter // 4) for quarter in (1, 2, 3)]
    return all(near < min(jump, far) for near, far in within)
