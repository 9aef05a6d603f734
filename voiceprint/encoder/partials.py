"""Speech cut into the pieces that the network takes: partials of 1.6 s, one every 0.77 s.

The rules are Resemblyzer's (0.1.4: `preprocess_wav`, and `embed_utterance` with `rate=1.3` and
`min_coverage=0.75`). Nothing here is longer than a block of partials, so that an hour of audio takes no
more memory than a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.encoder.mel import FRAME, HOP, mel_frames

FRAMES: Final = 160
"""Mel frames of a partial."""
STEP: Final = round(16_000 / 1.3 / HOP)
"""Mel frames from the beginning of one partial to that of the next: 77."""

_MIN_COVERAGE: Final = 0.75  # of the last partial by speech; the rest is filled with zeros


def count_partials(samples: int) -> int:
    """How many partials so much speech has; at least one."""
    frames = samples // HOP + 1
    count = len(range(0, max(1, frames - FRAMES + STEP + 1), STEP))
    coverage = (samples / HOP - (count - 1) * STEP) / FRAMES
    return count - 1 if coverage < _MIN_COVERAGE and count > 1 else count


def partials(speech: TrimmedSpeech, most: int) -> Iterator[NDArray[np.float32]]:
    """The mel spectrograms of the partials, float32[n, 160, 40], at most so many of them at a time."""
    for samples in stretches(speech, most):
        yield spectrograms(samples)


def stretches(speech: TrimmedSpeech, most: int) -> Iterator[NDArray[np.float32]]:
    """The samples of the partials, at most so many of them at a time, as `spectrograms` takes them."""
    count = count_partials(len(speech))
    for first in range(0, count, most):
        number = min(most, count - first)
        start = first * STEP * HOP - FRAME // 2
        yield speech.read(start, start + ((number - 1) * STEP + FRAMES - 1) * HOP + FRAME)


def spectrograms(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mel spectrograms of the partials in a stretch, float32[n, 160, 40]."""
    frames = mel_frames(samples)
    windows = np.lib.stride_tricks.sliding_window_view(frames, FRAMES, axis=0)[::STEP]
    return np.asarray(windows.transpose(0, 2, 1))
