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

from voiceprint.audio import vad
from voiceprint.audio.io.mono import Samples
from voiceprint.encoder.mel import FRAME, HOP, mel_frames
from voiceprint.errors import EncoderError

FRAMES: Final = 160
"""Mel frames of a partial."""
STEP: Final = round(16_000 / 1.3 / HOP)
"""Mel frames from the beginning of one partial to that of the next: 77."""

_TOGETHER: Final = 512  # windows of audio, 15 s, that are read in one piece whatever lies between
_MIN_COVERAGE: Final = 0.75  # of the last partial by speech; the rest is filled with zeros


class Speech:
    """The speech in float32[n] at 16 kHz: raised to -30 dBFS, without its pauses; never copied as a whole."""

    def __init__(self, audio: Samples) -> None:
        self._gain = vad.volume_gain(audio)
        if not np.isfinite(self._gain):
            raise EncoderError("The audio holds values that are not numbers.")
        kept = vad.speech_windows(vad.voice_flags(audio, self._gain))
        self._kept = np.flatnonzero(kept)
        self._audio = audio

    def __len__(self) -> int:
        return len(self._kept) * vad.WINDOW

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples start to stop, float32[stop - start]; before the beginning and after the end, zeros."""
        read = np.zeros(stop - start, dtype=np.float32)
        first, last = max(start, 0), min(stop, len(self))
        if first < last:
            window = first // vad.WINDOW
            samples = self._gathered(self._kept[window : -(-last // vad.WINDOW)])
            skipped = first - window * vad.WINDOW
            np.multiply(
                samples[skipped : skipped + last - first], self._gain, out=read[first - start : last - start]
            )
        return read

    def _gathered(self, windows: NDArray[np.intp]) -> NDArray[np.float32]:
        """The samples of windows, whose numbers rise."""
        groups = np.split(windows, np.flatnonzero(np.diff(windows // _TOGETHER)) + 1)
        return np.concatenate([self._group(group) for group in groups])

    def _group(self, windows: NDArray[np.intp]) -> NDArray[np.float32]:
        first, end = windows[0], windows[-1] + 1
        block = self._audio[first * vad.WINDOW : end * vad.WINDOW].reshape(-1, vad.WINDOW)
        return np.asarray(block[windows - first].reshape(-1))


def count_partials(samples: int) -> int:
    """How many partials so much speech has; at least one."""
    frames = samples // HOP + 1
    count = len(range(0, max(1, frames - FRAMES + STEP + 1), STEP))
    coverage = (samples / HOP - (count - 1) * STEP) / FRAMES
    return count - 1 if coverage < _MIN_COVERAGE and count > 1 else count


def partials(speech: Speech, most: int) -> Iterator[NDArray[np.float32]]:
    """The mel spectrograms of the partials, float32[n, 160, 40], at most so many of them at a time."""
    for samples in stretches(speech, most):
        yield spectrograms(samples)


def stretches(speech: Speech, most: int) -> Iterator[NDArray[np.float32]]:
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
