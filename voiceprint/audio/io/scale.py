"""The scale of float samples: in [-1, 1], over full scale by a few dB, or integers without division."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from voiceprint.errors import InvalidAudioError

CLIPPED_UP_TO: Final = 1.25
"""Peak, +2 dB, up to which samples are clipped: resamplers and lossy codecs overshoot that far, in a few
samples. A higher peak means that the whole recording was amplified: it is scaled down, as clipping would
flatten every crest."""
SCALED_UP_TO: Final = 32.0
"""Peak, +30 dB, up to which audio is scaled down: beyond any gain set by mistake. Speech as undivided int16
values peaks at over a hundred."""
_INT16_PEAK: Final = 32768 * 1.01  # with the overshoot of a resampler


class Level(NamedTuple):
    """The peak of samples (NaN if any is NaN), and whether all are integral."""

    peak: float
    integral: bool


def level(samples: npt.NDArray[Any]) -> Level:
    """The level of float samples of any shape; peak 0 without samples."""
    if not samples.size:
        return Level(0.0, True)
    low, high = float(samples.min()), float(samples.max())  # both are NaN if any sample is
    peak = math.nan if math.isnan(low) or math.isnan(high) else max(abs(low), abs(high))
    # Only for loud samples, as this doubles the time.
    integral = not 1 < peak < math.inf or bool((samples == np.rint(samples)).all())
    return Level(peak, integral)


def combine(first: Level, second: Level) -> Level:
    """The level of two sets of samples together."""
    peak = math.nan if math.isnan(first.peak + second.peak) else max(first.peak, second.peak)
    return Level(peak, first.integral and second.integral)


def gain(level: Level) -> float:
    """The gain for samples of this level: 1, or the one that brings the peak to full scale.

    Raises:
        InvalidAudioError: NaN or infinite samples, or a peak beyond all audio.
    """
    peak = level.peak
    if math.isnan(peak):
        raise InvalidAudioError("audio holds NaN: find out which step produced it, or replace it with zeros")
    if math.isinf(peak):
        raise InvalidAudioError("audio holds infinite values: find out which step produced them")
    if peak <= CLIPPED_UP_TO:
        return 1.0
    if peak <= SCALED_UP_TO and not level.integral:
        return 1.0 / peak
    if peak <= _INT16_PEAK:
        raise InvalidAudioError(
            f"float audio must lie in [-1, 1], its peak is {peak:.3g}: these look like int16 values given "
            "as float, divide them by 32768 or pass them as int16"
        )
    raise InvalidAudioError(
        f"float audio must lie in [-1, 1], its peak is {peak:.3g}: scale it, or pass integers"
    )


def over_full_scale(peak: float) -> str:
    """The warning about audio scaled down from `peak`."""
    return f"it is over full scale by {20 * math.log10(peak):.1f} dB, and was scaled down: lower the gain"
