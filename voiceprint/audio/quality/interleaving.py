"""Two channels that were taken for one: stereo samples in turn, or frames of two parties in turn.

A buffer says nothing of its channels. Stereo PCM that is given as mono plays at half the speed, each channel
in every other sample; a recorder that appends the packets of both directions as they come leaves frames of
10 to 60 ms of one party and the other in turn. Both are seen where the signal jumps.

Frames: at the limits of frames the signal jumps, and goes on smoothly from the end of the last frame but one.
Of speech it is the other way round, and within frames too. At least 3 dB between the two mean differences,
and none within, makes frames. Of 1,162 recordings of speech, at 8 and 16 kHz and for each
length, the most is 0.3 dB; 1 in 100 of those that are frames of two voices is missed.

Samples: either every other difference is smaller by 10 dB and more (one channel twice; of speech at most
0.5 dB), or neighbors differ more than samples two apart do, and the spectrum is its own mirror image around
a quarter of the sample rate, in each frame, as the images of both channels lie there: concordance (Lin, "A
concordance correlation coefficient to evaluate reproducibility", 1989) of the dB of bands and frames over
0.8. Two voices give 0.96 and more, one voice 0.54 at most. What is missed are copies at another level, which
are no harm but to the speed. Differences are not squared, as some loud clicks would outweigh all else; sparse
clicks of one sample without any speech are what is still taken for channels. See
research/interleaving.md.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_FRAMES_MS: Final = (10, 20, 30, 40, 60)  # of RTP packets (RFC 3551)
_LOOKED_AT_S: Final = 30
_LEAST_FRAMES: Final = 50
_JUMP: Final = 10**0.15  # 3 dB
_TWICE: Final = 10**0.5  # 10 dB
_NEIGHBORS: Final = 10**0.025  # 0.5 dB: noise has none
_MIRRORED: Final = 0.8
_WINDOW: Final = 512
_LEAST_WINDOWS: Final = 10  # that are loud: clicks are not enough
_BAND: Final = 8  # bins; evens out what the channels have in common by chance
_QUIETEST: Final = 1e-7  # of the loudest frame

Floats = npt.NDArray[np.float32]


def interleaved(samples: npt.NDArray[Any], sample_rate: int) -> int | None:
    """How many samples of each channel stand together in a buffer that was taken for mono.

    Args:
        samples: [n] of any PCM type; the first 30 s are looked at.
        sample_rate: as it was given, Hz.

    Returns:
        1 for stereo samples, the length of a frame for frames of two parties; None for true mono, or
        where less than a second is there.
    """
    audio = samples[: _LOOKED_AT_S * sample_rate]
    if len(audio) < sample_rate:
        return None
    with np.errstate(all="ignore"):
        if _by_samples(audio):
            return 1
        for length in (sample_rate * ms // 1000 for ms in _FRAMES_MS):
            if len(audio) // length >= _LEAST_FRAMES and _by_frames(audio, length):
                return length
    return None


def deinterleave(samples: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """The two channels, [n // 2, 2], of which `length` samples stand in turn; leaves out a rest."""
    pairs = len(samples) // (2 * length)
    frames = samples[: pairs * 2 * length].reshape(pairs, 2, length)
    channels: npt.NDArray[Any] = frames.swapaxes(1, 2).reshape(-1, 2)
    return channels


def _by_samples(audio: npt.NDArray[Any]) -> bool:
    one, other, over = _steps(audio)
    if max(one, other) > _TWICE * min(one, other):
        return True
    return one + other > 2 * _NEIGHBORS * over and _concordance(_normalized(audio)) > _MIRRORED


def _steps(audio: npt.NDArray[Any]) -> tuple[float, float, float]:
    """The mean steps from even samples to the next, from odd samples to the next, and over two."""
    even, odd = (audio[place::2][: len(audio) // 2].astype(np.float32) for place in range(2))
    to_next, from_odd = np.abs(odd - even), np.abs(even[1:] - odd[:-1])
    over = np.abs(even[1:] - even[:-1]).mean() + np.abs(odd[1:] - odd[:-1]).mean()
    return float(to_next.mean()), float(from_odd.mean()), float(over) / 2.0


def _normalized(audio: npt.NDArray[Any]) -> Floats:
    """Without its mean, and with a peak of 1."""
    floats = audio - audio.mean(dtype=np.float64)
    floats /= max(float(np.abs(floats).max()), 1e-30)
    return np.asarray(floats, dtype=np.float32)


def _concordance(audio: Floats) -> float:
    """Of the spectrum under a quarter of the sample rate with its mirror image over it, in dB; -1..1."""
    windows = np.lib.stride_tricks.sliding_window_view(audio, _WINDOW)[:: _WINDOW // 2]
    power = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW).astype(np.float32))) ** 2
    quarter = _WINDOW // 4
    low, high = power[:, 1:quarter], power[:, quarter + 1 : -1][:, ::-1]
    whole = low.shape[1] // _BAND * _BAND
    low, high = (part[:, :whole].reshape(len(power), -1, _BAND).sum(axis=2) for part in (low, high))
    level = low.sum(axis=1) + high.sum(axis=1)
    loud = level > level.max() * 1e-3
    if loud.sum() < _LEAST_WINDOWS:
        return 0.0
    floor = level.max() * _QUIETEST
    a, b = (10.0 * np.log10(part[loud] + floor) for part in (low, high))
    shared = ((a - a.mean()) * (b - b.mean())).mean()
    return float(2.0 * shared / max(a.var() + b.var() + (a.mean() - b.mean()) ** 2, 1e-9))


def _by_frames(audio: npt.NDArray[Any], length: int) -> bool:
    def steps(offset: int) -> tuple[float, float]:
        """At a place of each frame, the mean step, and that from the frame before the last."""
        first = np.arange(2 * length + offset, len(audio), length)
        here, before, frames_before = (
            audio[places].astype(np.float32) for places in (first, first - 1, first - length - 1)
        )
        return float(np.abs(here - before).mean()), float(np.abs(here - frames_before).mean())

    jump, smooth = steps(0)
    if jump <= _JUMP * smooth:
        return False
    # A tone whose period fits does the same elsewhere.
    within = [steps(length * quarter // 4) for quarter in (1, 2, 3)]
    return all(near < min(jump, far) for near, far in within)
