"""The scale of float samples: in [-1, 1], over full scale by some dB, or integers that were not divided."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from voiceprint.errors import InvalidAudioError

CLIPPED_UP_TO: Final = 1.25
"""+2 dB. The filters of resamplers and lossy codecs overshoot so far, on a few samples: these are clipped. A
recording that goes beyond was made louder as a whole, and is scaled down as a whole, as clipping would cut
off every crest of its waves."""
SCALED_UP_TO: Final = 32.0
"""+30 dB: beyond any gain that is set by mistake. Speech as undivided int16 values
peaks at a hundred and more."""
_INT16_PEAK: Final = 32768 * 1.01  # a resampler may have been there


class Level(NamedTuple):
    """The peak of samples (NaN where any is), and whether all are whole numbers."""

    peak: float
    whole: bool


def level(samples: npt.NDArray[Any]) -> Level:
    """The level of float samples of any shape; of none it is 0."""
    if not samples.size:
        return Level(0.0, True)
    low, high = float(samples.min()), float(samples.max())  # either is NaN where any sample is
    peak = math.nan if math.isnan(low) or math.isnan(high) else max(abs(low), abs(high))
    # Only asked of what is too loud, as it takes as long as all else.
    whole = not 1 < peak < math.inf or bool((samples == np.rint(samples)).all())
    return Level(peak, whole)


def louder(first: Level, second: Level) -> Level:
    """The level of both together."""
    peak = math.nan if math.isnan(first.peak + second.peak) else max(first.peak, second.peak)
    return Level(peak, first.whole and second.whole)


def gain(found: Level) -> float:
    """The factor for samples of this level: 1, or that which takes the peak to full scale.

    Raises:
        InvalidAudioError: the samples are NaN or infinite, or of no scale of audio.
    """
    peak = found.peak
    if math.isnan(peak):
        raise InvalidAudioError("audio holds NaN: find out which step produced it, or replace it with zeros")
    if math.isinf(peak):
        raise InvalidAudioError("audio holds infinite values: find out which step produced them")
    if peak <= CLIPPED_UP_TO:
        return 1.0
    if peak <= SCALED_UP_TO and not found.whole:
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
    """The warning for audio that was scaled down."""
    return f"it is over full scale by {20 * math.log10(peak):.1f} dB, and was scaled down: lower the gain"
