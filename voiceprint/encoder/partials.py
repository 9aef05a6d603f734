"""Partials, the inputs of the network: pieces of speech of 1.6 s, one every 0.77 s.

The rules are Resemblyzer's (0.1.4: `preprocess_wav`, and `embed_utterance` with `rate=1.3` and
`min_coverage=0.75`). No array is longer than a block of partials, so that an hour of audio takes no more
memory than a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.encoder.mel import FRAME, HOP, mel_frames

if TYPE_CHECKING:
    from voiceprint.audio.speech.trimming import TrimmedSpeech

FRAMES: Final = 160
"""Mel frames of a partial."""
STEP: Final = round(16_000 / 1.3 / HOP)
"""Mel frames between the starts of partials: 77."""

_MIN_COVERAGE: Final = 0.75  # share of speech in the last partial, which is padded with zeros


def count_partials(samples: int) -> int:
    """The number of partials in `samples` samples of speech, at least 1."""
    frames = samples // HOP + 1
    count = len(range(0, max(1, frames - FRAMES + STEP + 1), STEP))
    coverage = (samples / HOP - (count - 1) * STEP) / FRAMES
    return count - 1 if coverage < _MIN_COVERAGE and count > 1 else count


def partials(speech: TrimmedSpeech, block: int) -> Iterator[NDArray[np.float32]]:
    """The mel spectrograms of the partials, float32[n, 160, 40], in blocks of at most `block`."""
    for samples in sample_blocks(speech, block):
        yield spectrograms(samples)


def sample_blocks(speech: TrimmedSpeech, block: int) -> Iterator[NDArray[np.float32]]:
    """The samples, for `spectrograms`, of blocks of at most `block` partials."""
    count = count_partials(len(speech))
    for first in range(0, count, block):
        number = min(block, count - first)
        start = first * STEP * HOP - FRAME // 2
        yield speech.read(start, start + ((number - 1) * STEP + FRAMES - 1) * HOP + FRAME)


def count_in_block(samples: int) -> int:
    """The number of partials in a block of `sample_blocks`."""
    return ((samples - FRAME) // HOP + 1 - FRAMES) // STEP + 1


def spectrograms(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mel spectrograms of the partials in a block of samples, float32[n, 160, 40]."""
    frames = mel_frames(samples)
    windows = np.lib.stride_tricks.sliding_window_view(frames, FRAMES, axis=0)[::STEP]
    return np.asarray(windows.transpose(0, 2, 1))
